"""Docstrings on their way to an API page: types, source papers, and the place for links.

Part of the extension ``chapter_links``. On an API page the heading ``## `sft.adapters.lora` ``
is enough to show a module (`add_modules`). Napoleon converts sections in between:
`before_napoleon` protects what it would misread, `after_napoleon` adds what it cannot know.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.parsers.rst.states import Inliner
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.domains.python._annotations import _parse_annotation
from sphinx.domains.python._object import PyObject, PyTypedField
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from book._ext.api.package_index import CHAPTER, Fault, PackageIndex
from book._ext.api.papers import Paper, find, mentions, read_bibliography
from book._ext.api.source_types import add_types, find_node, returned, type_text

logger = logging.getLogger(__name__)
API_PAGES = "book/api"
MODULE_HEADING = re.compile(r"^## `([\w.]+)`$", re.MULTILINE)
LONGEST_VALUE = 50
RETURNS = re.compile(r"^\s*(Returns|Yields):$")


class PaperPlace(nodes.Inline, nodes.TextElement):
    """A mention of a paper; ``key`` is the bibliography's."""


class NotePlace(nodes.General, nodes.Element):
    """Stands for a symbol's links to chapters; ``name`` is its full name."""


class ApiNote(SphinxDirective):
    """``.. api-note:: posttrain.core.goals.Goal``: where the chapters have this symbol."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Mark the place."""
        self.env.metadata[self.env.docname]["has_api_notes"] = True
        return [NotePlace(name=self.arguments[0])]


def paper_role(
    name: str, rawtext: str, text: str, lineno: int, inliner: Inliner, *_: Any
) -> tuple[list[nodes.Node], list[nodes.system_message]]:
    """Mark a mention: ``:paper:`Hu et al., 2021 <hu2022lora>```."""
    shown, key = " ".join(text.split()).removesuffix(">").rsplit(" <", 1)
    return [PaperPlace("", shown, key=key)], []


def index_of(app: Sphinx) -> PackageIndex:
    """Return this build's reading of the package."""
    if not hasattr(app, "package_index"):
        app.package_index = PackageIndex(  # type: ignore[attr-defined]
            Path(app.srcdir) / "code", app.config.api_package
        )
    return app.package_index  # type: ignore[attr-defined]


def papers_of(app: Sphinx) -> list[Paper]:
    """Return the bibliography."""
    if not hasattr(app, "source_papers"):
        files = [Path(app.srcdir, file) for file in getattr(app.config, "bibtex_bibfiles", [])]
        app.source_papers = read_bibliography(*files)  # type: ignore[attr-defined]
    return app.source_papers  # type: ignore[attr-defined]


