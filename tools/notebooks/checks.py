"""Check finished notebooks: their form, leftovers of MyST, and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag, urlsplit

import nbformat

CODE = re.compile(r"(`{3,})[^\n]*\n.*?\n(?:> *)?\1|(`+)(?!`).*?(?<!`)\2(?!`)", re.DOTALL)
MYST = {
    "a directive": re.compile(r"^\s*(?:> *)*`{3,}\s*\{[\w:-]+\}", re.MULTILINE),
    "a colon fence": re.compile(r"^\s*(?:> *)*:{3,}", re.MULTILINE),
    "a role": re.compile(r"\{[a-z][\w:+-]*\}`"),
    "a target": re.compile(r"^\([\w:. -]+\)=\s*$", re.MULTILINE),
    "a page comment": re.compile(r"<!--"),
}
LINK = re.compile(r"\]\(([^()\s]+)\)")
FILE = r"/(?:blob|raw)/[^/]+/([^?#]+)"
ANCHOR = re.compile(r"""\sid=["']([^"']+)["']""")


def problems(notebook: Any) -> Iterator[str]:
    """Yield what is wrong with a notebook, one sentence each.

    Args:
        notebook: As `nbformat` has read it.

    Yields:
        Sentences that name the cell.
    """
    try:
        nbformat.validate(notebook)
    except nbformat.ValidationError as error:
        yield f"not valid: {error.message}"
        return
    if notebook.cells[0].cell_type != "code" or "pip" not in notebook.cells[0].source:
        yield "the first cell does not install"
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "code":
            if cell.outputs or cell.execution_count is not None:
                yield f"cell {number} has outputs"
            continue
        text = cell.source
        for name, pattern in MYST.items():
            searched = text if name == "a directive" else CODE.sub("`", text)
            if found := pattern.search(searched):
                yield f"cell {number} holds {name} of MyST: {found[0].strip()!r}"


def addresses(notebook: Any) -> list[str]:
    """Return the addresses that a notebook's text links to."""
    texts = (cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    return [address for text in texts for address in LINK.findall(CODE.sub("", text))]


@dataclass(frozen=True)
class Places:
    """Where a notebook's links may lead.

    Attributes:
        site: Address of the site, with a slash at its end.
        html: Folder of the built site; its pages are not looked at where it is left out.
        repository: Address of the repository, without a slash at its end.
        root: The repository's folder; its files are not looked at where it is left out.
    """

    site: str
    html: Path | None = None
    repository: str = ""
    root: Path | None = None
    _anchors: dict[Path, set[str]] = field(default_factory=dict, init=False, repr=False)

    def has(self, address: str) -> bool:
        """Tell whether an address leads somewhere; those elsewhere are taken to do so."""
        if not urlsplit(address).scheme:
            return False  # a link within the book, which a notebook has lost
        if self.html is not None and address.startswith(self.site):
            return self._has_page(self.html, address.removeprefix(self.site))
        if self.root is not None and self.repository:
            file = re.match(re.escape(self.repository) + FILE, address)
            return file is None or self._has_file(self.root, file[1])
        return True

    def _has_page(self, html: Path, rest: str) -> bool:
        page, anchor = urldefrag(rest)
        file = html / unquote(page)
        if not file.is_file():
            return False
        if anchor and file not in self._anchors:
            self._anchors[file] = anchors(file)
        return not anchor or unquote(anchor) in self._anchors[file]

    @staticmethod
    def _has_file(root: Path, path: str) -> bool:
        file = (root / unquote(path)).resolve()
        return file.is_file() and file.is_relative_to(root.resolve())


def broken_links(notebook: Any, places: Places) -> list[str]:
    """Return links that lead nowhere.

    Args:
        notebook: As `nbformat` has read it.
        places: Where links may lead.

    Returns:
        The addresses without a scheme, and those whose page, anchor or file is missing.
    """
    return [address for address in sorted(set(addresses(notebook))) if not places.has(address)]


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page."""
    return set(ANCHOR.findall(file.read_text(encoding="utf-8")))


def check_notebooks(folder: Path, places: Places) -> dict[str, list[str]]:
    """Check all notebooks of a folder.

    Args:
        folder: What ``make notebooks`` wrote.
        places: Where links may lead.

    Returns:
        For each notebook, by its path in the folder, what is wrong with it.
    """
    found = {}
    for file in sorted(folder.rglob("*.ipynb")):
        notebook = nbformat.read(file, as_version=nbformat.NO_CONVERT)
        wrong = list(problems(notebook))
        wrong += [f"leads nowhere: {link}" for link in broken_links(notebook, places)]
        found[file.relative_to(folder).as_posix()] = wrong
    return found
