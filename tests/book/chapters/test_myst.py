"""The reader of MyST sources: cells, tags, options, nested fences, prose, and their lines."""

from pathlib import Path

import pytest

from book._ext.chapters.myst import Block, read, without

ROOT = Path(__file__).parents[3]
PAGES = sorted((ROOT / "book").rglob("*.md"))


def cell(text: str) -> Block:
    (found,) = read(text).cells
    return found


def test_a_cell_has_its_code_and_its_lines() -> None:
    text = "# Title\n\n```{code-cell} ipython3\nx = 1\n\ny = 2\n```\nText.\n"
    found = cell(text)
    assert (found.argument, found.source) == ("ipython3", "x = 1\n\ny = 2")
    assert (found.start, found.first, found.end) == (3, 4, 7)
    assert found.tags == frozenset() and found.options == {}
    assert text.splitlines()[found.first - 1] == "x = 1"


@pytest.mark.parametrize(
    ("options", "tags"),
    [
        (":tags: [hide-input, remove-output]", {"hide-input", "remove-output"}),
        (':tags: ["a", b]', {"a", "b"}),
        (":tags: hide-input", {"hide-input"}),
        (":tags: []", set()),
        (":name: x\n:tags: [a]\n:caption: y: z", {"a"}),
        ("---\ntags: [a, b]\n---", {"a", "b"}),
        ("---\ntags:\n  - a\n  - b\nother: true\n---", {"a", "b"}),
        ("---\n---", set()),
        (":name: x", set()),
    ],
)
def test_options_are_no_code(options: str, tags: set[str]) -> None:
    lines = options.count("\n") + 1
    for blank in ("", "\n"):
        found = cell(f"```{{code-cell}}\n{options}\n{blank}x = 1\n```\n")
        assert found.source == "x = 1"
        assert found.first == 2 + lines + len(blank)
        assert found.tags == tags


def test_other_options_are_kept_as_text() -> None:
    text = '```{code-cell}\n:caption: y: z\n:name: x\n:from: "  a"\n:to: f("a")\n1\n```\n'
    assert cell(text).options == {"caption": "y: z", "name": "x", "from": "  a", "to": 'f("a")'}
    assert cell("```{code-cell}\n---\nmystnb: {a: 1}\nb: c\n---\n1\n```\n").options == {
        "mystnb": '{"a": 1}',
        "b": "c",
    }


def test_what_looks_like_options_later_is_code() -> None:
    found = cell("```{code-cell}\nx[\n:tags: 1\n]\n---\n```\n")
    assert found.source == "x[\n:tags: 1\n]\n---"
    assert found.options == {}


def test_magics_are_no_python_and_lines_stay() -> None:
    found = cell("```{code-cell}\n%time x\n!ls\ny = 7 % 3\n    %keep\n```\n")
    assert found.python == "\n\ny = 7 % 3\n    %keep"
    assert found.source.startswith("%time x\n!ls\n")


@pytest.mark.parametrize("fence", ["```", "````", "~~~", "``````"])
def test_a_fence_is_closed_by_one_that_is_as_long(fence: str) -> None:
    inner = "```" if fence[0] == "~" else fence[1:]
    body = f'"""\n{inner}\n"""' if len(inner) > 2 else "pass"
    assert cell(f"{fence}{{code-cell}}\n{body}\n{fence}\n").source == body
    assert cell(f"{fence}{{code-cell}}\n{body}\n{fence}{fence[0]}\nText.\n").source == body


def test_a_cell_inside_another_block_is_not_run() -> None:
    text = (
        "````{admonition} Title\nText.\n```{code-cell}\ninner\n```\n````\n"
        ":::{note}\n```{code-cell}\ninner\n```\n:::\n"
        "````markdown\n```{code-cell}\nshown\n```\n````\n"
        "    ```{code-cell}\n    indented\n    ```\n"
        "```{code-cell}\nouter\n```\n"
    )
    page = read(text)
    assert [found.source for found in page.cells] == ["outer"]
    inner = page.named("code-cell")
    assert [found.depth for found in inner] == [1, 1, 0, 0]
    assert page.named("code")[0].source == "```{code-cell}\nshown\n```"
    assert page.named("admonition")[0].source == "Text.\n```{code-cell}\ninner\n```"


def test_cells_of_a_solution_are_cells() -> None:
    text = (
        "```{exercise} Sum\n:label: ex\nAdd.\n```\n"
        "```{solution-start} ex\n:class: dropdown\n```\n\n"
        "```{code-cell}\n:tags: [a]\nsum(x)\n```\n\n"
        "```{solution-end}\n```\n\n```{code-cell}\nafter\n```\n"
    )
    page = read(text)
    assert [(found.source, found.start) for found in page.cells] == [
        ("sum(x)", 9),
        ("after", 17),
    ]
    (solution,) = page.named("solution-start")
    assert (solution.argument, solution.options) == ("ex", {"class": "dropdown"})
    assert (solution.start, solution.end) == (5, 7)
    assert page.named("exercise")[0].body == ["Add."]


def test_inline_code_and_loose_colons_open_nothing() -> None:
    page = read("```x``` opens nothing.\n\n:::\n\n``` {note} `x`\n\n```{code-cell}\n1\n```\n")
    assert [block.name for block in page.blocks] == ["code-cell"]
    assert [found.source for found in page.cells] == ["1"]


def test_a_block_without_an_end_goes_to_the_last_line() -> None:
    found = cell("Text.\n```{code-cell}\nx = 1\n\n")
    assert (found.source, found.end) == ("x = 1", 4)


def test_the_settings_of_a_page_are_not_read() -> None:
    text = "---\nkernelspec: {name: python3}\n---\n# Title\n\n---\n\nText.\n"
    assert read(text).prose == {4: "# Title", 5: "", 6: "---", 7: "", 8: "Text."}
    assert read("---\nnot closed\n").prose == {1: "---", 2: "not closed"}
    assert read("").prose == {}


def test_what_is_prose() -> None:
    text = (
        "Text.\n$$\nx = 1\n$$\n```python\ncode\n```\n"
        "```{note} A title\n:class: small\nWords.\n```\n"
        "```{glue:figure} name\nA caption.\n```\n```{math}\ny\n```\n"
    )
    prose = {number: line for number, line in read(text).prose.items() if line}
    assert prose == {1: "Text.", 8: "A title", 10: "Words.", 13: "A caption."}


def test_a_page_without_its_cells() -> None:
    text = "One.\n```{code-cell}\nx\n```\nTwo.\n````{note}\n```{code-cell}\ny\n```\n````\n"
    assert without(text, "code-cell") == "One.\nTwo.\n````{note}\n````\n"
    assert without(text, "table") == text


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_the_books_cells_are_those_of_jupytext(page: Path) -> None:
    jupytext = pytest.importorskip("jupytext")
    text = page.read_text(encoding="utf-8")
    if "{code-cell}" not in text:
        return
    notebook = jupytext.reads(text, fmt="md:myst")
    wanted = [
        (found.source, set(found.metadata.get("tags", ())))
        for found in notebook.cells
        if found.cell_type == "code"
    ]
    assert [(found.source, set(found.tags)) for found in read(text).cells] == wanted
