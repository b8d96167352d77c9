"""Goals as HTML: for the pages of a build, and for the finished site once it was checked.

What a page shows of the goals stands between two comments, so that ``make site-check`` can put
the site's own goals there without building the page again.
"""

import html
import posixpath
import re
from collections.abc import Callable, Sequence

from book._ext.site.stages import folder_titles
from posttrain.core.goals_table import GoalRow, measured_text, result_text, wanted_text

SCOREBOARD = "book/scoreboard"
SITE = "site"
STAGES = {**folder_titles(), SITE: "The site itself"}  # the site's goals stand last
COLUMNS = ("goal", "result", "measured", "wanted", "chapter")
# What `make site-check` measures on the finished site; what cannot run leaves its goal out.
SITE_GOALS = (
    "offline_pages", "axe_serious", "lighthouse_min", "search_hits", "notebooks_valid",
    "notebook_clean_run", "wheel_clean_install",
)  # fmt: skip
Link = Callable[[str], tuple[str, str]]


def in_order(rows: Sequence[GoalRow]) -> list[GoalRow]:
    """Return rows with the stages in the book's order, unknown stages last."""
    order = list(STAGES)
    return sorted(rows, key=lambda r: order.index(r["stage"]) if r["stage"] in order else 99)


def chapters_of(rows: Sequence[GoalRow]) -> int:
    """Return how many chapters have goals; the site itself is none."""
    return len({row["chapter"] for row in rows if row["stage"] != SITE})


def totals_html(rows: Sequence[GoalRow], scoreboard: str) -> str:
    """Return the one-line summary of all goals.

    Args:
        rows: All rows.
        scoreboard: The scoreboard's address, or nothing.

    Returns:
        A paragraph.
    """
    if not rows:
        return '<p class="pt-totals">This build checked no goals.</p>'
    met, chapters = sum(row["passed"] for row in rows), chapters_of(rows)
    where = f"in {chapters} chapter{'s' * (chapters != 1)}"
    if any(row["stage"] == SITE for row in rows):
        where += " and the site itself"
    link = _link(scoreboard, "scoreboard") if scoreboard else "scoreboard"
    return (
        f'<p class="pt-totals"><strong>{met} of {len(rows)} goals met</strong> {where}; '
        f"a chapter's missed goal stops the build: {link}.</p>"
    )


def stage_html(stage: str, rows: Sequence[GoalRow], link: Link) -> str:
    """Return a heading and the table of a stage's goals.

    Args:
        stage: The stage, such as ``sft``.
        rows: Its rows; the site names those of its goals that are not among them.
        link: Gives a chapter's address, or nothing if it has no page, and its title.

    Returns:
        A heading with a table, where there are rows, and a sentence on goals without a row.
    """
    heading = f'<h2 class="rubric">{html.escape(STAGES.get(stage, stage))}</h2>\n'
    end = _not_measured(rows) if stage == SITE else ""
    if not rows:
        return heading + end
    head = "".join(f'<th class="head" scope="col"><p>{name}</p></th>' for name in COLUMNS)
    body = "\n".join(_row(row, link) for row in rows)
    return (
        f'{heading}<div class="pst-scrollable-table-container">'
        f'<table class="pt-scoreboard table">\n<thead>\n<tr>{head}</tr>\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n{end}"
    )


def _not_measured(rows: Sequence[GoalRow]) -> str:
    measured = {row["id"] for row in rows}
    missing = [name for each in SITE_GOALS if (name := f"{SITE}.{each}") not in measured]
    names = ", ".join(f"<code>{name}</code>" for name in missing)
    what = f"Not measured here: {names}. <code>make site-check</code> does it after a build."
    return f"<p>{what}</p>\n" if missing else ""


def _row(row: GoalRow, link: Link) -> str:
    look = "pt-met" if row["passed"] else "pt-missed"
    measured = measured_text(row) + (f" ({row['preset']})" if row["preset"] != "cpu" else "")
    address, title = link(row["chapter"])
    name = f'<code class="pt-goal-id docutils literal notranslate">{row["id"]}</code>'
    cells = [
        f"{html.escape(row['goal'])} {name}",
        f'<span class="{look}">{result_text(row)}</span>',
        html.escape(measured),
        html.escape(wanted_text(row)),
        _link(address, title) if address else html.escape(title),
    ]
    return "<tr>" + "".join(f"<td><p>{cell}</p></td>" for cell in cells) + "</tr>"


def _link(address: str, text: str) -> str:
    return (
        f'<a class="reference internal" href="{html.escape(address)}">{html.escape(text)}</a>'
    )


def marked(name: str, text: str) -> str:
    """Return a part of a page between comments by which `renewed` finds it again."""
    return f"<!-- goals: {name} -->\n{text}<!-- end of goals: {name} -->"


def renewed(text: str, page: str, rows: Sequence[GoalRow]) -> str:
    """Return the text of a finished page with what all rows now say.

    Args:
        text: The page.
        page: Its path below the site's folder, such as ``book/index.html``.
        rows: All rows.

    Returns:
        The page with new totals and a new table of the site's own goals, where it has them.
    """
    scoreboard = posixpath.relpath(f"{SCOREBOARD}.html", posixpath.dirname(page) or ".")
    site = [row for row in rows if row["stage"] == SITE]
    parts = {
        "totals": totals_html(rows, scoreboard),
        SITE: stage_html(SITE, site, lambda chapter: ("", chapter)),
    }
    for name, part in parts.items():
        old = rf"<!-- goals: {name} -->.*?<!-- end of goals: {name} -->"
        new = marked(name, part).replace("\\", r"\\")  # a backslash is no group here
        text = re.sub(old, new, text, flags=re.DOTALL)
    return text
