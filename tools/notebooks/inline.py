"""Write the inline part of a page, text with links and formulas, as Markdown for a notebook.

The input is a doctree whose references Sphinx has resolved. `NotebookError` names the file and
the line of what cannot be written.
"""

import posixpath
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from docutils import nodes
from sphinx.errors import SphinxError

REVISION = "@REVISION@"
"""Stands for the commit until cells are written: a cell's id must not depend on it."""


class NotebookError(SphinxError):
    """A page cannot be written as a notebook."""

    category = "Notebook"


@dataclass
class Page:
    """What the writer must know about a page.

    Attributes:
        docname: The page's path below the root, without suffix.
        source: The page's file below the root, with suffix.
        site: Address of the site, with a slash at its end.
        repository: Address of the repository, without a slash at its end.
        root: The folder of the repository.
        numbers: Sphinx's numbers of the page: kind, then id, then the number's parts.
        formats: How a numbered thing is called: ``{"figure": "Fig. %s"}``.
        used: Names of glued values that the text has used: name, then format.
    """

    docname: str
    source: str
    site: str
    repository: str
    root: str
    numbers: dict[str, dict[str, tuple[int, ...]]] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    used: dict[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """The page on the site."""
        return f"{self.site}{self.docname}.html"

    def file_address(self, file: str, lines: str = "") -> str:
        """Return the address of a file of the repository, at the pinned revision."""
        return f"{self.repository}/blob/{REVISION}/{file}{lines}"

    def number(self, kind: str, node: nodes.Element) -> str:
        """Return the number of a node such as ``1.2``; empty where it has none."""
        found = (self.numbers.get(kind, {}).get(name, ()) for name in node.get("ids", []))
        return ".".join(map(str, next((number for number in found if number), ())))

    def label(self, kind: str, node: nodes.Element) -> str:
        """Return what a numbered node is called, such as ``Fig. 1.2``; empty without number."""
        number = self.number(kind, node)
        words = self.formats.get(kind, f"{kind} %s")
        return f"{words[0].upper()}{words[1:]}" % number if number else ""


def fail(page: Page, node: nodes.Node, message: str) -> NotebookError:
    """Return the error for a node: one sentence that begins with its file and line."""
    at: nodes.Node | None = node
    while at is not None and not at.line:
        at = at.parent
    return NotebookError(f"{page.source}:{at.line if at is not None else 1}: {message}")


def unknown(page: Page, node: nodes.Node) -> NotebookError:
    """Return the error for markup that has no form in a notebook yet."""
    name = type(node).__name__
    return fail(
        page,
        node,
        f"a notebook has no form for {name!r} yet: use other markup, or add the method "
        f"block_{name} or inline_{name} in tools/notebooks/blocks.py or inline.py",
    )


class InlineWriter:
    """Turns inline nodes into Markdown.

    Args:
        page: The page that is written.
    """

    def __init__(self, page: Page) -> None:
        self.page = page
        self.in_table = self.in_emphasis = False

    @contextmanager
    def inside(self, state: str) -> Iterator[None]:
        """Switch on ``in_table`` or ``in_emphasis`` for a while."""
        before = getattr(self, state)
        setattr(self, state, True)
        yield
        setattr(self, state, before)

    def children(self, node: nodes.Node) -> str:
        """Write what an inline or text element holds."""
        text = ""
        for child in node.children:
            piece = self.inline(child)
            text += piece.lstrip(" ") if text.endswith(" ") else piece
        return text

    def inline(self, node: nodes.Node) -> str:
        """Write one inline node."""
        name = type(node).__name__
        write = getattr(self, f"inline_{name}", None)
        if write is None:
            raise unknown(self.page, node)
        return str(write(node))

    def inline_Text(self, node: nodes.Text) -> str:
        return escape(re.sub(r"\s+", " ", node.astext()), in_table=self.in_table)

    def inline_inline(self, node: nodes.inline) -> str:
        if "glue" in node:
            return self.glued(node)
        return self.children(node)

    def glued(self, node: nodes.Element) -> str:
        """Write the name of a value that a cell computes, and remember that it was used."""
        name, spec, page = node["glue"], node["format"], node["page"]
        text = escape(f"⟨{name}⟩", in_table=self.in_table)
        if page:
            return f"[{text}]({self.page.site}{page}.html)"
        self.page.used[name] = spec
        return text

    inline_generated = inline_abbreviation = inline_pending_xref = children
    inline_title_reference = inline_manpage = inline_classifier = children

    def marked(self, node: nodes.Node, mark: str) -> str:
        text = self.children(node)
        inner = text.strip()
        if not inner:
            return text
        before, after = text[: len(text) - len(text.lstrip())], text[len(text.rstrip()) :]
        return f"{before}{mark}{inner}{mark}{after}"

    def inline_emphasis(self, node: nodes.emphasis) -> str:
        if self.in_emphasis:
            return self.children(node)
        with self.inside("in_emphasis"):
            return self.marked(node, "*")

    def inline_strong(self, node: nodes.strong) -> str:
        return self.marked(node, "**")

    inline_literal_strong = inline_strong
    inline_literal_emphasis = inline_emphasis

    def inline_subscript(self, node: nodes.subscript) -> str:
        return f"<sub>{self.children(node)}</sub>"

    def inline_superscript(self, node: nodes.superscript) -> str:
        return f"<sup>{self.children(node)}</sup>"

    def inline_literal(self, node: nodes.literal) -> str:
        text = node.astext().replace("\n", " ")
        if self.in_table:
            text = text.replace("|", r"\|")
        longest = max(map(len, re.findall("`+", text)), default=0)
        fence = "`" * (longest + 1)
        pad = " " if text.startswith("`") or text.endswith("`") else ""
        return f"{fence}{pad}{text}{pad}{fence}"

    def inline_math(self, node: nodes.math) -> str:
        text = without_tags(" ".join(node.astext().split()))
        return f"${without_bars(text) if self.in_table else text}$"

    def inline_reference(self, node: nodes.reference) -> str:
        text = self.children(node).replace("](", "]&#40;")
        target = self.address_of(node)
        return f"[{text}]({target})" if target else text

    inline_number_reference = inline_reference

    def address_of(self, node: nodes.Element) -> str:
        """Return a reference's address: the site's page for what stands in the book."""
        if node.get("refuri"):
            return markdown_address(node["refuri"])
        return f"{self.page.address}#{node['refid']}" if node.get("refid") else ""

    def inline_download_reference(self, node: nodes.Element) -> str:
        text, target = self.children(node), node.get("reftarget", "")
        if "://" in target:
            return f"[{text}]({target})"
        here = posixpath.dirname(self.page.source)
        path = target[1:] if target.startswith("/") else posixpath.join(here, target)
        return f"[{text}]({self.page.file_address(posixpath.normpath(path))})"

    def inline_footnote_reference(self, node: nodes.footnote_reference) -> str:
        return f"<sup>[{node.astext()}]({self.page.address}#{node['refid']})</sup>"

    def inline_image(self, node: nodes.image) -> str:
        address = node["uri"]
        if "://" not in address:
            address = self.page.file_address(address).replace("/blob/", "/raw/")
        alt = escape(node.get("alt", ""), in_table=self.in_table)
        return f"![{alt}]({markdown_address(address)})"

    def inline_raw(self, node: nodes.raw) -> str:
        if "html" not in node.get("format", ""):
            return ""
        # Comments, and scripts that extensions add to pages of the site.
        hidden = r"<!--.*?-->|<(script|style)\b.*?</\1>"
        return re.sub(hidden, "", node.astext(), flags=re.DOTALL)

    def nothing(self, node: nodes.Node) -> str:
        return ""

    inline_target = inline_comment = inline_index = inline_substitution_definition = nothing

    def inline_problematic(self, node: nodes.problematic) -> str:
        raise fail(self.page, node, f"Sphinx could not read {node.astext()!r}: mend the page")


def escape(text: str, *, in_table: bool = False) -> str:
    """Escape what Markdown or MathJax would read as markup."""
    text = re.sub(r"([\\`*_$~])", r"\\\1", text)
    text = text.replace("&", "&amp;") if re.search(r"&#?\w+;", text) else text
    text = text.replace("<", "&lt;").replace("](", "]&#40;")
    return text.replace("|", r"\|") if in_table else text


def escape_start(text: str) -> str:
    """Escape the start of a paragraph that Markdown would read as a heading or a list."""
    text = re.sub(r"^(\d+)([.)]\s)", r"\1\\\2", text)
    return re.sub(r"^([#+>=-])", r"\\\1", text)


def without_bars(formula: str) -> str:
    """Replace the bars in a formula: they would end a table's cell."""
    return formula.replace(r"\|", r"\Vert ").replace("|", r"\vert ")


def without_tags(formula: str) -> str:
    """Replace what Markdown would read as the start of an HTML tag, as in ``y_{<t}``."""
    return re.sub(r"<(?=[a-zA-Z/!?])", r"\\lt ", formula)


def markdown_address(address: str) -> str:
    """Escape what would end a link's address."""
    return address.replace(" ", "%20").replace("(", "%28").replace(")", "%29")
