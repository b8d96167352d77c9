"""The Sphinx extensions in book/_ext, and the settings of the site that they rely on.

Small books are built with plain Sphinx. A hook that checks goals when a chapter's source is
read stands for the kernel that executes it.
"""

import io
import json
import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from posttrain.core.claims import Claims
from posttrain.core.goals import Goal, check_goals

pytest.importorskip("sphinx")
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext.theme import unrepeated_scripts

ROOT = Path(__file__).parents[3]
PAGES = {
    "index": (
        "Start\n=====\n\n.. goal-totals::\n\n"
        ".. toctree::\n   :glob:\n\n   book/*\n   book/*/*\n"
    ),
    "book/scoreboard": "Scoreboard\n==========\n\n.. scoreboard::\n",
    "book/pretraining/attention": "Attention\n=========\n\nText.\n",
    "book/sft/lora": "LoRA\n====\n\nText.\n",
}
LOSS = Goal(
    "pretraining.val_loss", "validation loss, nats", 1.5, 1.75, "<=", n=3, ci=(1.4, 1.6)
)
EQUAL = Goal("pretraining.equal", "text with cache & without", True, True, "==")
FORMAT = Goal("sft.format", "answers in the format", 0.97, 0.9, ">")


class Book:
    """A small book whose chapters claim goals."""

    def __init__(self, folder: Path) -> None:
        self.source, self.out = folder / "source", folder / "html"
        self.doctrees = folder / "doctrees"
        self.goals: dict[str, list[Goal]] = {}
        self.claims: dict[str, list[tuple[Any, ...]]] = {}
        for name, text in PAGES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.source / f"{name}.rst"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self, *, fresh: bool = False) -> str:
        warnings = io.StringIO()
        with docutils_namespace():
            app = Sphinx(
                str(self.source),
                None,
                str(self.out),
                str(self.doctrees),
                "html",
                confoverrides={
                    "extensions": ["book._ext.chapters.goals"],
                    "html_theme": "basic",
                },
                status=None,
                warning=warnings,
                freshenv=fresh,
            )
            app.connect("source-read", self.execute)
            app.build()
        return warnings.getvalue()

    def execute(self, app: Sphinx, docname: str, source: list[str]) -> None:
        if docname in self.goals:
            check_goals(self.goals[docname], chapter=docname.removeprefix("book/"))
        for claim in self.claims.get(docname, []):
            Claims(docname.removeprefix("book/"))(*claim)

    def page(self, name: str) -> str:
        return (self.out / f"{name}.html").read_text().replace("\u00a0", " ")

    def rows(self) -> list[dict[str, Any]]:
        return json.loads((self.out / "goals.json").read_text())


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    monkeypatch.setenv("POSTTRAIN_GOALS", "somewhere else")
    book = Book(tmp_path)
    book.goals = {"book/pretraining/attention": [LOSS, EQUAL], "book/sft/lora": [FORMAT]}
    return book


def test_pages_show_the_goals_of_chapters_read_after_them(book: Book) -> None:
    assert book.build() == ""
    assert "<strong>3 of 3 goals met</strong> in 2 chapters" in book.page("index")
    assert 'href="book/scoreboard.html">scoreboard</a>' in book.page("index")
    board = book.page("book/scoreboard")
    assert board.index("Stage 0 · Pre-training") < board.index("Stage 1 · Supervised")
    assert (
        '<a class="reference internal" href="pretraining/attention.html">Attention</a>' in board
    )
    assert "1.5 [1.4, 1.6], n = 3" in board and "≤ 1.75" in board
    assert '<span class="pt-met">✓ met</span>' in board and "cache &amp; without" in board
    assert "No goals in this build: Stage 2 · Preference alignment;" in board
    assert 'href="../goals.json"' in board


def test_rows_are_published(book: Book) -> None:
    book.build()
    assert [row["id"] for row in book.rows()] == [LOSS.id, EQUAL.id, FORMAT.id]
    assert book.rows()[0] == LOSS.row("pretraining/attention", "cpu")


def test_kernels_are_given_the_folder_of_the_build(book: Book) -> None:
    book.build()
    folder = Path(os.environ["POSTTRAIN_GOALS"])
    assert folder == book.doctrees / "goals"
    assert sorted(path.name for path in folder.iterdir()) == [
        "pretraining__attention.json",
        "sft__lora.json",
    ]


