"""Sphinx extension: "live code" on the pages that are small enough to run in Binder.

sphinx-thebe puts scripts on every page; here nothing is loaded until the reader presses the
button in the launch menu. Then ``live_code.js`` loads thebe from the network and asks
mybinder.org for a session. ``book/launch.yml`` says which pages fit one. Cells that the page
hides are given to the script, since others need what they define.
"""

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from book._ext.chapters.launch_buttons import find_menu
from book._ext.chapters.launch_table import entry_of, repository_of
from book._ext.chapters.myst import read

HIDDEN = {"remove-cell", "remove-input", "remove_cell", "remove_input"}
BUTTON = {
    "type": "javascript",
    "text": "Live code",
    "tooltip": "Edit and run the cells on this page; needs the network",
    "javascript": "startLiveCode()",
    "icon": "fas fa-play",
    "label": "live-code",
}


def cells_of(source: str) -> list[str | None]:
    """Return the code of each cell that a page hides, and None for each that it shows.

    Args:
        source: The page in MyST.

    Returns:
        An entry for each code cell, in order.
    """
    return [cell.source if HIDDEN & cell.tags else None for cell in read(source).cells]


def settings(app: Sphinx, page: str) -> dict[str, Any]:
    """Return what the page's script must know.

    Args:
        app: The application; its theme options hold the repository's address and branch.
        page: The page.

    Returns:
        The repository, its branch, the folder of the kernel and the cells.
    """
    repository = repository_of(app)
    return {
        "repository": repository.name,
        "branch": repository.branch,
        "folder": page.rpartition("/")[0],
        "cells": cells_of(Path(app.env.doc2path(page)).read_text(encoding="utf-8")),
    }


def add_button(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Add the button, the script and its settings to a page that fits."""
    if doctree is None or not entry_of(app, pagename).get("binder"):
        return
    menu = find_menu(context.setdefault("header_buttons", []))
    if menu is None:
        return
    menu["buttons"].append(BUTTON)
    data = json.dumps(settings(app, pagename), ensure_ascii=False).replace("<", "\\u003c")
    context["body"] += f'<script type="application/json" id="pt-live-code">{data}</script>\n'
    app.add_js_file("live_code.js", defer="defer")


def setup(app: Sphinx) -> dict[str, Any]:
    """Look at a page after the launch buttons were made (priority 505)."""
    app.setup_extension("book._ext.chapters.launch_table")
    app.connect("html-page-context", add_button, priority=506)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
