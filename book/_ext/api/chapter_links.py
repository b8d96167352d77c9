"""Sphinx extension: links between chapters, the API pages and the source.

- ``Chapter: sft/lora.``, the last line of a docstring, becomes a link to that chapter, beside
  links to the other chapters whose cells import the symbol or whose listings show it. A
  chapter that does not exist, and a symbol without one, are warnings with file and line.
- A ``literalinclude`` of the package is followed by a line with its API entry and its source.
- Inline code that names a symbol links to its entry, once in a section (``symbol_links``).
- ``{module-table} sft.adapters`` lists the modules of a package.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.directives.code import LiteralInclude, LiteralIncludeReader
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book._ext.api.docstrings import (
    NotePlace,
    index_of,
    papers_of,
    setup_docstrings,
    unknown_papers,
)
from book._ext.api.package_index import names_in_cells
from book._ext.api.symbol_links import chapter_names, find_missing, link_api_page, link_chapter

logger = logging.getLogger(__name__)
BOOK = "book/"


class TablePlace(nodes.General, nodes.Element):
    """Stands for the table of a package's modules."""


class Uses:
    """What a chapter has of the package, kept in the environment by page."""

    def __init__(self) -> None:
        self.imported: dict[str, str] = {}  # full names, by the names in the cells
        self.defined: set[str] = set()  # by the cells themselves
        self.listed: list[str] = []

    def symbols(self) -> set[str]:
        """The full names of all symbols, methods as their classes."""
        return {*self.imported.values(), *self.listed}


def all_uses(env: BuildEnvironment) -> dict[str, Uses]:
    """Return what each page has of the package."""
    if not hasattr(env, "chapter_uses"):
        env.chapter_uses = {}  # type: ignore[attr-defined]
    return env.chapter_uses  # type: ignore[attr-defined]


def listing_lines(path: Path, options: dict[str, Any]) -> tuple[int, int]:
    """Return the first and last line of the file that a ``literalinclude`` shows."""
    own = {**options, "lineno-match": None}
    reader = LiteralIncludeReader(
        str(path),
        own,
        SimpleNamespace(source_encoding="utf-8"),  # type: ignore[arg-type]
    )
    _, count = reader.read()
    return reader.lineno_start, reader.lineno_start + max(count, 1) - 1


class Listing(LiteralInclude):
    """``literalinclude`` with links under it, where it shows code of the package."""

    def run(self) -> list[nodes.Node]:
        """Show the listing, and mark the place."""
        shown = super().run()
        path = Path(self.env.relfn2path(self.arguments[0])[1])
        module = index_of(self.env.app).module_at(path)
        if module is None or any(isinstance(node, nodes.system_message) for node in shown):
            return shown
        first, last = listing_lines(path, self.options)
        names = module.shown_in_lines(first, last)
        all_uses(self.env).setdefault(self.env.docname, Uses()).listed += names
        links = nodes.inline("", "API: ")
        for number, name in enumerate(names or [module.name]):
            links += [nodes.Text(", ")] if number else []
            label = name.removeprefix(f"{module.name}.") if number else name
            links += self._reference(name, label, "obj" if names else "mod")
        source = source_link(self.env.app, path, first, last)
        links += [nodes.Text(" · "), source] if source else []
        line = nodes.paragraph("", "", links, classes=["pt-api-line", "pt-no-terms"])
        self.set_source_info(line)
        return [*shown, line]

    def _reference(self, name: str, label: str, kind: str) -> nodes.Node:
        reference = addnodes.pending_xref(
            "",
            nodes.literal("", label, classes=["xref", "py"]),
            refdomain="py",
            reftype=kind,
            reftarget=name,
            refexplicit=True,
            refwarn=True,
        )
        self.set_source_info(reference)
        return reference


def source_link(app: Sphinx, path: Path, first: int, last: int) -> nodes.reference | None:
    """Link to lines of a file in the repository."""
    options = app.config.html_theme_options
    url, branch = options.get("repository_url"), options.get("repository_branch") or "main"
    if not url or app.builder.format != "html":  # the link check would ask for each listing
        return None
    file = path.resolve().relative_to(Path(app.srcdir).resolve()).as_posix()
    uri = f"{url.rstrip('/')}/blob/{branch}/{file}#L{first}-L{last}"
    return nodes.reference("", "source", refuri=uri)


