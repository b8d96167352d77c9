"""Check finished notebooks: their form, leftovers of MyST, and links into the site."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urldefrag

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


def broken_links(notebook: Any, site: str, html: Path) -> list[str]:
    """Return links into the site that lead nowhere.

    Args:
        notebook: As `nbformat` has read it.
        site: Address of the site, with a slash at its end.
        html: Folder of the built site.

    Returns:
        The addresses whose page or anchor is missing there.
    """
    broken = []
    for address in sorted(set(addresses(notebook))):
        if not address.startswith(site):
            continue
        page, anchor = urldefrag(address.removeprefix(site))
        file = html / unquote(page)
        if not file.is_file() or (anchor and unquote(anchor) not in anchors(file)):
            broken.append(address)
    return broken


def anchors(file: Path) -> set[str]:
    """Return the anchors of a page."""
    return set(ANCHOR.findall(file.read_text(encoding="utf-8")))


def check_notebooks(folder: Path, site: str, html: Path | None = None) -> dict[str, list[str]]:
    """Check all notebooks of a folder.

    Args:
        folder: What ``make notebooks`` wrote.
        site: Address of the site, with a slash at its end.
        html: Folder of the built site; links are not followed where it is left out.

    Returns:
        For each notebook, by its path in the folder, what is wrong with it.
    """
    found = {}
    for file in sorted(folder.rglob("*.ipynb")):
        notebook = nbformat.read(file, as_version=nbformat.NO_CONVERT)
        wrong = list(problems(notebook))
        if html is not None:
            wrong += [f"leads nowhere: {link}" for link in broken_links(notebook, site, html)]
        found[file.relative_to(folder).as_posix()] = wrong
    return found