def test_a_fresh_build_knows_no_old_rows(book: Book) -> None:
    book.build()
    book.goals = {"book/sft/lora": [FORMAT]}
    book.build(fresh=True)
    assert [row["id"] for row in book.rows()] == [FORMAT.id]


def test_a_second_build_keeps_what_it_does_not_read_and_renews_the_rest(book: Book) -> None:
    book.build()
    book.goals["book/sft/lora"] = [Goal("sft.format", "answers in the format", 0.91, 0.9, ">")]
    book.write("book/sft/lora", PAGES["book/sft/lora"] + "\nMore text.\n")
    book.build()
    assert [row["value"] for row in book.rows()] == [1.5, True, 0.91]
    assert "0.91" in book.page("book/scoreboard")  # its own source did not change


def test_rows_go_with_their_chapter(book: Book) -> None:
    book.build()
    (book.source / "book/sft/lora.rst").unlink()
    book.build()
    assert [row["stage"] for row in book.rows()] == ["pretraining", "pretraining"]
    assert "2 of 2 goals met</strong> in 1 chapter." in book.page("index")


def test_a_book_without_goals(book: Book) -> None:
    book.goals = {}
    assert book.build() == ""
    assert "This build checked no goals." in book.page("index")
    assert "This build checked no goals." in book.page("book/scoreboard")
    assert book.rows() == []


def test_a_missed_goal_and_a_broken_claim_leave_a_complete_site(book: Book) -> None:
    book.goals["book/sft/lora"] = [Goal("sft.format", "answers in the format", 0.8, 0.9, ">")]
    book.claims["book/sft/lora"] = [
        ("halves", "ratio of bytes", 0.75, "<", 0.5),
        ("same", "texts are equal", True),
    ]
    text = "\nIt halves. :claim:`halves` Equal. :claim:`same` Formed. :claim:`sft.format`\n"
    book.write("book/sft/lora", PAGES["book/sft/lora"] + text)
    assert book.build() == ""
    assert [row["passed"] for row in book.rows()] == [True, True, False, False, True]
    page = book.page("book/sft/lora")
    assert (
        'It halves. <span id="claim-halves" class="pt-claim"><strong class="pt-broken">✗ Not '
        "on this machine: ratio of bytes: measured 0.75; the text needs &lt; 0.5.</strong>"
    ) in page
    assert 'Equal. <span id="claim-same" class="pt-claim"></span> Formed.' in page
    assert "answers in the format: measured 0.8; the text needs &gt; 0.9." in page
    board = book.page("book/scoreboard")
    assert (
        "claims of the text: 1 of 2 hold" in board
        and '<details class="pt-claims" open>' in board
    )
    assert 'href="sft/lora.html#claim-halves"' in board and "✗ does not hold" in board
    assert "✗ not met" in board
    assert (
        "<strong>2 of 3 goals met</strong> in 2 chapters; 1 of 2 claims of the text hold"
        in (book.page("index"))
    )


def test_a_mark_that_is_not_seen_leaves_no_gap_before_a_comma(book: Book) -> None:
    book.claims["book/sft/lora"] = [("halves", "ratio", 0.4, "<", 0.5), ("same", "same", True)]
    text = "\nIt halves (half :claim:`halves`), more :claim:`same` or less.\n"
    book.write("book/sft/lora", PAGES["book/sft/lora"] + text)
    assert book.build() == ""
    page = re.sub("<span[^>]*></span>", "", book.page("book/sft/lora"))
    assert "It halves (half), more  or less." in page


def test_claims_that_hold_are_folded_and_unseen_in_the_text(book: Book) -> None:
    book.claims["book/sft/lora"] = [("halves", "ratio of bytes", 0.4, "<", 0.5)]
    book.write("book/sft/lora", PAGES["book/sft/lora"] + "\nIt halves. :claim:`halves`\n")
    assert book.build() == ""
    assert "Not on this machine" not in book.page("book/sft/lora")
    assert '<details class="pt-claims"><summary>Stage 1' in book.page("book/scoreboard")


