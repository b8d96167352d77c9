"""The checks of finished notebooks find what is left over or broken."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from notebook_checks import broken_links, check_notebooks, problems

SITE = "https://somebody.github.io/some-book/"


def notebook(*texts: str) -> Any:
    first = nbformat.v4.new_code_cell("pip('install')")
    return nbformat.v4.new_notebook(
        cells=[first, *(nbformat.v4.new_markdown_cell(text) for text in texts)]
    )


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("```{note}\nx\n```", "a directive of MyST: '```{note}'"),
        ("> ```{math}\n> x\n> ```", "a directive of MyST: '> ```{math}'"),
        (":::{tip}\nx\n:::", "a colon fence of MyST: ':::'"),
        ("a\n:::\nb", "a colon fence of MyST: ':::'"),
        ("see {doc}`lora`.", "a role of MyST: '{doc}`'"),
        ("{glue:text}`x:.1f` %", "a role of MyST: '{glue:text}`'"),
        ("{prf:ref}`t`", "a role of MyST: '{prf:ref}`'"),
        ("(sec-a)=\n# A", "a target of MyST: '(sec-a)='"),
        ("a <!-- given: b -->", "a page comment of MyST: '<!--'"),
    ],
)
def test_leftovers_of_myst_are_found(text: str, what: str) -> None:
    assert list(problems(notebook("fine", text))) == [f"cell 2 holds {what}"]


@pytest.mark.parametrize(
    "text",
    ["```python\nf = {x}`y`\n```", "`{doc}` and `:::`", "$\\mathbf{doc}$ `x`", "a {b} `c`"],
)
def test_code_and_formulas_are_no_leftovers(text: str) -> None:
    assert list(problems(notebook(text))) == []


def test_the_form_of_a_notebook_is_checked() -> None:
    wrong = notebook("a")
    wrong.cells[1]["outputs"] = []
    assert next(problems(wrong)).startswith("not valid: ")
    no_setup = notebook("a")
    no_setup.cells.pop(0)
    assert list(problems(no_setup)) == ["the first cell does not install"]
    ran = notebook("a")
    ran.cells[0].execution_count = 1
    assert list(problems(ran)) == ["cell 0 has outputs"]


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    page = tmp_path / "book" / "one.html"
    page.parent.mkdir()
    page.write_text('<p id="here">x</p>')
    good = f"[a]({SITE}book/one.html) [b]({SITE}book/one.html#here) [c](https://example.com/d)"
    bad = f"[a]({SITE}book/two.html) [b]({SITE}book/one.html#there) `[c]({SITE}x.html)`"
    found = broken_links(notebook(good, bad), SITE, tmp_path)
    assert found == [f"{SITE}book/one.html#there", f"{SITE}book/two.html"]
    folder = tmp_path / "notebooks" / "book"
    folder.mkdir(parents=True)
    nbformat.write(notebook(bad), folder / "one.ipynb")
    assert check_notebooks(tmp_path / "notebooks", SITE) == {"book/one.ipynb": []}
    assert check_notebooks(tmp_path / "notebooks", SITE, tmp_path) == {
        "book/one.ipynb": [f"leads nowhere: {link}" for link in found]
    }
