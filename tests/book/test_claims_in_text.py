"""Sentences and cells agree on claims, and no cell insists on a measured result."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from book._ext.chapters.myst import read

ROOT = Path(__file__).resolve().parents[2]
CHAPTERS = [
    chapter["file"]
    for part in yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))["parts"]
    for chapter in part["chapters"]
    if (ROOT / "code" / "posttrain" / chapter["file"].split("/")[1]).is_dir()
]
ROLE = re.compile(r"\{claim\}`([^`]+)`")
ROUNDING = 1e-3


def cells_of(text: str) -> list[ast.Module]:
    """Parse a page's code cells."""
    return [ast.parse(cell.python) for cell in read(text).cells]


def claimed(text: str) -> list[str]:
    """Return the ids that a page's cells register; an id must be typed as it is."""
    ids = []
    for cell in cells_of(text):
        for node in ast.walk(cell):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "claim":
                sentence = node.args[0]
                assert isinstance(sentence, ast.Constant), "type the id of a claim as a string"
                ids.append(str(sentence.value))
    return ids


def named(text: str) -> set[str]:
    """Return the claims that a page's sentences and captions name; goals have a dot."""
    prose = "\n".join(read(text).prose.values())
    return {name for name in ROLE.findall(prose) if "." not in name}


def insisting(text: str) -> list[str]:
    """Return the assertions that compare by size with anything but a tolerance of rounding."""
    found = []
    for cell in cells_of(text):
        for node in ast.walk(cell):
            if isinstance(node, ast.Assert):
                for compare in ast.walk(node.test):
                    if isinstance(compare, ast.Compare) and not _exact(compare):
                        found.append(ast.unparse(node))
                        break
    return found


def _exact(compare: ast.Compare) -> bool:
    by_size = [
        value
        for op, value in zip(compare.ops, compare.comparators, strict=True)
        if isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE)
    ]
    return all(
        isinstance(value, ast.Constant)
        and isinstance(value.value, float)
        and abs(value.value) <= ROUNDING
        for value in by_size
    )


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_each_claim_has_its_sentence_and_each_sentence_its_claim(chapter: str) -> None:
    text = (ROOT / f"{chapter}.md").read_text(encoding="utf-8")
    ids = claimed(text)
    assert len(ids) == len(set(ids)), "a claim is registered twice"
    assert set(ids) == named(text)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_no_cell_insists_on_a_measured_result(chapter: str) -> None:
    text = (ROOT / f"{chapter}.md").read_text(encoding="utf-8")
    assert not insisting(text), "make it a goal, a claim, a reading, or a test in tests/"


PAGE = """# Page

```{{code-cell}} ipython3
:tags: [hide-input]
{code}
```
{prose}
"""


def test_a_claim_without_its_sentence_is_found() -> None:
    page = PAGE.format(code='claim("halves", "ratio", 0.4, "<", 0.5)', prose="Text.")
    assert claimed(page) == ["halves"] and named(page) == set()
    page = PAGE.format(code="x = 1", prose="It halves. {claim}`halves` {claim}`sft.goal`")
    assert claimed(page) == [] and named(page) == {"halves"}


def test_a_claim_in_a_caption_is_found_and_one_in_an_example_is_not() -> None:
    caption = "```{glue:figure} fig\n:name: fig\nIt halves. {claim}`halves`\n```"
    example = "```md\nIt halves. {claim}`quoted`\n```"
    assert named(PAGE.format(code="x = 1", prose=f"{caption}\n{example}")) == {"halves"}


@pytest.mark.parametrize(
    ("code", "insists"),
    [
        ("assert a < b", True),
        ("assert 0 < cost.value", True),
        ("assert gap > 0.05 and equal(a, b)", True),
        ("assert error < 1e-4", False),
        ("assert abs(total / n - 0.4) < 1e-5", False),
        ("assert grade.passed", False),
        ("assert size == 2 * L", False),
        ("assert all(x > 0 for x in rows)", True),
    ],
)
def test_insisting_on_a_result_is_found(code: str, insists: bool) -> None:
    assert bool(insisting(PAGE.format(code=code, prose=""))) is insists
