"""Sphinx extension: each script of a page once.

The execution-time table makes Sphinx read one page again, and some extensions then add their
scripts a second time. Two ``const`` of one name stop a script with an error.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def keep_first(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Drop the scripts that equal an earlier one of the page."""
    kept: list[Any] = []
    seen = set()
    for script in context.get("script_files", []):
        attributes = getattr(script, "attributes", {})
        # A script without a file is named "" or None.
        key = (getattr(script, "filename", script) or "", *sorted(attributes.items()))
        if key not in seen:
            seen.add(key)
            kept.append(script)
    context["script_files"] = kept


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at a page last, when all extensions have added their scripts."""
    app.connect("html-page-context", keep_first, priority=950)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
