"""Sphinx extension: entries of the bibliography are items of a list, for screen readers too.

docutils writes a list whose entries have the role ``doc-biblioentry``, which is deprecated and
is no item of a list.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def mend_roles(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Rename the role on one page."""
    if doctree is not None:
        body = context.get("body", "")
        context["body"] = body.replace(' role="doc-biblioentry"', ' role="listitem"')


def setup(app: Sphinx) -> dict[str, Any]:
    """Change pages as they are written."""
    app.connect("html-page-context", mend_roles)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
