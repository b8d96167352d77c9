"""book/_static/search_scorer.js, which replaces all of Sphinx's own ranking."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

sphinx = pytest.importorskip("sphinx")
ROOT = Path(__file__).resolve().parents[2]
OWN = (ROOT / "book" / "_static" / "search_scorer.js").read_text(encoding="utf-8")
KEY = re.compile(r"^\s+(\w+):", re.MULTILINE)

# What Sphinx gives the scorer, beside what the browser knows.
STAGE = """
const [asked, results] = JSON.parse(process.argv[1]);
global.location = { search: "?q=" + encodeURIComponent(asked) };
global.Search = { _index: {
  docnames: ["book/sft/lora", "book/sft/qlora", "book/api/sft", "book/glossary"],
  alltitles: {
    LoRA: [[0, null]], "Merging": [[0, "merging"]], "Merge, or not": [[0, "or"], [1, "or"]],
    QLoRA: [[1, null]], "sft.lora_merge": [[2, "sft-lora-merge"]], Glossary: [[3, null]],
  },
} };
console.log(JSON.stringify(results.map((result) => Scorer.score(result))));
"""
LORA = ["book/sft/lora", "LoRA", "", None, 5, "lora.md"]
QLORA = ["book/sft/qlora", "QLoRA", "", None, 5, "qlora.md"]
PAGE = ["book/api/sft", "Fine-tuning", "", None, 5, "sft.md"]
GLOSSARY = ["book/glossary", "Glossary", "", None, 5, "glossary.md"]
SYMBOL = ["book/api/sft", "sft.lora.merge", "#x", "Python function, in Fine-tuning", 11, ""]
MODULE = ["book/api/sft", "sft.merge", "#x", "Python module, in Fine-tuning", 11, ""]


def scores(asked: str, *results: list[object]) -> list[float]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node, which runs the scorer, is not installed")
    run = subprocess.run(
        [node, "-e", OWN + STAGE, json.dumps([asked, results])],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: list[float] = json.loads(run.stdout)
    return found


def test_every_setting_of_sphinx_has_a_value() -> None:
    file = Path(sphinx.__file__).parent / "themes" / "basic" / "static" / "searchtools.js"
    theirs = re.search(r"var Scorer = \{(.*?)\n  \};", file.read_text("utf-8"), re.DOTALL)
    assert theirs is not None
    wanted = {key for key in KEY.findall(theirs[1]) if not key.isdigit()}
    assert wanted == set(KEY.findall(OWN)) - {"headings"}


def test_the_site_uses_it() -> None:
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    assert "html_search_scorer: book/_static/search_scorer.js" in config


def test_the_pages_that_are_ranked_lower_exist() -> None:
    (folder,) = re.findall(r'startsWith\("(book/\w+/)"\)', OWN)
    assert list((ROOT / folder).glob("*.md"))
    pages = re.findall(r'docname === "(book/\w+)"', OWN)
    assert len(pages) == 2
    assert all((ROOT / f"{page}.md").is_file() for page in pages)


def test_a_chapter_comes_before_a_symbol_a_module_and_the_pages_that_repeat_it() -> None:
    lora, symbol, module, api, glossary = scores("merge", LORA, SYMBOL, MODULE, PAGE, GLOSSARY)
    assert lora < symbol  # an ordinary word, and the function has just that name
    assert lora > api > module and api > glossary
    title = [*LORA[:4], 15, LORA[5]]
    assert scores("merge", title)[0] > symbol  # a word of the chapter's headings


def test_headings_that_begin_with_what_was_asked_count() -> None:
    lora, qlora = scores("merg", LORA, QLORA)
    assert (lora, qlora) == (11, 8)  # two headings, one heading
    assert scores("lora", LORA, QLORA) == [8, 5]  # not the end of QLoRA


def test_the_glossary_comes_first_when_it_is_asked_for() -> None:
    lora, glossary = scores("Glossary", LORA, GLOSSARY)
    assert glossary > lora
    assert scores("loss", GLOSSARY)[0] < 1  # no word of its title


@pytest.mark.parametrize("asked", ["C++ (x", "a\\", "[", ""])
def test_signs_in_what_was_asked_are_no_pattern(asked: str) -> None:
    assert scores(asked, LORA) == [5]
