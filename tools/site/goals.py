"""The site's own goals: they join goals.json, the scoreboard and the totals of a built site."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from book._ext.chapters.goals_html import SITE, in_order, renewed
from posttrain.core.goals import Goal
from posttrain.core.goals_table import GoalRow
from posttrain.core.storage.files import write_json_atomic, write_text_atomic

PRESET = "cpu"
MEASURED = {  # the goal of each check; the check of the keyboard has none
    "offline": "offline_pages",
    "axe": "axe_serious",
    "lighthouse": "lighthouse_min",
    "search": "search_hits",
    "notebooks": "notebooks_valid",
    "clean-run": "notebook_clean_run",
    "wheel": "wheel_clean_install",
}


def rows_of(goals: Sequence[Goal]) -> list[GoalRow]:
    """Return goals as the rows that are stored."""
    return [goal.row(SITE, PRESET) for goal in goals]


def record(html: Path, goals: Sequence[Goal], ran: Iterable[str] = ()) -> list[str]:
    """Put goals into a built site: into its goals.json and into every page that shows goals.

    Args:
        html: The folder of the built site.
        goals: The site's goals; rows of the same ids are replaced.
        ran: The checks that ran. Rows of their goals go, even if they returned none: what an
            earlier run measured says nothing of this one.

    Returns:
        The paths of the pages that were written again.

    Raises:
        FileNotFoundError: If the site has no goals.json.
    """
    file = html / "goals.json"
    if not file.is_file():
        raise FileNotFoundError(f"{file} is missing: run make book first")
    new = rows_of(goals)
    ids = {row["id"] for row in new}
    ids |= {f"{SITE}.{MEASURED[name]}" for name in ran if name in MEASURED}
    old: list[GoalRow] = json.loads(file.read_text(encoding="utf-8"))
    rows = in_order([row for row in old if row["id"] not in ids] + new)
    write_json_atomic(file, rows)
    written = []
    for path in sorted(html.rglob("*.html")):
        text = path.read_text(encoding="utf-8")
        page = path.relative_to(html).as_posix()
        fresh = renewed(text, page, rows)
        if fresh != text:
            write_text_atomic(path, fresh)
            written.append(page)
    return written
