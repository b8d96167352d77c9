"""Each work of the bibliography says where it can be found, and its entry links there."""

import html
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("sphinxcontrib.bibtex")
from pybtex.database import Entry, parse_file
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

BIBLIOGRAPHY = Path(__file__).parents[2] / "book" / "references.bib"
DOI = re.compile(r"10\.\d{4,9}/\S+")
ARXIV = re.compile(r"\d{4}\.\d{4,5}")
ADDRESS = re.compile(r"https://\S+")
WORKS: dict[str, Entry] = dict(parse_file(str(BIBLIOGRAPHY)).entries)


def address(work: Entry) -> str:
    """Where a work is found; empty if its entry does not say."""
    fields = work.fields
    if DOI.fullmatch(fields.get("doi", "")):
        return f"https://doi.org/{fields['doi']}"
    if ARXIV.fullmatch(fields.get("eprint", "")) and fields.get("archiveprefix") == "arXiv":
        return f"https://arxiv.org/abs/{fields['eprint']}"
    howpublished = re.fullmatch(r"\\url\{(.*)\}", fields.get("howpublished", ""))
    url = howpublished[1] if howpublished else fields.get("url", "")
    return url if ADDRESS.fullmatch(url) else ""


def test_each_work_has_an_address() -> None:
    assert [key for key, work in WORKS.items() if not address(work)] == []


def test_a_preprint_is_not_younger_than_its_work() -> None:
    wrong = {
        key: (work.fields["eprint"], work.fields["year"])
        for key, work in WORKS.items()
        if "eprint" in work.fields
        and int("20" + work.fields["eprint"][:2]) > int(work.fields["year"])
    }
    assert not wrong


def test_no_address_stands_twice() -> None:
    addresses = [address(work) for work in WORKS.values()]
    assert sorted({a for a in addresses if addresses.count(a) > 1}) == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"doi": "10.1000/x_1"}, "https://doi.org/10.1000/x_1"),
        ({"doi": "https://doi.org/10.1000/x"}, ""),
        (
            {"eprint": "1706.03762", "archiveprefix": "arXiv"},
            "https://arxiv.org/abs/1706.03762",
        ),
        ({"eprint": "1706.03762"}, ""),
        ({"eprint": "arXiv:1706.03762", "archiveprefix": "arXiv"}, ""),
        ({"howpublished": r"\url{https://example.org/a}"}, "https://example.org/a"),
        ({"url": "http://example.org"}, ""),
        ({"title": "Nothing"}, ""),
    ],
)
def test_what_is_an_address(fields: dict[str, str], expected: str) -> None:
    assert address(Entry("misc", fields)) == expected


def test_each_entry_links_to_its_work(tmp_path: Path) -> None:
    (tmp_path / "index.rst").write_text("Works\n=====\n\n.. bibliography::\n   :all:\n")
    (tmp_path / "references.bib").write_text(BIBLIOGRAPHY.read_text(encoding="utf-8"))
    warnings = io.StringIO()
    settings = {
        "extensions": ["sphinxcontrib.bibtex", "book._ext.theme.citation_roles"],
        "bibtex_bibfiles": ["references.bib"],
        "html_theme": "basic",
    }
    with docutils_namespace():
        app = Sphinx(
            str(tmp_path), None, str(tmp_path / "html"), str(tmp_path / "trees"), "html",
            confoverrides=settings, status=None, warning=warnings,
        )  # fmt: skip
        app.build()
    assert warnings.getvalue() == ""
    page = (tmp_path / "html/index.html").read_text()
    entries = re.findall(r'<div class="citation".*?</div>', page, re.DOTALL)
    assert len(entries) == len(WORKS)
    links = [
        [html.unescape(link) for link in re.findall(r'href="(https://.*?)"', entry)]
        for entry in entries
    ]
    assert sorted(links) == sorted([address(work)] for work in WORKS.values())
    assert all('role="listitem"' in entry for entry in entries)
    assert "doc-biblioentry" not in page
