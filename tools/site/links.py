"""Reads every page of the built site as text: do its links, anchors and images exist?

Nothing is executed and nothing is fetched. Links to other sites are left to the weekly link
check; but what a page would load from elsewhere by itself is a fault.
"""

import posixpath
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from tools.site.faults import Fault, short

LOADED_RELS = {
    "stylesheet", "icon", "preload", "modulepreload", "prefetch", "preconnect", "dns-prefetch",
    "manifest", "apple-touch-icon",
}  # fmt: skip
LOADED = {
    ("script", "src"), ("img", "src"), ("source", "src"), ("iframe", "src"), ("video", "src"),
    ("video", "poster"), ("audio", "src"), ("track", "src"), ("embed", "src"),
    ("object", "data"), ("image", "href"), ("image", "xlink:href"), ("use", "href"),
    ("use", "xlink:href"),
}  # fmt: skip
FOLLOWED = {("a", "href"), ("area", "href"), ("form", "action"), ("a", "xlink:href")}
NO_FILES = ("data", "mailto", "tel", "javascript", "blob")
PLACE = re.compile(r"url\(\s*['\"]?#([^'\")\s]+)")
ALWAYS_THERE = {"", "top"}


@dataclass
class Reference:
    """An address in a page: whether the page loads it by itself, and where it stands."""

    address: str
    loaded: bool
    element: str


@dataclass
class PageText:
    """What a page's text holds.

    Attributes:
        references: The addresses in it.
        anchors: The names that a fragment can point to.
        places: Parts of the page that its pictures refer to, such as clipping paths.
        canonical: The address that it gives itself.
        forwards: Whether it only sends the reader on to another page.
        title: The text of its title element.
    """

    references: list[Reference] = field(default_factory=list)
    anchors: set[str] = field(default_factory=set)
    places: set[str] = field(default_factory=set)
    canonical: str = ""
    forwards: bool = False


class Reader(HTMLParser):
    """Fills a `PageText` from the tags of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = PageText()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a tag refers to and what can be referred to."""
        values = {name: value or "" for name, value in attrs}
        keys = ("id", "name") if tag == "a" else ("id",)
        self.text.anchors.update(values[key] for key in keys if key in values)
        for value in values.values():
            if "url(" in value:
                self.text.places.update(PLACE.findall(value))
        if tag == "link":
            self._link(values)
        elif tag == "meta":
            self._meta(values)
        for name, value in values.items():
            if (tag, name) in LOADED:
                self._note(value, True, tag)
            elif (tag, name) in FOLLOWED:
                self._note(value, False, tag)
        for candidate in values.get("srcset", "").split(","):
            if candidate.strip():
                self._note(candidate.split()[0], True, tag)

    handle_startendtag = handle_starttag

    def _note(self, address: str, loaded: bool, tag: str) -> None:
        self.text.references.append(Reference(address.strip(), loaded, f"<{tag}>"))

    def _link(self, values: dict[str, str]) -> None:
        rels = set(values.get("rel", "").lower().split())
        if "canonical" in rels:
            self.text.canonical = values.get("href", "")
        self._note(values.get("href", ""), bool(rels & LOADED_RELS), "link")

    def _meta(self, values: dict[str, str]) -> None:
        content = values.get("content", "")
        if values.get("http-equiv", "").lower() == "refresh":
            _, _, address = content.partition("=")
            if address:
                self.text.forwards = True
                self._note(address.strip(" '\""), False, "meta")
        elif values.get("property", values.get("name", "")) in ("og:image", "twitter:image"):
            self._note(content, False, "meta")


def read_page(file: Path) -> PageText:
    """Return what the text of a page holds."""
    reader = Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    reader.close()
    return reader.text


def find_pages(folder: Path) -> list[str]:
    """Return the paths of the site's pages below its folder, in alphabetical order."""
    pages = (file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*.html")))
    return [page for page in pages if not page.startswith(("_static/", "_sources/"))]


class Site:
    """The pages of a built site, read as text.

    Attributes:
        folder: Where the site lies.
        pages: Its pages by their paths.
        address: Where it will be published, if a page says so, with a slash at its end.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.pages = {page: read_page(self.folder / page) for page in find_pages(self.folder)}
        self.address = next(filter(None, map(self._address, self.pages)), "")

    def _address(self, page: str) -> str:
        canonical = self.pages[page].canonical
        home = canonical.removesuffix(page)
        return home if home != canonical and home.endswith("/") else ""

    @property
    def prefix(self) -> str:
        """The path part of the site's address."""
        return urlsplit(self.address).path or "/"

    def faults(self, page: str) -> list[Fault]:
        """Return what is wrong with one page's links, anchors, images and loaded files."""
        text = self.pages[page]
        found = [self._fault(page, reference) for reference in text.references]
        found += [
            Fault("offline", page, "broken picture", f"nothing in the page is named #{name}")
            for name in sorted(text.places - text.anchors)
        ]
        return list(dict.fromkeys(fault for fault in found if fault))

    def _fault(self, page: str, reference: Reference) -> Fault | None:
        address = reference.address
        if self.address and address.startswith(self.address):
            address = self.prefix + address.removeprefix(self.address)
        parts = urlsplit(address)
        if parts.scheme in NO_FILES:
            return None
        if parts.scheme or parts.netloc:
            if not reference.loaded:
                return None
            what = f"the page loads {short(address)} by itself"
            return Fault("offline", page, "outside file", what, reference.element)
        path = urlsplit(urljoin(self.prefix + page, address)).path
        if not path.startswith(self.prefix):
            return self._broken(page, reference, f"{address} leaves the site")
        return self._missing(page, reference, unquote(path.removeprefix(self.prefix)))

    def _missing(self, page: str, reference: Reference, path: str) -> Fault | None:
        target = posixpath.normpath(path) if path else "index.html"
        if (self.folder / target).is_dir():
            target = posixpath.join(target, "index.html")
        if not (self.folder / target).is_file():
            return self._broken(page, reference, f"{reference.address} does not exist")
        fragment = unquote(urlsplit(reference.address).fragment).partition(":~:")[0]
        if fragment in ALWAYS_THERE or target not in self.pages:
            return None
        if fragment in self.pages[target].anchors:
            return None
        what = f"{target} has nothing named #{fragment}"
        return Fault("offline", page, "broken anchor", what, reference.element)

    def _broken(self, page: str, reference: Reference, what: str) -> Fault:
        rule = "broken image" if reference.element in ("<img>", "<image>") else "broken link"
        return Fault("offline", page, rule, what, reference.element)
