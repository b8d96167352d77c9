"""The Atom feed of the changelog, checked against what RFC 4287 asks of a feed."""

import datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytest.importorskip("markdown_it")
from book._ext.site.feed import ATOM, Release, atom_feed, read_releases

ROOT = Path(__file__).parents[3]
CHANGELOG = """# Changelog

Words before the first version.

## [Unreleased]

### Added

- Not out yet.

## [1.1.0] - 2026-11-30

### Added

- A `site` with *notebooks* & <tags>.

## 1.0.0 - 2026-01-02

- The first.
"""
CHANGED = datetime.datetime(2026, 12, 1, 10, 30, tzinfo=datetime.UTC)
PAGE = "https://owner.github.io/book/book/changelog.html"


def feed(releases: list[Release]) -> ElementTree.Element:
    text = atom_feed(
        releases,
        title="A book: changes",
        author="The authors",
        feed="https://owner.github.io/book/feed.xml",
        page=PAGE,
        changed=CHANGED,
    )
    assert text.startswith(b"<?xml")
    return ElementTree.fromstring(text)


def texts(element: ElementTree.Element, tag: str) -> list[str | None]:
    return [child.text for child in element.findall(f"{{{ATOM}}}{tag}")]


def test_versions_with_a_date_are_read_in_order() -> None:
    releases = read_releases(CHANGELOG)
    assert [(r.version, r.date.isoformat()) for r in releases] == [
        ("1.1.0", "2026-11-30"),
        ("1.0.0", "2026-01-02"),
    ]
    assert releases[1].text == "- The first."
    assert "Not out yet" not in releases[0].text and "notebooks" in releases[0].text


@pytest.mark.parametrize(
    "heading", ["## [1.0.0]", "## [1.0.0] - soon", "## [1.0.0] - 2026-13-01"]
)
def test_a_version_without_a_date_is_named(heading: str) -> None:
    with pytest.raises(ValueError, match=r"'## \[1\.0\.0\].* has no date that can be read"):
        read_releases(f"# Changelog\n\n{heading}\n\n- x\n")


def test_the_feed_holds_what_atom_asks_for() -> None:
    root = feed(read_releases(CHANGELOG))
    assert root.tag == f"{{{ATOM}}}feed"
    assert texts(root, "id") == ["https://owner.github.io/book/feed.xml"]
    assert texts(root, "title") == ["A book: changes"]
    assert texts(root, "updated") == ["2026-11-30T00:00:00Z"]
    (author,) = root.findall(f"{{{ATOM}}}author")
    assert texts(author, "name") == ["The authors"]
    links = {link.get("rel"): link.get("href") for link in root.findall(f"{{{ATOM}}}link")}
    assert links == {"self": "https://owner.github.io/book/feed.xml", "alternate": PAGE}


def test_each_version_is_an_entry() -> None:
    newest, oldest = feed(read_releases(CHANGELOG)).findall(f"{{{ATOM}}}entry")
    assert texts(newest, "id") == [f"{PAGE}#version-1.1.0"]
    assert texts(newest, "title") == ["Version 1.1.0"]
    assert texts(newest, "updated") == ["2026-11-30T00:00:00Z"]
    assert texts(oldest, "updated") == ["2026-01-02T00:00:00Z"]
    (content,) = newest.findall(f"{{{ATOM}}}content")
    assert content.get("type") == "html"
    assert "<code>site</code> with <em>notebooks</em> &amp; " in (content.text or "")


def test_a_feed_without_versions_is_dated_by_the_changelog() -> None:
    root = feed([])
    assert texts(root, "updated") == ["2026-12-01T10:30:00+00:00"]
    assert root.findall(f"{{{ATOM}}}entry") == []


def test_this_books_changelog_can_be_read() -> None:
    releases = read_releases((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    dates = [release.date for release in releases]
    assert dates == sorted(dates, reverse=True)