class ModuleTable(SphinxDirective):
    """``{module-table} sft.adapters``: a package's modules; without an argument, the root's.

    Modules of packages inside it stand in tables of their own.
    """

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Mark the place."""
        self.env.metadata[self.env.docname]["has_api_notes"] = True
        return [TablePlace(package=".".join([self.config.api_package, *self.arguments]))]


def report(app: Sphinx) -> None:
    """Warn of docstrings without a chapter and of papers that are not in the bibliography."""
    index = index_of(app)
    for fault in (
        *index.faults(Path(app.srcdir, BOOK)),
        *unknown_papers(index, papers_of(app)),
    ):
        logger.warning("%s", fault.text, location=f"{fault.path}:{fault.line}")


def read_cells(app: Sphinx, docname: str, source: list[str]) -> None:
    """Note what a page's cells import."""
    imported, defined = names_in_cells(source[0])
    resolved = {name: index_of(app).resolve(full) for name, full in imported.items()}
    own = {name: full for name, full in resolved.items() if full is not None}
    if own or defined:
        uses = all_uses(app.env)[docname] = Uses()
        uses.imported, uses.defined = own, defined


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop what a page had that is about to be read again, or is gone."""
    all_uses(env).pop(docname, None)


def merge(app: Sphinx, env: BuildEnvironment, docnames: Iterable[str], other: Any) -> None:
    """Take over what parallel readers found."""
    for docname in docnames:
        if docname in all_uses(other):
            all_uses(env)[docname] = all_uses(other)[docname]


def pages_to_write(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the API pages when a chapter has other symbols, or another title, than before."""
    state = {
        page: (sorted(uses.symbols()), env.titles[page].astext() if page in env.titles else "")
        for page, uses in sorted(all_uses(env).items())
    }
    if getattr(env, "written_uses", None) == state:
        return []
    env.written_uses = state  # type: ignore[attr-defined]
    return [page for page in env.found_docs if env.metadata.get(page, {}).get("has_api_notes")]


def fill_places(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the places of one page."""
    for note in list(doctree.findall(NotePlace)):
        note.replace_self(_note(app, docname, note["name"]))
    for table in list(doctree.findall(TablePlace)):
        table.replace_self(_module_table(app, docname, table["package"]))
    index, uses = index_of(app), all_uses(app.env).get(docname)
    if app.env.metadata[docname].get("has_api_notes"):
        link_api_page(app, doctree, docname, index)
    elif uses:
        names = chapter_names(index, uses.imported, uses.defined, uses.listed)
        link_chapter(app, doctree, docname, index, names)


def _page_link(app: Sphinx, here: str, page: str) -> nodes.Node:
    if page not in app.env.all_docs or app.builder.format != "html":
        return nodes.Text(page.removeprefix(BOOK))
    uri = app.builder.get_relative_uri(here, page)
    title = app.env.titles[page].astext()
    return nodes.reference("", title, internal=True, refuri=uri)


def _listed(links: Iterable[nodes.Node]) -> Iterator[nodes.Node]:
    for number, link in enumerate(links):
        if number:
            yield nodes.Text(", ")
        yield link


def _note(app: Sphinx, here: str, name: str) -> nodes.paragraph:
    index = index_of(app)
    module = index.modules.get(name) or index.modules[name.rpartition(".")[0]]
    symbol = module.symbols.get(name.rpartition(".")[2]) if module.name != name else None
    chapters = module.chapters_for(symbol) if symbol else module.chapters
    line = nodes.paragraph("", "", classes=["pt-api-line", "pt-no-terms"])
    line += nodes.Text("Chapters: " if len(chapters) > 1 else "Chapter: ")
    line += list(_listed(_page_link(app, here, BOOK + chapter) for chapter in chapters))
    pages = [
        page
        for page in app.env.collect_relations()  # in the order of the contents
        if page in (uses := all_uses(app.env)) and page.removeprefix(BOOK) not in chapters
        if symbol and any(f"{full}.".startswith(f"{name}.") for full in uses[page].symbols())
    ]
    if pages:
        line += nodes.Text(" · Also in: ")
        line += list(_listed(_page_link(app, here, page) for page in pages))
    return line


def _module_table(app: Sphinx, here: str, package: str) -> nodes.table:
    index = index_of(app)
    group = nodes.tgroup("", *(nodes.colspec(colwidth=w) for w in (25, 50, 25)), cols=3)
    group += nodes.thead(
        "", _row([nodes.Text(x)] for x in ("Module", "What it holds", "Chapter"))
    )
    body = nodes.tbody()
    for module in index.modules.values():
        if module.name.rpartition(".")[0] == package:
            chapters = [_page_link(app, here, BOOK + chapter) for chapter in module.chapters]
            name = _module_link(app, here, module.name)
            body += _row([[name], _inline(module.summary), list(_listed(chapters))])
    group += body
    return nodes.table("", group, classes=["pt-modules"])


def _module_link(app: Sphinx, here: str, name: str) -> nodes.Node:
    literal = nodes.literal("", name.rpartition(".")[2])
    entry = app.env.domains["py"].objects.get(name)
    if entry is None or app.builder.format != "html":
        return literal
    uri = app.builder.get_relative_uri(here, entry.docname) + "#" + entry.node_id
    return nodes.reference("", "", literal, internal=True, refuri=uri)


def _inline(text: str) -> list[nodes.Node]:
    """Set what stands between backticks as code."""
    parts = enumerate(text.replace("``", "`").split("`"))
    return [nodes.literal("", x) if n % 2 else nodes.Text(x) for n, x in parts if x]


def _row(cells: Iterable[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the steps of a build."""
    setup_docstrings(app)
    app.add_node(TablePlace)
    app.add_directive("literalinclude", Listing, override=True)
    app.add_directive("module-table", ModuleTable)
    app.connect("builder-inited", report)
    app.connect("source-read", read_cells)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", pages_to_write)
    app.connect("missing-reference", find_missing, priority=100)
    app.connect("doctree-resolved", fill_places)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
