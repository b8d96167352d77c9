"""Sphinx extension: the first use of a glossary term on a page links to its definition.

Only running prose is searched: no headings, code, formulas, captions, tables or links. A term
is found in any case and in the plural with -s or -es, and the longest term wins. An entry of
the glossary may end with comments that readers do not see::

    KV cache
      The keys and values of earlier tokens, kept so that ... {doc}`pretraining/sampling`
      % also: key/value cache, caches of keys
      % only: book/pretraining/*

``also`` lists other forms, ``only`` the pages on which the entry's words have its meaning.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

from book._ext.site.stages import is_chapter

NO_PROSE = (
    nodes.title, nodes.subtitle, nodes.rubric, nodes.caption, nodes.literal,
    nodes.literal_block, nodes.doctest_block, nodes.math, nodes.math_block, nodes.reference,
    nodes.raw, nodes.image, nodes.table, nodes.footnote, nodes.citation, nodes.field_list,
    nodes.Invisible, addnodes.pending_xref, addnodes.download_reference, addnodes.glossary,
    addnodes.toctree, addnodes.compact_paragraph,
)  # fmt: skip
NO_PROSE_CLASSES = {"cell", "pt-no-terms"}
ARROW = " \u00a0\n,;→"  # what stands before and between the links that close an entry
OPTION = re.compile(r"^\s*(also|only):\s*(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Term:
    """One entry of a glossary.

    Attributes:
        page: The page that holds it.
        anchor: Its place on that page.
        forms: Its name and its other forms.
        meaning: The definition as text.
        only: Patterns of the pages on which it is linked; none for all.
    """

    page: str
    anchor: str
    forms: tuple[str, ...]
    meaning: str
    only: tuple[str, ...] = ()

    def belongs_on(self, page: str) -> bool:
        """Tell whether the entry's words have its meaning on a page."""
        return not self.only or any(fnmatchcase(page, pattern) for pattern in self.only)


def collect(app: Sphinx, doctree: nodes.document) -> None:
    """Remember the terms that a page defines, and take their comments out of it."""
    found = list(terms_of(doctree, app.env.docname))
    known = glossary_of(app.env)
    if found:
        known[app.env.docname] = found
        app.env.first_terms_changed = True  # type: ignore[attr-defined]


def terms_of(doctree: nodes.document, page: str) -> Iterator[Term]:
    """Read the entries of a page's glossaries.

    Args:
        doctree: The page; the entries' comments are removed from it.
        page: Its name.

    Yields:
        The entries.
    """
    for glossary in doctree.findall(addnodes.glossary):
        for item in glossary.findall(nodes.definition_list_item):
            names = [node for node in item.children if isinstance(node, nodes.term)]
            options: dict[str, list[str]] = {"also": [], "only": []}
            for comment in list(item.findall(nodes.comment)):
                for key, values in OPTION.findall(comment.astext()):
                    options[key] += [value.strip() for value in values.split(",")]
                comment.parent.remove(comment)
            forms = [_name(term) for term in names] + options["also"]
            anchor = names[0]["ids"][0]
            yield Term(page, anchor, tuple(forms), _meaning(item), tuple(options["only"]))


def _name(term: nodes.term) -> str:
    return "".join(n.astext() for n in term.children if not isinstance(n, addnodes.index))


def _meaning(item: nodes.definition_list_item) -> str:
    """The first paragraph's text, without the links that close it."""
    paragraph = next(iter(item.findall(nodes.paragraph)), None)
    children = list(paragraph.children) if paragraph else []
    while children and (_is_link(children[-1]) or not children[-1].astext().strip(ARROW)):
        children.pop()
    return " ".join("".join(child.astext() for child in children).strip(ARROW).split())


def _is_link(node: nodes.Node) -> bool:
    return isinstance(node, addnodes.pending_xref | nodes.reference)


def glossary_of(env: BuildEnvironment) -> dict[str, list[Term]]:
    """Return the terms that are known so far, by the page that defines them."""
    if not hasattr(env, "first_terms"):
        env.first_terms = {}  # type: ignore[attr-defined]
    known: dict[str, list[Term]] = env.first_terms  # type: ignore[attr-defined]
    return known


