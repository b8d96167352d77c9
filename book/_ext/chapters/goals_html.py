"""Goals and claims as HTML: for the pages of a build, and for the finished site once checked.

What a page shows of the goals stands between two comments, so that ``make site-check`` can put
the site's own goals there without building the page again.
"""

import html
import posixpath
import re
from collections.abc import Callable, Sequence

from book._ext.site.stages import folder_titles
from posttrain.core.claims import broken_text
from posttrain.core.goals_table import GoalRow, measured_text, result_text, wanted_text

SCOREBOARD = "book/scoreboard"
SITE = "site"
STAGES = {**folder_titles(), SITE: "The site itself"}  # the site's goals stand last
COLUMNS = ("result", "measured", "wanted", "held in", "chapter")
# What `make site-check` measures on the finished site; what cannot run leaves its goal out.
SITE_GOALS = (
    "offline_pages", "axe_serious", "lighthouse_min", "search_hits", "notebooks_valid",
    "notebook_clean_run", "wheel_clean_install",
)  # fmt: skip
Link = Callable[[str], tuple[str, str]]
Held = Callable[[GoalRow], str]


def never_tried(row: GoalRow) -> str:
    """Say that no perturbed rebuild was made."""
    return "not tried"


def anchor_of(name: str) -> str:
    """Return the anchor of the sentence that carries a claim, by the claim's full id."""
    return f"claim-{name.rpartition('.')[2]}"


def in_order(rows: Sequence[GoalRow]) -> list[GoalRow]:
    """Return rows with the stages in the book's order, unknown stages last."""
    order = list(STAGES)
    return sorted(rows, key=lambda r: order.index(r["stage"]) if r["stage"] in order else 99)


def chapters_of(rows: Sequence[GoalRow]) -> int:
    """Return how many chapters have goals; the site itself is none."""
    return len({row["chapter"] for row in rows if row["stage"] != SITE})


def totals_html(rows: Sequence[GoalRow], scoreboard: str) -> str:
    """Return the one-line summary of all goals and claims.

    Args:
        rows: All rows.
        scoreboard: The scoreboard's address, or nothing.

    Returns:
        A paragraph.
    """
    goals = [row for row in rows if row["kind"] == "goal"]
    claims = [row for row in rows if row["kind"] == "claim"]
    if not goals:
        return '<p class="pt-totals">This build checked no goals.</p>'
    met, chapters = sum(row["passed"] for row in goals), chapters_of(goals)
    where = f"in {chapters} chapter{'s' * (chapters != 1)}"
    if any(row["stage"] == SITE for row in goals):
        where += " and the site itself"
    text = f"<strong>{met} of {len(goals)} goals met</strong> {where}"
    if claims:
        hold = sum(row["passed"] for row in claims)
        text += f"; {hold} of {len(claims)} claims of the text hold"
    link = _link(scoreboard, "scoreboard") if scoreboard else "scoreboard"
    return f'<p class="pt-totals">{text}. What fails is marked on its page: {link}.</p>'


def stage_html(
    stage: str, rows: Sequence[GoalRow], link: Link, held: Held = never_tried
) -> str:
    """Return a heading and the tables of a stage's goals and claims.

    Args:
        stage: The stage, such as ``sft``.
        rows: Its rows; the site names those of its goals that are not among them.
        link: Gives a chapter's address, or nothing if it has no page, and its title.
        held: Says in how many perturbed rebuilds a row held.

    Returns:
        A heading with a table, where there are rows, and a sentence on goals without a row.
        Claims are folded unless one of them does not hold.
    """
    title = html.escape(STAGES.get(stage, stage))
    heading = f'<h2 class="rubric">{title}</h2>\n'
    end = _not_measured(rows) if stage == SITE else ""
    goals = [row for row in rows if row["kind"] == "goal"]
    claims = [row for row in rows if row["kind"] == "claim"]
    text = heading + (_table("goal", goals, link, held) if goals else "") + end
    if claims:
        hold = sum(row["passed"] for row in claims)
        text += (
            f'<details class="pt-claims"{" open" * (hold < len(claims))}>'
            f"<summary>{title}, claims of the text: {hold} of {len(claims)} hold</summary>\n"
            f"{_table('claim', claims, link, held)}</details>\n"
        )
    return text


def _table(first: str, rows: Sequence[GoalRow], link: Link, held: Held) -> str:
    head = "".join(
        f'<th class="head" scope="col"><p>{name}</p></th>' for name in (first, *COLUMNS)
    )
    body = "\n".join(_row(row, link, held) for row in rows)
    return (
        f'<div class="pst-scrollable-table-container">'
        f'<table class="pt-scoreboard table">\n<thead>\n<tr>{head}</tr>\n</thead>\n'
        f"<tbody>\n{body}\n</tbody>\n</table></div>\n"
    )


def mark_html(row: GoalRow) -> str:
    """Return what stands beside a sentence: an anchor, and a note where it does not hold.

    Args:
        row: The row of the sentence's claim or goal.

    Returns:
        Inline HTML.
    """
    anchor = f'<span id="{anchor_of(row["id"])}" class="pt-claim">'
    if row["passed"]:
        return f"{anchor}</span>"
    return (
        f'{anchor}<strong class="pt-broken">✗ {html.escape(broken_text(row))}</strong></span>'
    )


def _not_measured(rows: Sequence[GoalRow]) -> str:
    measured = {row["id"] for row in rows}
    missing = [name for each in SITE_GOALS if (name := f"{SITE}.{each}") not in measured]
    names = ", ".join(f"<code>{name}</code>" for name in missing)
    what = f"Not measured here: {names}. <code>make site-check</code> does it after a build."
    return f"<p>{what}</p>\n" if missing else ""


def _row(row: GoalRow, link: Link, held: Held) -> str:
    look = "pt-met" if row["passed"] else "pt-missed"
    measured = measured_text(row) + (f" ({row['preset']})" if row["preset"] != "cpu" else "")
    address, title = link(row["chapter"])
    name = f'<code class="pt-goal-id docutils literal notranslate">{row["id"]}</code>'
    if row["kind"] == "claim" and address:
        address += f"#{anchor_of(row['id'])}"
    tried = "".join(f"<p>Tried: {html.escape(text)}</p>" for text in row["attempts"])
    cells = [
        f"<p>{html.escape(row['goal'])} {name}</p>{tried * (not row['passed'])}",
        f'<p><span class="{look}">{result_text(row)}</span></p>',
        f"<p>{html.escape(measured)}</p>",
        f"<p>{html.escape(wanted_text(row))}</p>",
        f"<p>{html.escape(held(row))}</p>",
        f"<p>{_link(address, title) if address else html.escape(title)}</p>",
    ]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


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
