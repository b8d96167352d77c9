"""Sphinx extension: the goals that the chapters' cells checked, shown and published.

Kernels inherit ``POSTTRAIN_GOALS``, a folder of this build, and `check_goals` writes there. Two
directives mark a place for the rows, ``{scoreboard}`` and ``{goal-totals}``; the places are
filled when pages are written, which is after all of them were executed. A finished HTML build
holds the rows in ``goals.json``.
"""

import os
import posixpath
import shutil
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

from posttrain.core.files import write_json_atomic
from posttrain.core.goals import collect_goals, goals_file
from posttrain.core.goals_table import GoalRow, measured_text, result_text, wanted_text

BOOK = "book/"
SCOREBOARD = BOOK + "scoreboard"
STAGES = {
    "pretraining": "Stage 0 · Pre-training",
    "sft": "Stage 1 · Supervised fine-tuning",
    "dpo": "Stage 2 · Preference alignment",
    "grpo": "Stage 3 · RL for reasoning",
    "tool_use": "Stage 4 · Tool use",
    "evaluation": "Stage 5 · Evaluation and red-teaming",
    "infra": "Infrastructure",
}
COLUMNS = {"goal": 36, "result": 12, "measured": 22, "wanted": 12, "chapter": 18}


class ScoreboardPlace(nodes.General, nodes.Element):
    """Stands for the tables until all pages were executed."""


class TotalsPlace(nodes.General, nodes.Element):
    """Stands for the one-line summary until all pages were executed."""


class Scoreboard(SphinxDirective):
    """``{scoreboard}``: all goals, a table for each stage."""

    def run(self) -> list[nodes.Node]:
        """Mark the place, and the page as one that shows goals."""
        self.env.metadata[self.env.docname]["shows_goals"] = True
        return [ScoreboardPlace()]


class GoalTotals(SphinxDirective):
    """``{goal-totals}``: how many goals are met, in one line."""

    def run(self) -> list[nodes.Node]:
        """Mark the place, and the page as one that shows goals."""
        self.env.metadata[self.env.docname]["shows_goals"] = True
        return [TotalsPlace()]


def folder_of(app: Sphinx) -> Path:
    """Return the folder of this build's rows."""
    return Path(app.doctreedir).resolve() / "goals"


def give_kernels_a_folder(app: Sphinx) -> None:
    """Point kernels to this build's folder, empty if no page is remembered from before."""
    folder = folder_of(app)
    if not app.env.all_docs:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["POSTTRAIN_GOALS"] = str(folder)


