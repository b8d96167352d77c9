"""Turn a page's doctree into the cells of a notebook."""

import ast
import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import nbformat
from docutils import nodes

from tools.notebooks.blocks import BlockWriter, folded
from tools.notebooks.inline import REVISION, Page

HIDDEN = {"hide-input", "hide-cell", "remove-cell", "remove-input"}
SECTIONS = (nodes.document, nodes.section)


@dataclass
class Prose:
    """A piece of Markdown.

    Attributes:
        text: The Markdown.
        solution: The exercise that it solves; empty elsewhere.
        starts: Whether a cell begins here.
    """

    text: str
    solution: str = ""
    starts: bool = False


@dataclass
class Code:
    """A code cell.

    Attributes:
        source: Its text.
        tags: Its tags on the page.
        solution: The exercise that it solves; empty elsewhere.
        title: What a folded cell is called; empty for one that is open.
    """

    source: str
    tags: tuple[str, ...] = ()
    solution: str = ""
    title: str = ""


Item = Prose | Code


class CellWriter:
    """Walks over a page and collects its cells in order.

    Args:
        page: The page.
    """

    def __init__(self, page: Page) -> None:
        self.page, self.blocks = page, BlockWriter(page)
        self.items: list[Item] = []
        self.coming: set[str] = set()  # strings of the cells that follow

    def write(self, document: nodes.document) -> list[Item]:
        """Return the page's cells."""
        cells = filter(is_cell, document.findall(nodes.container))
        self.coming = {text for cell in cells for text in strings_in(source_of(cell))}
        self.walk(document, depth=0)
        self.print_numbers(all_of_them=True)
        return self.items

    def walk(self, node: nodes.Element, depth: int, solution: str = "") -> None:
        """Add what a section, an exercise or a solution holds."""
        for child in node.children:
            name = type(child).__name__
            if is_cell(child):
                self.add_code(child, solution)
            elif name in ("exercise_node", "exercise_enumerable_node"):
                title, body = self.blocks.titled(child)
                self.add(f"{'#' * (depth + 1)} {title}", starts=True)
                self.walk_all(body, depth, solution)
            elif name == "solution_node":
                self.walk_all(list(child.children[1:]), depth, self.exercise_of(child))
            elif isinstance(child, nodes.title):
                self.add_heading(child, depth)
            elif isinstance(child, nodes.section):
                self.walk(child, depth + (not is_part(child)), solution)
            elif isinstance(child, nodes.figure) and child.get("glue"):
                self.add_caption(child)
            else:
                for text in self.blocks.block(child):
                    self.add(text, solution)

    def walk_all(self, children: list[nodes.Node], depth: int, solution: str) -> None:
        self.walk(nodes.Element("", *children), depth, solution)

    def add(self, text: str, solution: str = "", *, starts: bool = False) -> None:
        self.items.append(Prose(text, solution, starts))

    def add_heading(self, title: nodes.title, depth: int) -> None:
        self.print_numbers()
        text = self.blocks.children(title).strip()
        if depth == 1 and (number := self.page.numbers.get("section", {}).get("")):
            text = f"{'.'.join(map(str, number))}. {text}"
        self.add(f"{'#' * depth} {text}", starts=True)

    def add_code(self, cell: nodes.Element, solution: str) -> None:
        source = source_of(cell)
        tags = tuple(
            tag.replace("removed-", "remove-") for tag in cell["cell_metadata"].get("tags", ())
        )
        title = "Code that the page on the site folds" if HIDDEN & {*tags} else ""
        if any(tag.startswith("remove") for tag in tags):
            title = "Preparation that the page on the site leaves out"
        if solution:
            title = f"Solution: {solution}"
        self.items.append(Code(source, tags, solution, title))
        self.coming -= strings_in(source)

    def add_caption(self, figure: nodes.Element) -> None:
        """Put a caption under the cell that draws the figure."""
        label = self.page.label("figure", figure)
        for place in range(len(self.items) - 1, -1, -1):
            item = self.items[place]
            if isinstance(item, Code) and any(
                pattern.fullmatch(figure["glue"]) for pattern in names_in(item.source)
            ):
                if item.title and not item.solution and label:
                    item.title = f"Code of {label}"
                break
        else:
            place = len(self.items) - 1
        texts = [Prose(text, starts=i == 0) for i, text in enumerate(self.blocks.block(figure))]
        self.items[place + 1 : place + 1] = texts

    def exercise_of(self, solution: nodes.Element) -> str:
        """Return what the exercise of a solution is called, such as ``Exercise 1.2``."""
        kind = self.page.numbers.get("exercise", {})
        number = ".".join(map(str, kind.get(solution.get("target_label", ""), ())))
        return self.page.formats.get("exercise", "Exercise %s") % number if number else "…"

    def print_numbers(self, *, all_of_them: bool = False) -> None:
        """Add a cell that prints the values which the text so far calls by name.

        A name that a later cell spells out waits for that cell.
        """
        known = {
            name: form
            for name, form in self.page.used.items()
            if all_of_them or name not in self.coming
        }
        if not known:
            return
        for name in known:
            del self.page.used[name]
        items = (json.dumps(f"{n}:{form}", ensure_ascii=False) for n, form in known.items())
        source = "import myst_nb\nmyst_nb.numbers(\n    " + ",\n    ".join(items) + ",\n)"
        self.items.append(Code(source, title="The numbers ⟨…⟩ of the text above"))


