"""Sphinx extension: a table whose first column has no title names its rows there.

Screen readers then say "memory, measured" for a cell of such a table.
"""

from typing import Any

from docutils import nodes
from sphinx.application import Sphinx


def mark_row_headers(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make the first column of each table with an empty first title a column of row headers."""
    for group in doctree.findall(nodes.tgroup):
        heads = list(group.findall(nodes.thead))
        columns = [child for child in group.children if isinstance(child, nodes.colspec)]
        if not heads or not columns:
            continue
        corner = next(iter(heads[0].findall(nodes.entry)), None)
        if corner is not None and not corner.astext().strip():
            columns[0]["stub"] = 1


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at the tables of each page before it is written."""
    app.connect("doctree-resolved", mark_row_headers)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
