"""The cards and the timeline of the first page, and the list of stages behind them."""

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

pytest.importorskip("sphinx")
from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.util.docutils import docutils_namespace

from book._ext.chapters import goals_html
from book._ext.site import stages as book_stages
from book._ext.site import timeline_svg

ROOT = Path(__file__).parents[3]
STAGES = ROOT / "book" / "stages.yml"
PAGES = {
    "index": (
        "Start\n=====\n\n.. stage-timeline::\n\n.. stage-cards::\n\n"
        ".. toctree::\n   :glob:\n\n   book/pretraining/second\n   book/*/*\n"
    ),
    "book/pretraining/first": "First & best\n============\n\nText.\n",
    "book/pretraining/second": "Second\n======\n\nText.\n",
    "book/start/setup": "Setup\n=====\n\nText.\n",
}


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., str]:
    for name, text in PAGES.items():
        path = tmp_path / "source" / f"{name}.rst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def run(stages: Path | None = None, builder: str = "html") -> str:
        warnings = io.StringIO()
        overrides = {"extensions": ["book._ext.site.timeline"], "html_theme": "basic"}
        if stages:
            overrides["stages_file"] = str(stages)
        with docutils_namespace():
            app = Sphinx(
                str(tmp_path / "source"), None, str(tmp_path / builder),
                str(tmp_path / "trees"), builder,
                confoverrides=overrides, status=None, warning=warnings,
            )  # fmt: skip
            app.build()
        assert warnings.getvalue() == ""
        suffix = "html" if builder == "html" else "txt"
        return (tmp_path / builder / f"index.{suffix}").read_text()

    return run


def card(page: str, number: int) -> str:
    return re.split(r'<li class="pt-card ', page)[number + 1]


def test_a_written_stage_links_to_its_chapters_in_order(build: Callable[..., str]) -> None:
    written = card(build(), 0)
    assert written.startswith('pt-card-written"')
    assert "<span>Stage 0</span>" in written and ">written</span>" in written
    links = re.findall(r'href="(.*?)">(.*?)</a>', written)
    second, first = "book/pretraining/second.html", "book/pretraining/first.html"
    assert links == [(second, "Pre-training"), (second, "Second"), (first, "First &amp; best")]
    assert "Week 1 (1 week)" in written and "CPU · free\u00a0T4" in written


def test_a_planned_stage_links_nowhere(build: Callable[..., str]) -> None:
    planned = card(build(), 3)
    assert planned.startswith('pt-card-planned"') and ">planned</span>" in planned
    assert "<a " not in planned and "Weeks 6–8 (3 weeks)" in planned


def test_a_stage_is_written_as_soon_as_the_contents_name_a_page(
    build: Callable[..., str], tmp_path: Path
) -> None:
    assert card(build(), 2).startswith("pt-card-planned")
    page = tmp_path / "source/book/dpo/loss.rst"
    page.parent.mkdir()
    page.write_text("The loss\n========\n\nText.\n")
    now = build()
    assert card(now, 2).startswith("pt-card-written")
    assert "Stage 2, Preference alignment, written" in now


def test_the_timeline_has_two_layouts_and_says_what_it_shows(
    build: Callable[..., str],
) -> None:
    page, stages = build(), book_stages.read_stages(STAGES)
    drawings = re.findall(r"<svg .*?</svg>", page)
    assert [re.search(r"pt-timeline-\w+", svg)[0] for svg in drawings] == [  # type: ignore[index]
        "pt-timeline-wide",
        "pt-timeline-narrow",
    ]
    for svg in drawings:
        label = re.search(r'role="img" aria-label="(.*?)"', svg)
        weeks = stages[-1].weeks[1]
        assert label and label[1].startswith(f"A timeline of {weeks} weeks. Week 1: Stage 0")
        assert "Weeks 11–12: Stage 5, Evaluation and red-teaming, planned" in label[1]
        assert svg.count('class="pt-tl-written"') == 1
        assert svg.count('class="pt-tl-planned"') == len(stages) - 1
        assert not re.search(r"#[0-9a-f]{3}|rgb|fill=|style=", svg), "colors are the theme's"