def test_a_broken_claim_is_marked_in_a_caption_and_in_a_table(book: Book) -> None:
    book.claims["book/sft/lora"] = [
        ("halves", "ratio of bytes", 0.6, "<", 0.5),
        ("costs", "added loss, nats", 0.1, ">", 1),
    ]
    (book.source / "book/sft/bars.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    text = "\n.. figure:: bars.svg\n   :name: bars\n\n   It halves. :claim:`halves` One run.\n"
    text += "\n====== ========================\nfault  loss too high :claim:`costs`\n"
    text += "====== ========================\n"
    book.write("book/sft/lora", PAGES["book/sft/lora"] + text)
    assert book.build() == ""
    page = book.page("book/sft/lora")
    caption = page[page.index("<figcaption") : page.index("</figcaption>")]
    assert '<span id="claim-halves" class="pt-claim"><strong class="pt-broken">' in caption
    cell = page[page.index("loss too high") :]
    assert cell.index('<span id="claim-costs"') < cell.index("</td>")


def test_a_sentence_whose_claim_no_cell_checks_is_a_warning(book: Book) -> None:
    book.write("book/sft/lora", PAGES["book/sft/lora"] + "\nIt halves. :claim:`halves`\n")
    warnings = book.build()
    assert "no cell of this page checked the claim sft.lora.halves" in warnings
    assert "lora.rst:6" in warnings


def test_a_page_that_was_not_executed_has_no_marks(book: Book) -> None:
    book.goals = {}
    book.write("book/sft/lora", PAGES["book/sft/lora"] + "\nIt halves. :claim:`halves`\n")
    assert book.build() == ""
    assert "claim-halves" not in book.page("book/sft/lora")


def test_a_missed_aim_shows_what_was_tried(book: Book) -> None:
    tried = ("A larger rank.", "A longer run.", "More <data>.")
    goal = Goal("sft.format", "answers in the format", 0.8, 0.9, ">", attempts=tried)
    book.goals["book/sft/lora"] = [goal]
    book.build()
    board = book.page("book/scoreboard")
    assert "✗ missed aim" in board and "<p>Tried: More &lt;data&gt;.</p>" in board


def test_unknown_stages_and_other_presets_are_shown(book: Book) -> None:
    odd = Goal("appendix.count", "things", 3, 2, ">")
    book.goals = {}
    book.build()
    folder = Path(os.environ["POSTTRAIN_GOALS"])
    check_goals([odd], chapter="appendix/gone", preset="t4")
    assert (folder / "appendix__gone.json").exists()
    book.write("index", PAGES["index"] + "\nMore.\n")
    book.build()
    board = book.page("book/scoreboard")
    assert "appendix" in board and "3 (t4)" in board and "appendix/gone" in board


def test_each_script_stays_once() -> None:
    def script(filename: str | None, **attributes: str) -> SimpleNamespace:
        return SimpleNamespace(filename=filename, attributes=attributes)

    one, two = script("a.js"), script("a.js", defer="defer")
    body, again = script("", body="const A = 1"), script(None, body="const A = 1")
    context = {"script_files": [one, body, two, again, script("a.js"), "plain.js"]}
    unrepeated_scripts.keep_first(None, "p", "t", context, None)
    assert context["script_files"] == [one, body, two, "plain.js"]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "_config.yml").read_text())


def test_a_page_that_fails_leaves_a_site(config: dict[str, Any]) -> None:
    execute = config["execute"]
    assert execute["execute_notebooks"] == "cache" and execute["raise_on_error"] is False
    assert "book._ext.chapters.page_keys" in config["sphinx"]["local_extensions"]
    assert not execute.get("allow_errors") and not execute.get("exclude_patterns")


def test_the_site_finds_its_files(config: dict[str, Any]) -> None:
    sphinx = config["sphinx"]
    for name, folder in sphinx["local_extensions"].items():
        assert (ROOT / folder / f"{name.replace('.', '/')}.py").is_file()
    (static,) = sphinx["config"]["html_static_path"]
    for file in sphinx["config"]["html_css_files"]:
        assert (ROOT / static / file).is_file()
    for file in (config["logo"], config["html"]["favicon"], *config["bibtex_bibfiles"]):
        assert (ROOT / file).is_file()
