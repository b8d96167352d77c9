"""The Atom feed of the changelog: an entry for each version that has a date."""

import datetime
import re
from dataclasses import dataclass
from xml.etree import ElementTree

from markdown_it import MarkdownIt

ATOM = "http://www.w3.org/2005/Atom"
HEADING = re.compile(
    r"^## +\[?(?P<version>[^\]\s]+)\]?(?: +- +(?P<date>\S+))? *$", re.MULTILINE
)
UNRELEASED = "unreleased"


@dataclass(frozen=True)
class Release:
    """A version of the changelog.

    Attributes:
        version: Its number.
        date: The day it came out.
        text: What changed, in Markdown.
    """

    version: str
    date: datetime.date
    text: str


def read_releases(changelog: str) -> list[Release]:
    """Read the versions of a changelog in the form of Keep a Changelog.

    Args:
        changelog: Its text: ``## [1.2.0] - 2026-11-30`` opens a version. ``## [Unreleased]`` is
            left out.

    Returns:
        The versions in the changelog's order.

    Raises:
        ValueError: If a version has no date, or a malformed one.
    """
    headings = list(HEADING.finditer(changelog))
    ends = [heading.start() for heading in headings[1:]] + [len(changelog)]
    releases = []
    for heading, end in zip(headings, ends, strict=True):
        version = heading["version"]
        if version.lower() == UNRELEASED:
            continue
        try:
            date = datetime.date.fromisoformat(heading["date"] or "")
        except ValueError as error:
            raise ValueError(
                f"CHANGELOG.md: {heading[0].strip()!r} has no date that can be read: write "
                f"'## [{version}] - year-month-day', such as 2026-11-30"
            ) from error
        releases.append(Release(version, date, changelog[heading.end() : end].strip()))
    return releases


def atom_feed(
    releases: list[Release],
    *,
    title: str,
    author: str,
    feed: str,
    page: str,
    changed: datetime.datetime,
) -> bytes:
    """Write the feed.

    Args:
        releases: The versions, newest first.
        title: The feed's title.
        author: Who writes the book.
        feed: The feed's own address, which identifies it too.
        page: The address of the page of changes; an entry is its ``#version-...``.
        changed: When the changelog last changed, with its time zone: stands for the newest
            version's date where there is no version yet.

    Returns:
        Atom (RFC 4287) in UTF-8.
    """
    ElementTree.register_namespace("", ATOM)
    root = ElementTree.Element(f"{{{ATOM}}}feed")
    newest = max((_instant(release.date) for release in releases), default=None)
    _add(root, "id", feed)
    _add(root, "title", title)
    _add(root, "updated", newest or changed.isoformat(timespec="seconds"))
    _add(_add(root, "author"), "name", author)
    _add(root, "link", rel="self", type="application/atom+xml", href=feed)
    _add(root, "link", rel="alternate", type="text/html", href=page)
    for release in releases:
        entry = _add(root, "entry")
        address = f"{page}#version-{release.version}"
        _add(entry, "id", address)
        _add(entry, "title", f"Version {release.version}")
        _add(entry, "updated", _instant(release.date))
        _add(entry, "link", rel="alternate", type="text/html", href=address)
        _add(entry, "content", MarkdownIt().render(release.text), type="html")
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def _instant(date: datetime.date) -> str:
    return f"{date.isoformat()}T00:00:00Z"


def _add(
    parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str
) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, f"{{{ATOM}}}{tag}", attributes)
    child.text = text
    return child