def modules_on_page(text: str, package: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of each module that an API page names in a heading."""
    for match in MODULE_HEADING.finditer(text):
        if not match[1].startswith(f"{package}."):  # a package's own heading, above its table
            yield text.count("\n", 0, match.start()) + 1, f"{package}.{match[1]}"


def add_modules(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put a module's entries under each heading of an API page that names one."""
    if not docname.startswith(API_PAGES):
        return
    package, lines = app.config.api_package, source[0].split("\n")
    for line, name in modules_on_page(source[0], package):
        if name not in index_of(app).modules:
            logger.warning("no public module %s", name, location=(docname, line))
            continue
        lines[line - 1] += f"\n```{{eval-rst}}\n.. automodule:: {name}\n```"
    source[0] = "\n".join(lines)


def unknown_papers(index: PackageIndex, papers: list[Paper]) -> Iterator[Fault]:
    """Report mentions without an entry in the bibliography and without an arXiv number."""
    for module in index.modules.values():
        texts = [(1, module.docstring)]
        for symbol in module.symbols.values():
            texts += [(s.first, s.docstring) for s in (symbol, *symbol.methods.values())]
        for line, text in texts:
            for mention in mentions(text):
                if find(mention, papers) is None and not mention.arxiv:
                    what = f"the bibliography has no one entry for {mention.text!r}"
                    yield Fault(module.path, line, what)


def before_napoleon(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Drop the chapter's line, mark papers, and keep sentences with a colon in Returns."""
    if lines and CHAPTER.match(next(line for line in reversed(lines) if line).strip()):
        while lines and not CHAPTER.match(lines.pop().strip()):
            pass
    # What stands before a colon would be read as a type.
    if lines and what in ("attribute", "data", "property"):
        lines[0] = f": {lines[0]}"
    for number, line in enumerate(lines[:-1]):
        if RETURNS.match(line):
            lines[number + 1] = re.sub(r"^(\s+)", r"\1: ", lines[number + 1])
    lines[:] = mark_papers("\n".join(lines), papers_of(app)).split("\n")


def mark_papers(text: str, papers: list[Paper]) -> str:
    """Put each paper that the bibliography knows into the role ``paper``."""
    for mention in reversed(list(mentions(text))):
        paper = find(mention, papers)
        key = paper.key if paper else f"arXiv:{mention.arxiv}" if mention.arxiv else ""
        if key:
            shown = text[mention.start : mention.end]
            role = f":paper:`{shown} <{key}>`"
            text = text[: mention.start] + role + text[mention.end :]
    return text


def after_napoleon(
    app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]
) -> None:
    """Add types to the fields, and the place for links to chapters."""
    index = index_of(app)
    owner = next((cut for cut in _prefixes(name) if cut in index.modules), None)
    if owner is None:
        return
    module, own = index.modules[owner], name[len(owner) + 1 :]
    node = find_node(module, own) if own else None
    if node is not None:
        lines[:] = add_types(lines, node, module, index)
    if own in ("", *module.symbols):
        lines += ["", f".. api-note:: {name}", ""]


def shorten_signature(
    app: Sphinx,
    what: str,
    name: str,
    obj: Any,
    options: Any,
    signature: str | None,
    result: str,
) -> tuple[str, str] | None:
    """Drop what a class only inherits from a library, and write objects by their names."""
    if what == "class" and isinstance(obj, type) and not issubclass(obj, tuple):
        home = getattr(obj.__init__, "__module__", None)
        if home is not None and home.partition(".")[0] != app.config.api_package:
            return "", ""
    if signature:
        return re.sub(
            r"<(?:class|function) '?([\w.]+)'?(?: at \w+)?>", r"\1", signature
        ), result
    return None


def skip_defaults(
    app: Sphinx, what: str, name: str, obj: Any, skip: bool, options: Any
) -> bool | None:
    """Leave out a record's field whose default is a built-in type, which has a docstring."""
    is_builtin = isinstance(obj, type) and obj.__module__ == "builtins"
    return True if what == "class" and is_builtin else None


def source_module(app: Sphinx, modname: str, attribute: str) -> str | None:
    """Look for the source of an alias, such as ``Row = dict[str, str]``, where it is written.

    The alias itself says that it comes from ``builtins``, which has no page of source code.
    """
    value: Any = sys.modules.get(modname)
    for name in attribute.split("."):
        value = getattr(value, name, None)
    home = getattr(value, "__module__", None)
    package = app.config.api_package
    return modname if home is not None and home.partition(".")[0] != package else None


def shorten_value(signature: nodes.Element) -> None:
    """Drop the value of a constant that would not fit on a line."""
    for part in list(signature.findall(addnodes.desc_annotation)):
        if part.astext().startswith(" = ") and len(part.astext()) > LONGEST_VALUE:
            part.parent.remove(part)


def show_result_type(
    app: Sphinx, domain: str, kind: str, content: addnodes.desc_content
) -> None:
    """Write a property's type beside its name, and a function's before what it returns."""
    signature, index = content.parent[0], index_of(app)
    shorten_value(signature)
    module = index.modules.get(signature.get("module") or "")
    node = find_node(module, signature["fullname"]) if module and domain == "py" else None
    result = returned(node) if node is not None else None
    if module is None or node is None or result is None:
        return
    text = type_text(result, module, index)
    if kind == "property":
        parts = _parse_annotation(text, app.env)
        signature += addnodes.desc_annotation("", ": ", *parts)
        return
    fields = next((x for x in content if isinstance(x, nodes.field_list)), None)
    if fields is None:
        fields = nodes.field_list()
        notes = [i for i, x in enumerate(content) if isinstance(x, NotePlace | addnodes.desc)]
        content.insert(notes[0] if notes else len(content), fields)
    found = next((x for x in fields if x[0].astext() in ("returns", "return", "Yields")), None)
    if found is None:
        found = nodes.field("", nodes.field_name("", "returns"), nodes.field_body())
        fields += found
    types = PyTypedField("type").make_xrefs("class", "py", text, env=app.env)
    body = found[1]
    if len(body) and isinstance(body[0], nodes.paragraph):
        body[0][:0] = [*types, nodes.Text(" – ")]
    else:
        body.insert(0, nodes.paragraph("", "", *types))


def _prefixes(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def fill_papers(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Turn mentions into links: to the bibliography's entry, or else to the paper."""
    places = list(doctree.findall(PaperPlace))
    if not places:
        return
    citations = getattr(app.env.domains.get("cite"), "citations", [])
    entries = {c.key: (c.bibliography_key.docname, c.citation_id) for c in citations}
    addresses = {paper.key: paper.address for paper in papers_of(app)}
    for place in places:
        key, text = place["key"], place.astext()
        if key in entries and app.builder.format == "html":
            page, anchor = entries[key]
            uri = app.builder.get_relative_uri(docname, page) + "#" + anchor
            new: nodes.Node = nodes.reference("", text, internal=True, refuri=uri)
        else:
            arxiv = key.partition("arXiv:")[2]
            address = f"https://arxiv.org/abs/{arxiv}" if arxiv else addresses.get(key, "")
            new = nodes.reference("", text, refuri=address) if address else nodes.Text(text)
        place.replace_self(new)


def setup_docstrings(app: Sphinx) -> None:
    """Register the role, the directive and the steps between source and page."""
    app.add_config_value("api_package", "posttrain", "env")
    app.add_node(PaperPlace)
    app.add_node(NotePlace)
    app.add_role("paper", paper_role)
    app.add_directive("api-note", ApiNote)
    app.connect("source-read", add_modules)
    app.connect("autodoc-skip-member", skip_defaults)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", before_napoleon, priority=400)
    app.connect("autodoc-process-docstring", after_napoleon, priority=600)
    app.setup_extension("sphinx.ext.viewcode")  # whose event is the next
    app.connect("viewcode-follow-imported", source_module)
    app.connect("object-description-transform", show_result_type)
    app.connect("doctree-resolved", fill_papers)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
