"""What the site says of itself: heads, footers, and the files that are no pages."""

import html
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("sphinx")
from sphinx.application import Sphinx
from sphinx.errors import SphinxError
from sphinx.util.docutils import docutils_namespace

from book._ext.site.files import search_without_server

ROOT = Path(__file__).parents[3]
SITE = "https://owner.github.io/name/"
PAGES = {
    "book/index": (
        "A & B\n=====\n\nThe promise of the book. It has two sentences.\n\n"
        ".. toctree::\n   :caption: Stage 0 · Start\n\n   stage/one\n   stage/two\n\n"
        ".. toctree::\n   :caption: The book\n\n   changelog\n"
    ),
    "book/stage/one": "One <b>\n=======\n\nIt begins here.\n\nMore\n----\n\nText.\n",
    "book/stage/two": ".. meta::\n   :description: Its own words.\n\nTwo\n===\n\nIt ends.\n",
    "book/changelog": (
        "Changes\n=======\n\nWords.\n\n"
        "[1.0.0] - 2026-11-30\n--------------------\n\n- The first.\n"
    ),
}
CHANGELOG = "# Changes\n\n## [Unreleased]\n\n- x\n\n## [1.0.0] - 2026-11-30\n\n- The first.\n"


class Book:
    """A small book, built with plain Sphinx."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "source", folder / "html"
        self.source.mkdir()
        self.write("_config.yml", "repository: {url: https://github.com/owner/name}\n")
        self.write("CHANGELOG.md", CHANGELOG)
        for name, text in PAGES.items():
            self.write(f"{name}.rst", text)

    def write(self, name: str, text: str) -> None:
        path = self.source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self, *extensions: str, **settings: Any) -> str:
        warnings = io.StringIO()
        given = {
            "extensions": ["book._ext.site.files", *extensions],
            "root_doc": "book/index",
            "source_suffix": {".rst": "restructuredtext"},  # Sphinx's default may grow
            "html_theme": "basic",
            "html_title": "A & B",
            "author": "The authors",
            "html_sourcelink_suffix": "",
            **settings,
        }
        with docutils_namespace():
            folders = str(self.source), None, str(self.out), str(self.out.parent / "doctrees")
            app = Sphinx(
                *folders, "html", confoverrides=given, status=None, warning=warnings,
            )  # fmt: skip
            app.build()
        return warnings.getvalue()

    def text(self, name: str) -> str:
        return (self.out / name).read_text(encoding="utf-8")

    def meta(self, page: str) -> dict[str, str]:
        pattern = r'<meta (?:name|property)="([^"]+)" content="([^"]*)"'
        tags = re.findall(pattern, self.text(page))
        tags = [tag for tag in tags if tag[0] != "viewport"]  # Sphinx writes it twice
        assert len(tags) == len(dict(tags))
        return {name: html.unescape(content) for name, content in tags}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Book]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path_factory.getbasetemp()))
        book = Book(tmp_path_factory.mktemp("site"))
        assert book.build() == ""
        yield book


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    return Book(tmp_path)


def test_each_page_names_its_canonical_address(built: Book) -> None:
    for page in PAGES:
        assert f'<link rel="canonical" href="{SITE}{page}.html" />' in built.text(
            f"{page}.html"
        )


def test_the_head_says_what_the_page_is(built: Book) -> None:
    meta = built.meta("book/stage/one.html")
    assert meta["description"] == meta["og:description"] == "It begins here."
    assert meta["og:title"] == "One <b>" and meta["og:site_name"] == "A & B"
    assert meta["og:type"] == "article" and meta["og:url"] == f"{SITE}book/stage/one.html"
    assert meta["twitter:card"] == "summary_large_image"
    assert built.meta("book/index.html")["og:type"] == "website"
    assert 'content="One &lt;b&gt;"' in built.text("book/stage/one.html")


def test_each_page_has_a_card_of_its_own(built: Book) -> None:
    images = [built.meta(f"{page}.html")["og:image"] for page in PAGES]
    assert len(set(images)) == len(PAGES)
    for image in images:
        assert image.startswith(SITE)
        assert (built.out / image.removeprefix(SITE)).stat().st_size > 5000


def test_a_page_keeps_its_own_description(built: Book) -> None:
    (tag,) = re.findall(
        r'<meta [^>]*name="description"[^>]*>', built.text("book/stage/two.html")
    )
    assert 'content="Its own words."' in tag
    assert built.meta("book/stage/two.html")["og:description"] == "It ends."


def test_every_page_leads_to_the_feed(built: Book) -> None:
    for page, root in {"book/stage/one": "../../", "search": ""}.items():
        (link,) = re.findall(r'<link rel="alternate"[^>]*>', built.text(f"{page}.html"))
        assert f'href="{root}feed.xml"' in link and "application/atom+xml" in link


def test_the_feed_leads_to_an_anchor_of_the_changelog(built: Book) -> None:
    root = ElementTree.parse(built.out / "feed.xml").getroot()
    (entry,) = root.findall("{http://www.w3.org/2005/Atom}entry")
    page, _, anchor = (
        (entry.findtext("{http://www.w3.org/2005/Atom}id") or "")
        .removeprefix(SITE)
        .partition("#")
    )
    assert anchor == "version-1.0.0" and f'id="{anchor}"' in built.text(page)


def test_robots_and_llms(built: Book) -> None:
    assert built.text("robots.txt").endswith(f"Sitemap: {SITE}sitemap.xml\n")
    lines = built.text("llms.txt").splitlines()
    assert lines[0] == "# A & B"
    assert lines[2] == "> The promise of the book. It has two sentences."
    assert lines[4].endswith(f"{SITE}book/index.html is {SITE}_sources/book/index.rst.")
    assert lines[6:] == [
        "## Stage 0 · Start",
        "",
        f"- [One <b>]({SITE}book/stage/one.html): It begins here.",
        f"- [Two]({SITE}book/stage/two.html): It ends.",
        "",
        "## The book",
        "",
        f"- [Changes]({SITE}book/changelog.html): Words.",
    ]
    assert (built.out / "_sources/book/index.rst").is_file()


def test_the_root_leads_to_the_first_page(built: Book) -> None:
    text = built.text("index.html")
    assert 'http-equiv="refresh" content="0; url=book/index.html"' in text
    assert f'<link rel="canonical" href="{SITE}book/index.html">' in text
    assert '<a href="book/index.html">A &amp; B</a>' in text and '<html lang="en">' in text


def test_the_page_for_wrong_addresses_works_in_any_folder(built: Book) -> None:
    text = built.text("404.html")
    assert text.index('<base href="/name/">') < text.index("<script>") < text.index("<style>")
    links = re.findall(r'<a href="([^"]+)"', text)
    assert links == ["book/index.html", *(f"book/{p}.html" for p in
                     ("stage/one", "stage/two", "changelog"))]  # fmt: skip
    assert all((built.out / link).is_file() for link in links)
    assert not re.search(r'src=|rel="stylesheet"|\$', text)  # it needs no other file
    assert '<form action="search.html"' in text and 'name="q"' in text


def test_the_search_is_quiet_without_a_server(built: Book) -> None:
    options = built.text("_static/documentation_options.js")
    assert "SHOW_SEARCH_SUMMARY: location.protocol !== 'file:'" in options
    assert search_without_server("SHOW_SEARCH_SUMMARY: false") == "SHOW_SEARCH_SUMMARY: false"


def test_a_second_build_changes_nothing(book: Book) -> None:
    book.build()
    before = {path: path.read_bytes() for path in book.out.rglob("*.*") if path.is_file()}
    assert book.build() == ""
    after = {path: path.read_bytes() for path in book.out.rglob("*.*") if path.is_file()}
    assert before == after


def test_a_book_without_a_changelog_has_no_feed(book: Book) -> None:
    (book.source / "CHANGELOG.md").unlink()
    assert book.build() == ""
    assert not (book.out / "feed.xml").exists()
    assert "atom+xml" not in book.text("book/index.html")


def test_a_version_without_a_date_stops_the_build(book: Book) -> None:
    book.write("CHANGELOG.md", "# Changes\n\n## [1.0.0]\n\n- x\n")
    with pytest.raises(SphinxError, match="has no date that can be read"):
        book.build()
    assert not (book.out / "feed.xml").exists()


def test_the_sitemap_holds_the_pages_and_nothing_else(book: Book) -> None:
    config = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))["sphinx"]
    assert "sphinx_sitemap" in config["extra_extensions"]
    settings = {k: v for k, v in config["config"].items() if k.startswith("sitemap_")}
    book.write("_static/x.css", "")
    assert book.build("sphinx_sitemap", html_static_path=["_static"], **settings) == ""
    root = ElementTree.parse(book.out / "sitemap.xml").getroot()
    assert sorted(url[0].text or "" for url in root) == sorted(
        f"{SITE}{page}.html" for page in PAGES
    )
