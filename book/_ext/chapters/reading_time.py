"""Sphinx extension: how long a chapter takes to read and to run, in a line under its title.

Reading takes a minute for 200 words of prose or for 20 lines of code and formulas. Folded cells
and folded solutions are not counted. The running time is what the page glued as
``page-seconds``, measured in this build.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

from book._ext.site.stages import is_chapter

WORDS_PER_MINUTE = 200
LINES_PER_MINUTE = 20
SECONDS_KEY = "page-seconds"
FOLDED = {"tag_hide-input", "tag_hide-cell", "dropdown", "toggle"}
NO_READING = (nodes.raw, nodes.image, nodes.Invisible)
CODE = (nodes.literal_block, nodes.doctest_block, nodes.math_block)


def amount(node: nodes.Node) -> tuple[int, int]:
    """Count what there is to read.

    Args:
        node: A page, or a part of one.

    Returns:
        Words of prose, and lines of code and displayed formulas.
    """
    if isinstance(node, nodes.Text):
        return len(re.findall(r"[^\W_]+(?:['\u2019.,-][^\W_]+)*", node.astext())), 0
    if isinstance(node, NO_READING):
        return 0, 0
    if isinstance(node, CODE):
        return 0, sum(bool(line.strip()) for line in node.astext().splitlines())
    if isinstance(node, nodes.math):
        return 1, 0
    classes = set(node.get("classes", ())) if isinstance(node, nodes.Element) else set()
    if classes & FOLDED or "cell_output" in classes:
        return 0, 0
    counts = [amount(child) for child in node.children]
    return sum(words for words, _ in counts), sum(lines for _, lines in counts)


def reading_minutes(words: int, lines: int) -> int:
    """Turn counts into minutes, at least one."""
    return max(1, round(words / WORDS_PER_MINUTE + lines / LINES_PER_MINUTE))


def running_seconds(folder: Path, docname: str) -> float | None:
    """Read the running time that a page glued.

    Args:
        folder: Where myst-nb keeps what pages glued.
        docname: The page.

    Returns:
        Seconds, or None where the page glued none.
    """
    file = folder / f"{docname}.glue.json"
    try:
        glued = json.loads(file.read_text(encoding="utf-8"))
        seconds = float(glued[SECONDS_KEY]["data"]["text/plain"])
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def running_text(seconds: float) -> str:
    """Write a running time, such as ``12 s`` or ``4 min``."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min"


def add_line(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put the line under the first title of a chapter."""
    title = next(iter(doctree.findall(nodes.title)), None)
    if title is None or not is_chapter(docname):
        return
    minutes = reading_minutes(*amount(doctree))
    line = nodes.paragraph(classes=["pt-times"])
    line += nodes.inline("", f"{minutes} min to read")
    config = getattr(app.env, "mystnb_config", None)
    folder = Path(config.output_folder) if config else None
    seconds = running_seconds(folder, docname) if folder else None
    if seconds is not None:
        line += nodes.Text(" · ")
        line += nodes.inline("", f"{running_text(seconds)} to run in this build")
    title.parent.insert(title.parent.index(title) + 1, line)


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the line when pages are written: by then all of them were executed."""
    app.connect("doctree-resolved", add_line, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