def source_of(cell: nodes.Element) -> str:
    """Return the text of a code cell."""
    return next(cell.findall(nodes.literal_block)).astext().rstrip("\n")


def is_cell(node: nodes.Node) -> bool:
    """Say whether a node is a code cell of the page."""
    return isinstance(node, nodes.container) and node.get("nb_element") == "cell_code"


def is_part(section: nodes.section) -> bool:
    """Say whether a section is the body of an exercise or a solution, which has no title."""
    return not any(isinstance(child, nodes.title) for child in section.children)


def nodes_in(source: str) -> Iterator[ast.AST]:
    """Yield the syntax nodes of a cell, its magics left out."""
    lines = [line if not re.match(r"\s*[%!]", line) else "" for line in source.splitlines()]
    with contextlib.suppress(SyntaxError):
        yield from ast.walk(ast.parse("\n".join(lines)))


def strings_in(source: str) -> set[str]:
    """Return the strings of a cell."""
    found = (node.value for node in nodes_in(source) if isinstance(node, ast.Constant))
    return {value for value in found if isinstance(value, str)}


def names_in(source: str) -> list[re.Pattern[str]]:
    """Return patterns for all names that a cell may glue: its strings and keywords."""
    return [re.compile(pattern) for pattern in _patterns(source)]


def _patterns(source: str) -> Iterator[str]:
    for node in nodes_in(source):
        if isinstance(node, ast.JoinedStr):
            parts = [
                re.escape(str(part.value)) if isinstance(part, ast.Constant) else ".+"
                for part in node.values
            ]
            if set(parts) != {".+"}:
                yield "".join(parts)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.escape(node.value)
        elif isinstance(node, ast.keyword) and node.arg:
            yield re.escape(node.arg.replace("_", "-"))


def join_prose(items: list[Item]) -> Iterator[Item]:
    """Join pieces of Markdown up to the next heading or code; fold what solves an exercise."""
    run: list[Prose] = []
    for item in [*items, None]:
        goes_on = (
            isinstance(item, Prose)
            and not item.starts
            and (not run or run[-1].solution == item.solution)
        )
        if not goes_on and run:
            text = "\n\n".join(piece.text for piece in run)
            solution = run[0].solution
            yield Prose(folded(f"Solution: {solution}", text) if solution else text)
            run = []
        if isinstance(item, Prose):
            run.append(item)
        elif item is not None:
            yield item


def notebook_of(page: Page, items: list[Item], revision: str) -> Any:
    """Make the notebook: no outputs, and ids that depend on what a cell says alone.

    Args:
        page: The page.
        items: Its cells, the first one included.
        revision: The commit that links to the repository name.

    Returns:
        A notebook, as `nbformat` has it.
    """
    seen: Counter[str] = Counter()
    cells = []
    for item in join_prose(items):
        kind = "code" if isinstance(item, Code) else "markdown"
        text = item.source if isinstance(item, Code) else item.text
        name = f"{page.docname}\0{kind}\0{text}"
        seen[name] += 1
        new = nbformat.v4.new_code_cell if kind == "code" else nbformat.v4.new_markdown_cell
        cell = new(id=hashlib.sha256(f"{name}\0{seen[name]}".encode()).hexdigest()[:16])
        cell.source = text.replace(REVISION, revision)
        if isinstance(item, Code):
            fold(cell, item)
        cells.append(cell)
    name = f"{page.docname.rpartition('/')[2]}.ipynb"
    return nbformat.v4.new_notebook(
        cells=cells,
        metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
            "colab": {"name": name, "provenance": [], "toc_visible": True},
        },
    )


def fold(cell: Any, code: Code) -> None:
    """Fold a cell in Colab and in JupyterLab if it has a title."""
    if code.tags:
        cell.metadata["tags"] = list(code.tags)
    if code.title and not cell.source.startswith("%%"):
        cell.source = f"# @title {code.title}\n{cell.source}"
        cell.metadata["cellView"] = "form"
        cell.metadata["jupyter"] = {"source_hidden": True}
