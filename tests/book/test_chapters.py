"""What holds for each chapter: its parts and their order, and no typed results."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from book._ext.chapters.myst import Block, Page, read

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
PACKAGE = ROOT / "code" / "posttrain"


def contents() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    return [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]


# A stage's folder lies in book/ and in the package.
CHAPTERS = [name for name in contents() if (PACKAGE / name.split("/")[1]).is_dir()]


@pytest.fixture(params=CHAPTERS)
def path(request: pytest.FixtureRequest) -> Path:
    file = (ROOT / request.param).with_suffix(".md")
    if not file.is_file():
        pytest.skip(f"{request.param} is not written yet")
    return file


# --- the parts of a chapter ---


def goals_list(page: Page) -> tuple[int, int]:
    """Line and length of the first list of the page; (0, 0) without one."""
    start = items = 0
    for number, line in page.prose.items():
        if re.match(r"(?:[-*+]|\d+[.)])\s+\S", line):
            start, items = start or number, items + 1
        elif start and line.strip() and not line.startswith(" "):
            break
    return start, items


def cost_box(page: Page) -> Block | None:
    for block in page.named("admonition", "note", "card", "dropdown"):
        text = "\n".join([block.argument, *block.body]).lower()
        wanted = (r"\bpredicted\b", r"\bmeasured\b", r"\btime\b|seconds|minutes", r"\bmemory\b")
        if all(re.search(word, text) for word in wanted):
            return block
    return None


def shown_cells(page: Page) -> list[Block]:
    return [cell for cell in page.cells if "remove-cell" not in cell.tags]


def exercises(page: Page) -> list[Block]:
    return page.named("exercise", "exercise-start")


def problems_of_exercises(page: Page) -> Iterator[str]:
    """An exercise wants a folded solution that runs."""
    solutions = {block.argument.strip(): block for block in page.named("solution-start")}
    ends = sorted(block.start for block in page.named("solution-end"))
    for exercise in exercises(page):
        label = exercise.options.get("label", "")
        solution = solutions.get(label)
        if not label or solution is None:
            yield f"line {exercise.start}: the exercise {label!r} has no solution-start"
            continue
        end = next((line for line in ends if line > solution.start), 0)
        cells = [c for c in page.cells if solution.start < c.start < end]
        if not cells:
            yield f"line {solution.start}: the solution of {label} runs no cell"
        if solution.options.get("class") != "dropdown":
            yield f"line {solution.start}: the solution of {label} is not folded"


def problems(text: str, chapter: str) -> list[str]:
    """What a chapter's parts lack, and whether they stand in the order of the design."""
    page, found = read(text), []
    list_at, items = goals_list(page)
    if not 3 <= items <= 5:
        found.append(f"the first list is the goals: 3 to 5 items, here {items}")
    box = cost_box(page)
    if box is None:
        found.append("no box with predicted and measured time and memory")
    elif not any("{glue" in line for line in box.body):
        found.append("nothing measured is glued into the box")
    found += problems_of_exercises(page)
    if not exercises(page):
        found.append("no exercise")
    cells = shown_cells(page)
    last = cells[-1].python if cells else ""
    calls = [
        node
        for node in ast.walk(ast.parse(last))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check_goals"
    ]
    if not calls:
        found.append("the last cell that is shown does not call check_goals")
    elif f"chapter='{chapter}'" not in {ast.unparse(keyword) for keyword in calls[0].keywords}:
        found.append(f"check_goals wants chapter={chapter!r}")
    reading = [n for n, line in page.prose.items() if re.match(r"## .*\breading\b", line, re.I)]
    if not reading:
        found.append("no section whose heading has the word Reading")
    elif not any("{cite" in line for n, line in page.prose.items() if n > reading[-1]):
        found.append("the reading cites nothing")
    order = {
        "goals": list_at,
        "box": box.start if box else 0,
        "exercises": exercises(page)[0].start if exercises(page) else 0,
        "check_goals": cells[-1].start if calls else 0,
        "reading": reading[-1] if reading else 0,
    }
    present = [name for name, line in order.items() if line]
    if present != sorted(present, key=order.__getitem__):
        found.append(f"the parts stand out of order: {order}")
    return found


def test_parts_and_their_order(path: Path):
    chapter = path.relative_to(BOOK).with_suffix("").as_posix()
    found = problems(path.read_text(encoding="utf-8"), chapter)
    assert not found, f"{path.name}:\n" + "\n".join(found)


# --- no typed results ---

UNIT = (
    r"(?:%|percent\b|[×x](?!\s*\d)(?!\w)|times (?:as|faster|slower|more|less|larger|smaller)\b"
    r"|tok/s|tokens?/s|tokens (?:a|per) second|[kKMGT]i?B\b|[GT]?FLOPS?\b|GFLOP/s"
    r"|ms\b|s\b|seconds?\b|minutes?\b|hours?\b)"
)
TYPED = re.compile(rf"(?<![\w.#])\d[\d.,]*[\s\u00a0\u202f]*{UNIT}")
CONFIDENCE = re.compile(
    r"\b9\d(?:\.\d)?[\s\u00a0]*% (?:\w+ )?(?:confidence|intervals?|bands?)\b"
)
GIVEN = re.compile(r"<!--\s*given:\s*\S.*?-->")
NO_PROSE = re.compile(r"<!--.*?-->|\{[\w:-]+\}`[^`]*`|`[^`]*`|\$[^$]*\$|\]\([^)]*\)")