def test_other_builders_show_the_cards(build: Callable[..., str]) -> None:
    text = build(builder="text")
    assert "Supervised fine-tuning" in text and "<svg" not in text


def boxes(svg: str) -> Iterator[tuple[float, float, str, str]]:
    """Left, right, class and words of each text, for a wide font."""
    pattern = r'<text class="([\w-]+)" x="(.*?)" y=".*?" text-anchor="(\w+)">(.*?)</text>'
    for look, x, anchor, words in re.findall(pattern, svg):
        size = 15 * 0.62 if look in ("pt-tl-title", "pt-tl-number") else 13 * 0.6
        width = size * len(words)
        left = float(x) - width * {"start": 0, "middle": 0.5, "end": 1}[anchor]
        yield left, left + width, look, words


@pytest.mark.parametrize(("layout", "width"), [("wide", 760), ("narrow", 340)])
def test_no_words_leave_the_picture(layout: str, width: int) -> None:
    stages = book_stages.read_stages(STAGES)
    for written in ((), [stage.folder for stage in stages]):
        svg = getattr(timeline_svg, layout)(stages, written)
        for left, right, look, words in boxes(svg):
            assert left >= -1 and right <= width + 1, words
            if layout == "wide" and look == "pt-tl-title":
                assert right < 270, f"{words}: in the columns of the weeks"


ENTRY = {"folder": "a", "title": "A", "weeks": [1, 1], "outcome": "a", "compute": ["CPU"]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weeks": [2, 3]}, "entry 0: it begins in week 2: week 1 comes next"),
        ({"weeks": [3, 2]}, "its weeks are [3, 2]"),
        ({"weeks": 1}, "its weeks are 1"),
        ({"title": " "}, "it has an empty title"),
        ({"compute": "CPU"}, "its compute is 'CPU'"),
        ({"state": "written"}, "it has compute, folder, outcome, state, title, weeks: give"),
    ],
)
def test_a_wrong_entry_is_named(
    tmp_path: Path,
    change: dict[str, object],
    message: str,
) -> None:
    file = tmp_path / "stages.yml"
    file.write_text(yaml.safe_dump([ENTRY | change]))
    with pytest.raises(ValueError, match=re.escape(message)):
        book_stages.read_stages(file)


def test_no_stages_at_all(tmp_path: Path) -> None:
    file = tmp_path / "stages.yml"
    file.write_text("")
    with pytest.raises(ValueError, match="holds no stages"):
        book_stages.read_stages(file)


def test_a_wrong_list_stops_the_build(build: Callable[..., str], tmp_path: Path) -> None:
    file = tmp_path / "stages.yml"
    file.write_text("- 3\n")
    with pytest.raises(ConfigError, match="entry 0: it has 3: give compute, folder"):
        build(stages=file)


def test_the_scoreboard_has_the_stages_of_the_list_and_two_rooms_more() -> None:
    stages = book_stages.read_stages(STAGES)
    titles = list(goals_html.STAGES.items())
    assert titles[: len(stages)] == [(stage.folder, stage.heading) for stage in stages]
    assert titles[len(stages) :] == [("infra", "Infrastructure"), ("site", "The site itself")]


def test_what_is_a_chapter() -> None:
    is_chapter = book_stages.is_chapter
    assert is_chapter("book/sft/lora") and is_chapter("book/infra/serving")
    others = ("book/index", "book/start/setup", "book/api/core", "sft/lora", "book/sft/x/y")
    assert not any(map(is_chapter, others))


def test_the_first_page_uses_the_list() -> None:
    index = (ROOT / "book/index.md").read_text(encoding="utf-8")
    for directive in ("stage-cards", "stage-timeline", "goal-totals"):
        assert f"```{{{directive}}}\n```" in index
