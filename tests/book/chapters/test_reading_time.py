"""The line under a chapter's title: how long it takes to read and to run."""

import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("sphinx")
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext.chapters import reading_time

ROOT = Path(__file__).parents[3]


def paragraph(text: str, **attributes: object) -> nodes.container:
    return nodes.container("", nodes.paragraph("", text), **attributes)


@pytest.mark.parametrize(
    ("node", "amount"),
    [
        (paragraph("Two words."), (2, 0)),
        (paragraph("It's low-rank, 1,000 times: 50 %."), (5, 0)),
        (paragraph("one two", classes=["dropdown"]), (0, 0)),
        (paragraph("one two", classes=["cell_output"]), (0, 0)),
        (paragraph("one two", classes=["cell", "tag_hide-input"]), (0, 0)),
        (paragraph("one two", classes=["note"]), (2, 0)),
        (nodes.literal_block("", "x = 1\n\ny = 2\n"), (0, 2)),
        (nodes.math_block("", "a \\\\\nb"), (0, 2)),
        (nodes.paragraph("", "", nodes.Text("let "), nodes.math("", "a + b")), (2, 0)),
        (nodes.comment("", "one two"), (0, 0)),
        (nodes.raw("", "<b>one two</b>", format="html"), (0, 0)),
        (nodes.section("", nodes.title("", "A title"), paragraph("one")), (3, 0)),
    ],
)
def test_what_there_is_to_read(node: nodes.Element, amount: tuple[int, int]) -> None:
    assert reading_time.amount(node) == amount


def test_minutes() -> None:
    minutes = reading_time.reading_minutes
    assert (minutes(0, 0), minutes(1000, 0), minutes(0, 200), minutes(900, 90)) == (1, 5, 10, 9)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (58.4, "58 s"), (99.6, "100 s"), (294, "5 min")]
)
def test_running_time_in_words(seconds: float, text: str) -> None:
    assert reading_time.running_text(seconds) == text


def glue(folder: Path, docname: str, value: str) -> None:
    file = folder / f"{docname}.glue.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    output = {"output_type": "display_data", "data": {"text/plain": value}}
    file.write_text(json.dumps({"page-seconds": output, "loss": output}))


@pytest.mark.parametrize("value", ["nan", "-1", "inf", "soon"])
def test_no_time_is_better_than_a_wrong_one(tmp_path: Path, value: str) -> None:
    assert reading_time.running_seconds(tmp_path, "book/sft/lora") is None
    glue(tmp_path, "book/sft/lora", value)
    assert reading_time.running_seconds(tmp_path, "book/sft/lora") is None


def build(folder: Path) -> dict[str, str]:
    """Build two chapters and a page of another kind; the second chapter has a running time."""
    words = "word " * 600
    pages = {
        "index": "Start\n=====\n\n.. toctree::\n   :glob:\n\n   book/*/*\n",
        "book/sft/lora": f"LoRA\n====\n\n{words}\n\nMore\n----\n\nText.\n",
        "book/sft/qlora": "QLoRA\n=====\n\nText.\n",
        "book/start/setup": "Setup\n=====\n\nText.\n",
    }
    for name, text in pages.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.rst").write_text(text)
    glue(folder / "jupyter_execute", "book/sft/qlora", "17.09")
    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            str(folder), None, str(folder / "html"), str(folder / "trees"), "html",
            confoverrides={"extensions": [reading_time.__name__], "html_theme": "basic"},
            status=None, warning=warnings,
        )  # fmt: skip
        where = SimpleNamespace(output_folder=str(folder / "jupyter_execute"))
        app.env.mystnb_config = where  # type: ignore[attr-defined]
        app.build()
    assert warnings.getvalue() == ""
    return {name: (folder / "html" / f"{name}.html").read_text() for name in pages}


def test_the_line_stands_under_the_title(tmp_path: Path) -> None:
    pages = build(tmp_path)
    lines = {n: re.findall(r'<p class="pt-times">(.*?)</p>', text) for n, text in pages.items()}
    assert lines == {
        "index": [],
        "book/sft/lora": ["<span>3 min to read</span>"],
        "book/sft/qlora": [
            "<span>1 min to read</span> · <span>17 s to run in this build</span>"
        ],
        "book/start/setup": [],
    }
    assert re.search(r"</h1>\s*<p class=\"pt-times\">", pages["book/sft/lora"])


def test_the_rule_is_explained() -> None:
    page = (ROOT / "book/start/how_this_book_works.md").read_text(encoding="utf-8")
    words, lines = reading_time.WORDS_PER_MINUTE, reading_time.LINES_PER_MINUTE
    assert f"{words} words or {lines} lines" in " ".join(page.split())
