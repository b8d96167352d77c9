"""Inline code that names a public symbol links to its API entry.

Part of the extension ``chapter_links``. In a chapter a name means what the cells import under
it, what a listing shows, or a symbol whose name is no ordinary word; on an API page it means
what it means in the module. Each is linked once in a section, or in an entry.
"""

from collections.abc import Callable, Iterator

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from book._ext.api.docstrings import index_of
from book._ext.api.outside_names import address_of
from book._ext.api.package_index import Module, PackageIndex

Link = Callable[[str], nodes.reference | None]
NOT_IN = (nodes.title, nodes.reference, nodes.rubric, addnodes.desc_signature)


def link_chapter(
    app: Sphinx,
    doctree: nodes.document,
    docname: str,
    index: PackageIndex,
    names: dict[str, str],
) -> None:
    """Link the names of a chapter, once in each section under the title."""
    seen: set[tuple[int, str]] = set()
    for literal in list(doctree.findall(nodes.literal)):
        target = _target(literal.astext(), names, index)
        if target is None or _stands_in(literal, NOT_IN):
            continue
        key = (id(_section(literal)), target)
        if key not in seen and _wrap(literal, api_link(app, docname, target)):
            seen.add(key)


def chapter_names(
    index: PackageIndex, imported: dict[str, str], defined: set[str], listed: list[str]
) -> dict[str, str]:
    """Say which symbols a chapter means by which names."""
    names = {name: full for name, full in index.distinct.items() if name not in defined}
    for full in listed:
        module = next(m for m in index.modules if full.startswith(f"{m}."))
        names[full[len(module) + 1 :].partition(".")[0]] = ".".join(
            full.split(".")[: module.count(".") + 2]
        )
    return names | {name: full for name, full in imported.items() if full not in index.modules}


def link_api_page(
    app: Sphinx, doctree: nodes.document, docname: str, index: PackageIndex
) -> None:
    """Link the names in docstrings: the package's, and those of libraries in our list."""
    module: Module | None = None
    seen: set[tuple[int, str]] = set()
    for node in list(doctree.findall()):
        ids = node.get("ids", []) if isinstance(node, nodes.Element) else []
        for name in (x.removeprefix("module-") for x in ids if x.startswith("module-")):
            module = index.modules.get(name, module)
        if not isinstance(node, nodes.literal) or module is None or _stands_in(node, NOT_IN):
            continue
        text, entry = node.astext().removesuffix("()"), _entry(node)
        own = f"{module.name}.{text}"
        symbol = module.symbols.get(entry["fullname"].partition(".")[0]) if entry else None
        if symbol and (text == symbol.name or text in _parameters(module, entry)):
            continue
        candidates = [
            _target(text, _names(module, index), index),
            own,
            f"{module.name}.{symbol.name}.{text}" if symbol else None,
            *(f"{package}.{text}" for package in _packages(module) if "." in text),
            module.imports.get(text),
        ]
        links = (api_link(app, docname, full) for full in candidates)
        link = next(filter(None, links), None) or outside_link(text, module)
        key = (id(entry), text)
        if key not in seen and _wrap(node, link):
            seen.add(key)


def find_missing(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.TextElement
) -> nodes.Element | None:
    """Resolve a short name in a docstring's role, type or Raises as its module would.

    A library's name is given its full name and left to intersphinx; type variables stay text.
    """
    module = index_of(app).modules.get(node.get("py:module") or "")
    if node.get("refdomain") != "py" or module is None:
        return None
    text, index = node["reftarget"], index_of(app)
    link = api_link(app, node["refdoc"], _target(text, _names(module, index), index))
    if link is not None:
        link += shown
        return link
    head, _, rest = text.partition(".")
    if not rest and head in module.assigned:
        return shown
    node["reftarget"] = ".".join(filter(None, [module.imports.get(head, head), rest]))
    return None


def api_link(app: Sphinx, here: str, name: str | None) -> nodes.reference | None:
    """Link to an entry of an API page; none where the build has no such entry."""
    entry = app.env.domains["py"].objects.get(name) if name else None
    if entry is None or app.builder.format != "html":
        return None
    uri = app.builder.get_relative_uri(here, entry.docname) + "#" + entry.node_id
    return nodes.reference(
        "", "", internal=True, refuri=uri, reftitle=name, classes=["pt-symbol"]
    )


def outside_link(text: str, module: Module) -> nodes.reference | None:
    """Link to a library's own documentation."""
    head, _, rest = text.partition(".")
    full = ".".join(filter(None, [module.imports.get(head, head), rest]))
    address = address_of(full)
    return nodes.reference("", "", refuri=address, classes=["pt-symbol"]) if address else None


def _target(text: str, names: dict[str, str], index: PackageIndex) -> str | None:
    head, _, rest = text.removesuffix("()").partition(".")
    full = names.get(head)
    if full is None:
        return index.resolve(text) if text.startswith(f"{index.package}.") else None
    return index.resolve(".".join(filter(None, [full, rest])))


def _names(module: Module, index: PackageIndex) -> dict[str, str]:
    own = {name: f"{module.name}.{name}" for name in module.symbols}
    return index.distinct | module.imports | own


def _packages(module: Module) -> Iterator[str]:
    """Yield the packages that a module lies in, the innermost first."""
    package = module.name
    while package := package.rpartition(".")[0]:
        yield package


def _parameters(module: Module, entry: nodes.Element) -> frozenset[str]:
    owner, _, method = entry["fullname"].partition(".")
    symbol = module.symbols[owner]
    own = symbol.methods[method].parameters if method in symbol.methods else symbol.parameters
    return own | symbol.parameters


def _stands_in(node: nodes.Node, kinds: tuple[type[nodes.Node], ...]) -> bool:
    while node is not None:
        if isinstance(node, kinds):
            return True
        node = node.parent
    return False


def _section(node: nodes.Node) -> nodes.Node | None:
    """Return the section under the page's title that a node stands in."""
    sections = []
    while node is not None:
        if isinstance(node, nodes.section):
            sections.append(node)
        node = node.parent
    return sections[-2] if len(sections) > 1 else None


def _entry(node: nodes.Node) -> nodes.Element | None:
    while node is not None and not isinstance(node, addnodes.desc):
        node = node.parent
    signature = node[0] if node is not None else None
    return signature if signature is not None and "fullname" in signature else None


def _wrap(literal: nodes.literal, link: nodes.reference | None) -> bool:
    if link is None:
        return False
    literal.replace_self(link)
    link += literal
    return True
