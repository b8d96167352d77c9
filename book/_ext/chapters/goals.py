"""Sphinx extension: goals and claims that the chapters' cells checked, shown and published.

Kernels inherit ``POSTTRAIN_GOALS``, a folder of this build; `check_goals` and `Claims` write
there. Two directives mark a place for the rows, ``{scoreboard}`` and ``{goal-totals}``, and the
role ``{claim}`` stands in a sentence that a claim or a goal of its page makes true. The places
are filled when pages are written, which is after all of them were executed. A finished HTML
build holds the rows in ``goals.json``.
"""

import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective, SphinxRole

from book._ext.chapters.goals_html import (
    SCOREBOARD,
    SITE,
    STAGES,
    in_order,
    mark_html,
    marked,
    stage_html,
    totals_html,
)
from posttrain.core.claims import broken_text, claim_id
from posttrain.core.goals import collect_goals, goals_file
from posttrain.core.goals_table import GoalRow, GoalsTable
from posttrain.core.robustness import held_text, read_robustness, stale
from posttrain.core.storage.files import write_json_atomic

BOOK = "book/"
logger = logging.getLogger(__name__)


class ScoreboardPlace(nodes.General, nodes.Element):
    """Stands for the tables until all pages were executed."""


class TotalsPlace(nodes.General, nodes.Element):
    """Stands for the one-line summary until all pages were executed."""


class ClaimPlace(nodes.Inline, nodes.Element):
    """Stands in a sentence until the page was executed."""


class ClaimRole(SphinxRole):
    """``{claim}``: the sentence rests on this claim of its page, or on this goal."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        """Mark the place."""
        name = self.text.strip()
        full = name if "." in name else claim_id(self.env.docname.removeprefix(BOOK), name)
        return [ClaimPlace(claim=full, line=self.lineno)], []


class Scoreboard(SphinxDirective):
    """``{scoreboard}``: all goals and claims, two tables for each stage."""

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
    return in_order(collect_goals(folder_of(app)))


def fill_places(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the places of one page by what the rows say."""
    html = app.builder.format == "html"
    fill_claims(app, doctree, docname)
    for board in list(doctree.findall(ScoreboardPlace)):
        rows = rows_by_stage(app)
        board.replace_self(list(_scoreboard(app, docname, rows)) if html else _plain(rows))
    for totals in list(doctree.findall(TotalsPlace)):
        text = totals_html(rows_by_stage(app), _address(app, docname, SCOREBOARD))
        if html:
            totals.replace_self(nodes.raw("", marked("totals", text), format="html"))
        else:
            totals.replace_self(nodes.paragraph("", re.sub("<[^>]*>", "", text)))


def fill_claims(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Say beside each sentence whose claim does not hold what was measured instead.

    A name that no cell registered is a warning, unless the page checked nothing at all: then it
    was not executed.
    """
    places = list(doctree.findall(ClaimPlace))
    if not places:
        return
    rows = {row["id"]: row for row in rows_by_stage(app)}
    executed = any(row["chapter"] == docname.removeprefix(BOOK) for row in rows.values())
    for place in places:
        row = rows.get(place["claim"])
        if row is None and executed:
            sentence = f"no cell of this page checked the claim {place['claim']}"
            logger.warning(sentence, location=(docname, place["line"]))
        if row is None or row["passed"]:
            _close_gap(place)
        if row is None:
            place.parent.remove(place)
        elif app.builder.format == "html":
            place.replace_self(nodes.raw("", mark_html(row), format="html"))
        else:
            place.replace_self(nodes.Text("" if row["passed"] else f"[{broken_text(row)}]"))


def _close_gap(place: nodes.Element) -> None:
    """Remove the space before a mark that nobody sees, where a sign of punctuation follows."""
    siblings, at = place.parent.children, place.parent.index(place)
    before = siblings[at - 1] if at else None
    after = siblings[at + 1].astext() if at + 1 < len(siblings) else ""
    if isinstance(before, nodes.Text) and re.match(r"[,;:.)]", after):
        place.parent.replace(before, nodes.Text(before.astext().rstrip()))


def publish(app: Sphinx, exception: Exception | None) -> None:
    """Write ``goals.json`` beside a finished HTML site."""
    if exception is None and app.builder.format == "html":
        write_json_atomic(Path(app.outdir) / "goals.json", rows_by_stage(app))


def _address(app: Sphinx, here: str, there: str) -> str:
    if app.builder.format != "html" or there not in app.env.all_docs:
        return ""
    return app.builder.get_relative_uri(here, there)


def _scoreboard(app: Sphinx, here: str, rows: list[GoalRow]) -> Iterator[nodes.Node]:
    def link(chapter: str) -> tuple[str, str]:
        page = BOOK + chapter
        title = app.env.titles[page].astext() if page in app.env.titles else chapter
        return _address(app, here, page), title

    root = Path(app.srcdir)
    records, faults = read_robustness(root / "book" / "results" / "robustness")
    older = {chapter for chapter, record in records.items() if stale(record, root)}
    for fault in faults:
        logger.warning(fault)

    def held(row: GoalRow) -> str:
        return held_text(row["id"], records, older)

    if not rows:
        yield nodes.raw("", totals_html(rows, ""), format="html")
    for stage, group in groupby(rows, key=lambda row: row["stage"]):
        yield nodes.raw("", stage_html(stage, list(group), link, held), format="html")
    missing = STAGES.keys() - {row["stage"] for row in rows} - {SITE}
    if missing:
        titles = "; ".join(STAGES[stage] for stage in STAGES if stage in missing)
        yield nodes.paragraph("", f"No goals in this build: {titles}.")
    if rows:
        yield nodes.raw("", marked(SITE, stage_html(SITE, [], link)), format="html")
        text = nodes.Text("The same rows, for programs: ")
        yield nodes.paragraph("", "", text, _file_link(app, here, "goals.json"))


def _file_link(app: Sphinx, here: str, file: str) -> nodes.Node:
    uri = posixpath.relpath(file, posixpath.dirname(app.builder.get_target_uri(here)) or ".")
    return nodes.reference("", "", nodes.literal("", file), internal=True, refuri=uri)


def _plain(rows: list[GoalRow]) -> nodes.Node:
    text = repr(GoalsTable(rows))
    return nodes.literal_block(text, text, language="none")


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives and the steps of a build."""
    app.add_node(ScoreboardPlace)
    app.add_node(TotalsPlace)
    app.add_node(ClaimPlace)
    app.add_role("claim", ClaimRole())
    app.add_directive("scoreboard", Scoreboard)
    app.add_directive("goal-totals", GoalTotals)
    app.connect("builder-inited", give_kernels_a_folder)
    app.connect("env-purge-doc", forget_rows)
    app.connect("env-updated", pages_that_show_goals)
    app.connect("doctree-resolved", fill_places)
    app.connect("build-finished", publish)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