def forget_rows(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    """Remove the rows of a page that is about to be executed again, or is gone."""
    try:
        goals_file(docname.removeprefix(BOOK), folder_of(app)).unlink(missing_ok=True)
    except ValueError:
        pass  # not a name that a chapter can have


def pages_that_show_goals(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the pages to write again although their source did not change."""
    return [page for page in env.found_docs if env.metadata.get(page, {}).get("shows_goals")]


def rows_by_stage(app: Sphinx) -> list[GoalRow]:
    """Return the rows of this build, stages in the book's order."""
    order = list(STAGES)
    rows = collect_goals(folder_of(app))
    return sorted(rows, key=lambda r: order.index(r["stage"]) if r["stage"] in order else 99)


def fill_places(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the places of one page by what the rows say."""
    for board in list(doctree.findall(ScoreboardPlace)):
        board.replace_self(list(_scoreboard(app, docname, rows_by_stage(app))))
    for totals in list(doctree.findall(TotalsPlace)):
        totals.replace_self(_totals(app, docname, rows_by_stage(app)))


def publish(app: Sphinx, exception: Exception | None) -> None:
    """Write ``goals.json`` beside a finished HTML site."""
    if exception is None and app.builder.format == "html":
        write_json_atomic(Path(app.outdir) / "goals.json", rows_by_stage(app))


def _link(app: Sphinx, here: str, there: str, text: str) -> nodes.Node:
    if app.builder.format != "html" or there not in app.env.all_docs:
        return nodes.Text(text)
    uri = app.builder.get_relative_uri(here, there)
    return nodes.reference("", text, internal=True, refuri=uri)


def _file_link(app: Sphinx, here: str, file: str) -> nodes.Node:
    uri = posixpath.relpath(file, posixpath.dirname(app.builder.get_target_uri(here)) or ".")
    return nodes.reference("", "", nodes.literal("", file), internal=True, refuri=uri)


def _totals(app: Sphinx, here: str, rows: list[GoalRow]) -> nodes.Element:
    if not rows:
        return nodes.paragraph("", "This build checked no goals.", classes=["pt-totals"])
    met = sum(row["passed"] for row in rows)
    chapters = len({row["chapter"] for row in rows})
    summary = nodes.strong("", f"{met} of {len(rows)} goals met")
    where = f" in {chapters} chapter{'s' * (chapters > 1)}; a missed goal stops the build: "
    link = _link(app, here, SCOREBOARD, "scoreboard")
    return nodes.paragraph(
        "", "", summary, nodes.Text(where), link, nodes.Text("."), classes=["pt-totals"]
    )


def _scoreboard(app: Sphinx, here: str, rows: list[GoalRow]) -> Iterator[nodes.Node]:
    if not rows:
        yield _totals(app, here, rows)
    for stage, group in groupby(rows, key=lambda row: row["stage"]):
        yield nodes.rubric("", STAGES.get(stage, stage), **{"heading-level": 2})
        yield _table(app, here, list(group))
    missing = [
        title for stage, title in STAGES.items() if stage not in {r["stage"] for r in rows}
    ]
    if missing:
        yield nodes.paragraph("", "No goals in this build: " + "; ".join(missing) + ".")
    if rows and app.builder.format == "html":
        text = nodes.Text("The same rows, for programs: ")
        yield nodes.paragraph("", "", text, _file_link(app, here, "goals.json"))


def _table(app: Sphinx, here: str, rows: list[GoalRow]) -> nodes.table:
    group = nodes.tgroup(cols=len(COLUMNS))
    group += [nodes.colspec(colwidth=width) for width in COLUMNS.values()]
    head = _table_row([nodes.Text(name)] for name in COLUMNS)
    group += nodes.thead("", head)
    group += nodes.tbody("", *(_goal_row(app, here, row) for row in rows))
    return nodes.table("", group, classes=["pt-scoreboard"])


def _goal_row(app: Sphinx, here: str, row: GoalRow) -> nodes.row:
    chapter = BOOK + row["chapter"]
    title = app.env.titles[chapter].astext() if chapter in app.env.titles else row["chapter"]
    look = "pt-met" if row["passed"] else "pt-missed"
    measured = measured_text(row)
    if row["preset"] != "cpu":
        measured += f" ({row['preset']})"
    name = nodes.literal("", row["id"], classes=["pt-goal-id"])
    return _table_row(
        [
            [nodes.Text(row["goal"] + " "), name],
            [nodes.inline("", result_text(row), classes=[look])],
            [nodes.Text(measured)],
            [nodes.Text(wanted_text(row))],
            [_link(app, here, chapter, title)],
        ]
    )


def _table_row(cells: Iterable[list[nodes.Node]]) -> nodes.row:
    return nodes.row("", *(nodes.entry("", nodes.paragraph("", "", *cell)) for cell in cells))


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the steps of a build."""
    app.add_node(ScoreboardPlace)
    app.add_node(TotalsPlace)
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("goal-totals", GoalTotals)
    app.connect("builder-inited", give_kernels_a_folder)
    app.connect("env-purge-doc", forget_rows)
    app.connect("env-updated", pages_that_show_goals)
    app.connect("doctree-resolved", fill_places)
    app.connect("build-finished", publish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
