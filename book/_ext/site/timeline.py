"""Sphinx extension: the stages of the book as cards and as a timeline.

``{stage-cards}`` and ``{stage-timeline}`` mark places that are filled when pages are written:
which chapters a stage has is known once all of them were read. Both show ``book/stages.yml``.
"""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ConfigError
from sphinx.util.docutils import SphinxDirective

from book._ext.site import timeline_svg
from book._ext.site.stages import STAGES, Stage, pages_in_order, read_stages, stage_folder


class CardsPlace(nodes.General, nodes.Element):
    """Stands for the cards until all pages were read."""


class TimelinePlace(nodes.General, nodes.Element):
    """Stands for the picture until all pages were read."""


class StagePlace(SphinxDirective):
    """A directive without options that marks a place."""

    place: type[nodes.Element]

    def run(self) -> list[nodes.Node]:
        """Mark the place, and the page as one that shows the stages."""
        self.env.note_dependency(str(stages_file(self.config.stages_file)))
        self.env.metadata[self.env.docname]["shows_stages"] = True
        return [self.place()]


class StageCards(StagePlace):
    """``{stage-cards}``: a card for each stage."""

    place = CardsPlace


class StageTimeline(StagePlace):
    """``{stage-timeline}``: the stages on a line of weeks."""

    place = TimelinePlace


def stages_file(configured: str) -> Path:
    """Return the list of stages; by default the one beside this folder."""
    return Path(configured) if configured else STAGES


def chapters_by_folder(env: BuildEnvironment, stages: list[Stage]) -> dict[str, list[str]]:
    """Return the chapters of each stage, in the book's order; none for a planned stage."""
    chapters: dict[str, list[str]] = {stage.folder: [] for stage in stages}
    for page in pages_in_order(env.toctree_includes, env.config.root_doc):
        if page in env.all_docs:
            chapters.get(stage_folder(page), []).append(page)
    return chapters


def pages_that_show_stages(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the pages to write again although their source did not change."""
    return [page for page in env.found_docs if env.metadata.get(page, {}).get("shows_stages")]


def fill_places(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Replace the places of one page by the cards and by the picture."""
    cards, timelines = list(doctree.findall(CardsPlace)), list(doctree.findall(TimelinePlace))
    if not cards and not timelines:
        return
    try:
        stages = read_stages(stages_file(app.config.stages_file))
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    chapters = chapters_by_folder(app.env, stages)
    written = {folder for folder, pages in chapters.items() if pages}
    for place in cards:
        box = nodes.bullet_list(classes=["pt-cards"])
        box += [_card(app, docname, stage, chapters[stage.folder]) for stage in stages]
        place.replace_self(box)
    for timeline in timelines:
        drawn = [layout(stages, written) for layout in (timeline_svg.wide, timeline_svg.narrow)]
        timeline.replace_self(nodes.raw("", "".join(drawn), format="html"))


def _card(app: Sphinx, here: str, stage: Stage, chapters: list[str]) -> nodes.Element:
    state = timeline_svg.WRITTEN if chapters else timeline_svg.PLANNED
    card = nodes.list_item(classes=["pt-card", f"pt-card-{state}"])
    above = nodes.paragraph(classes=["pt-card-above"])
    above += [
        nodes.inline("", f"Stage {stage.number}"),
        nodes.inline("", state, classes=["pt-card-state"]),
    ]
    title = nodes.paragraph(classes=["pt-card-title"])
    title += _link(app, here, chapters[0], stage.title) if chapters else nodes.Text(stage.title)
    card += [above, title, nodes.paragraph("", stage.outcome)]
    if chapters:
        links = nodes.bullet_list(classes=["pt-card-chapters"])
        for page in chapters:
            name = app.env.titles[page].astext() if page in app.env.titles else page
            link = nodes.paragraph("", "", _link(app, here, page, name))
            links += nodes.list_item("", link)
        card += links
    facts = f"{stage.weeks_text} ({stage.duration_text})", stage.compute_text
    box = nodes.paragraph(classes=["pt-card-facts"])
    box += [nodes.inline("", fact) for fact in facts]
    card += box
    return card


def _link(app: Sphinx, here: str, there: str, text: str) -> nodes.Node:
    if app.builder.format != "html":
        return nodes.Text(text)
    uri = app.builder.get_relative_uri(here, there)
    return nodes.reference("", text, internal=True, refuri=uri)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_config_value("stages_file", "", "env", types=[str])
    app.add_node(CardsPlace)
    app.add_node(TimelinePlace)
    app.add_directive("stage-cards", StageCards)
    app.add_directive("stage-timeline", StageTimeline)
    app.connect("env-updated", pages_that_show_stages)
    app.connect("doctree-resolved", fill_places)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