def forget(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Drop the terms of a page that is read again, or is gone."""
    if glossary_of(env).pop(docname, None):
        env.first_terms_changed = True  # type: ignore[attr-defined]


def merge(app: Sphinx, env: BuildEnvironment, docnames: set[str], other: Any) -> None:
    """Take over what another process has read."""
    for page, terms in glossary_of(other).items():
        if page in docnames:
            glossary_of(env)[page] = terms
            env.first_terms_changed = True  # type: ignore[attr-defined]


def pages_to_write(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the chapters to write again, where the glossary has changed."""
    changed = getattr(env, "first_terms_changed", False)
    env.first_terms_changed = False  # type: ignore[attr-defined]
    return [page for page in env.found_docs if is_chapter(page)] if changed else []


def pattern_of(forms: dict[str, Term]) -> re.Pattern[str]:
    """Build the pattern that finds any of the forms, the longest first."""
    longest_first = sorted(forms, key=len, reverse=True)
    words = "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in longest_first)
    return re.compile(rf"(?<![\w/.-])({words})(e?s)?(?![\w/-]|\.\w)", re.IGNORECASE)


def link_terms(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Link each term where a chapter uses it first."""
    terms = [term for terms in glossary_of(app.env).values() for term in terms]
    terms = [term for term in terms if term.belongs_on(docname)]
    if not terms or not is_chapter(docname) or app.builder.format != "html":
        return
    forms = {normal(form): term for term in reversed(terms) for form in term.forms}
    pattern, used = pattern_of(forms), set[Term]()
    join_lines(doctree)
    for text in [node for node in doctree.findall(nodes.Text) if is_prose(node)]:
        pieces: list[nodes.Node] = []
        written = text.astext()
        end = 0
        for match in pattern.finditer(written):
            term = forms[normal(match[1])]
            if term not in used:
                used.add(term)
                pieces.append(nodes.Text(written[end : match.start()]))
                pieces.append(_link(app, docname, term, match[0]))
                end = match.end()
        if pieces:
            text.parent.replace(text, [*pieces, nodes.Text(written[end:])])


def join_lines(doctree: nodes.document) -> None:
    """Make one piece of text of each paragraph's lines, so that a term may run over two."""
    for element in list(doctree.findall(nodes.TextElement)):
        runs: list[nodes.Node] = []
        for child in element.children:
            if runs and isinstance(child, nodes.Text) and isinstance(runs[-1], nodes.Text):
                runs[-1] = nodes.Text(runs[-1].astext() + child.astext())
            else:
                runs.append(child)
        if len(runs) < len(element.children):
            element.children = []
            element += runs


def normal(form: str) -> str:
    """Return a form as it is looked up: lower case, single spaces."""
    return " ".join(form.lower().split())


def is_prose(node: nodes.Node) -> bool:
    """Tell whether a piece of text stands in running prose."""
    while node.parent is not None:
        node = node.parent
        if isinstance(node, NO_PROSE):
            return False
        if isinstance(node, nodes.Element) and NO_PROSE_CLASSES & set(node.get("classes", ())):
            return False
    return True


def _link(app: Sphinx, here: str, term: Term, words: str) -> nodes.reference:
    uri = f"{app.builder.get_relative_uri(here, term.page)}#{term.anchor}"
    look = {"reftitle": term.meaning, "classes": ["pt-term"]}
    return nodes.reference("", words, internal=True, refuri=uri, **look)


def setup(app: Sphinx) -> dict[str, Any]:
    """Read glossaries as pages are read, and link terms as pages are written."""
    app.connect("doctree-read", collect)
    app.connect("env-purge-doc", forget)
    app.connect("env-merge-info", merge)
    app.connect("env-updated", pages_to_write)
    app.connect("doctree-resolved", link_terms, priority=800)
    return {
        "version": "1",
        "env_version": 1,
        "parallel_read_safe": True,
        "parallel_write_safe": True,
    }