def typed_results(text: str) -> list[str]:
    """Numbers with a unit that stand in the prose without coming from a cell.

    A line may say ``<!-- given: reason -->``: the number is a choice, a definition or an
    estimate made before the run. The box's column of predictions is such without saying so,
    and so is the level of an interval.
    """
    page = read(text)
    box = cost_box(page)
    found = []
    for number, line in page.prose.items():
        if GIVEN.search(line):
            continue
        if box and box.start < number < box.end and line.lstrip().startswith("|"):
            cells = line.strip().strip("|").split("|")
            line = " | ".join(cells[:1] + cells[2:])
        line = CONFIDENCE.sub("", NO_PROSE.sub("…", line))
        found += [f"line {number}: {match[0]}" for match in TYPED.finditer(line)]
    return found


def test_no_result_is_typed(path: Path):
    found = typed_results(path.read_text(encoding="utf-8"))
    assert not found, (
        f"{path.name}: glue these, or end the line with <!-- given: reason -->:\n"
        + "\n".join(found)
    )


# --- the checks themselves ---

GOOD = """---
kernelspec: {name: python3}
---
# Title

How fast is 3 x 4? Read:

1. one;
2. two, which goes on
   in a second line;
3. three.

```{code-cell}
:tags: [remove-cell]
clock = 7  # 12 % of 40 MB
```

```{admonition} Cost of this page
| | predicted | measured |
|---|---|---|
| time | 30 s | {glue:text}`seconds` s |
| memory | 1.5 GiB | {glue:text}`memory` GiB |
```

Accuracy is {glue:text}`accuracy` % (95 % interval {glue:text}`low`). Write `5 MB` or $5 %$.
The cache is 40 MB. <!-- given: a setting -->

```{math}
99 % = 1
```

````{exercise-start} Three
:label: ex-three
````
- What is three?
```{exercise-end}
```
```{solution-start} ex-three
:class: dropdown
```
```{code-cell}
3
```
```{solution-end}
```

```{code-cell}
:tags: [hide-input]
check_goals([], chapter="stage/page")
```
```{code-cell}
:tags: [remove-cell]
glue("seconds", 1)
```

## Further reading

- {cite:t}`someone` says so.
"""


def test_a_good_page_passes():
    assert problems(GOOD, "stage/page") == []
    assert typed_results(GOOD) == []


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("2. two, which goes on\n   in a second line;\n", "", "3 to 5 items, here 2"),
        ("| memory | 1.5 GiB | {glue:text}`memory` GiB |\n", "", "no box with predicted"),
        ("{glue:text}`seconds` s |", "a while |", None),
        ("- {cite:t}`someone` says so.", "Nothing.", "the reading cites nothing"),
        ("## Further reading", "## Sources", "no section whose heading has the word Reading"),
        ("check_goals([]", "print([]", "the last cell that is shown does not call check_goals"),
        ('chapter="stage/page"', 'chapter="stage/other"', "wants chapter='stage/page'"),
        (":label: ex-three", ":label: ex-four", "'ex-four' has no solution-start"),
        (":class: dropdown\n", "", "is not folded"),
        ("```{code-cell}\n3\n```\n", "", "the solution of ex-three runs no cell"),
        ('glue("seconds", 1)', "", None),
    ],
)
def test_a_missing_part_is_found(old: str, new: str, problem: str | None):
    assert GOOD.count(old) == 1
    found = problems(GOOD.replace(old, new), "stage/page")
    assert found == [] if problem is None else any(problem in line for line in found)


def test_a_box_that_measures_nothing_is_found():
    bare = re.sub(r"\{glue:text\}`\w+`", "9", GOOD)
    assert "nothing measured is glued into the box" in problems(bare, "stage/page")


def test_parts_out_of_order_are_found():
    head, exercise = GOOD.split("````{exercise-start}")
    solved, rest = exercise.split("```{solution-end}\n```\n")
    moved = head + rest + "````{exercise-start}" + solved + "```{solution-end}\n```\n"
    assert any("out of order" in line for line in problems(moved, "stage/page"))


@pytest.mark.parametrize(
    "line",
    [
        "It reached 56 % of them.",
        "It reached 56.3% of them.",
        "It is 3.2× as fast.",
        "It is 3.2x as fast.",
        "It is 3 times as fast.",
        "It makes 1,200 tok/s.",
        "It makes 64 tokens per second.",
        "It needs 110 MB.",
        "It needs 1.5 GiB.",
        "It took 12 s.",
        "It took 46 ms a step.",
        "| nano | 12 % |",
        "```{table} Losses after 20 minutes\n```",
        "```{glue:figure} loss\n:name: fig\n\nIt fell by 20 %.\n```",
        "It reached 56 %. <!-- a comment of another kind -->",
        "It reached 56 %. <!-- given: -->",
    ],
)
def test_a_typed_result_is_found(line: str):
    assert len(typed_results(f"# Page\n\n{line}\n")) == 1


@pytest.mark.parametrize(
    "line",
    [
        "It reached {glue:text}`share:.0f` %.",
        "The bands are 95 % intervals, or 95 % Wilson intervals.",
        "Batches of 4 × 128 tokens, 300 steps, 135 million parameters, seed 7.",
        "See [a page](https://example.com/12%20s) and `12 s`.",
        "A gap of $12 %$ remains.",
        "$$\n12 %\n$$",
        "```\n12 %\n```",
        "It reached 56 %. <!-- given: the paper's number -->",
    ],
)
def test_what_is_no_typed_result_passes(line: str):
    assert typed_results(f"# Page\n\n{line}\n") == []
