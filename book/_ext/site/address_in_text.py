"""Sphinx extension: ``@repository@`` in a page's source is the repository's address.

The address stands in ``_config.yml`` only (see `book._ext.site.address`); commands on a
page need it too.
"""

from typing import Any

from sphinx.application import Sphinx
from sphinx.util import logging

MARK = "@repository@"
logger = logging.getLogger(__name__)


def write_address(app: Sphinx, docname: str, source: list[str]) -> None:
    """Replace the mark in one page."""
    if MARK not in source[0]:
        return
    address = app.config.html_context.get("repository_url", "")
    if not address:
        logger.warning("%s is used, but no repository is known", MARK, location=docname)
    source[0] = source[0].replace(MARK, address)


def setup(app: Sphinx) -> dict[str, Any]:
    """Change pages as they are read."""
    app.connect("source-read", write_address)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
