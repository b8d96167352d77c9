"""The checks of finished notebooks find what is left over or broken."""

from pathlib import Path
from typing import Any

import nbformat
import pytest

from tools.notebooks.checks import Places, broken_links, check_notebooks, problems

REPOSITORY = "https://github.com/somebody/some-book"
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
    found = broken_links(notebook(good, bad), Places(SITE, tmp_path))
    assert found == [f"{SITE}book/one.html#there", f"{SITE}book/two.html"]
    folder = tmp_path / "notebooks" / "book"
    folder.mkdir(parents=True)
    nbformat.write(notebook(bad), folder / "one.ipynb")
    assert check_notebooks(tmp_path / "notebooks", Places(SITE)) == {"book/one.ipynb": []}
    assert check_notebooks(tmp_path / "notebooks", Places(SITE, tmp_path)) == {
        "book/one.ipynb": [f"leads nowhere: {link}" for link in found]
    }


@pytest.mark.parametrize(
    ("address", "sound"),
    [
        ("../lora.md", False),
        ("#a-section", False),
        ("//example.com/x", False),
        ("https://example.com/x", True),
        ("mailto:a@example.com", True),
        (f"{REPOSITORY}/blob/0123abc/code/thing%20two.py#L1-L2", True),
        (f"{REPOSITORY}/raw/main/code/gone.png", False),
        (f"{REPOSITORY}/blob/main/../beside.py", False),
        (f"{REPOSITORY}/issues", True),
    ],
)
def test_leftover_addresses_and_files_that_are_gone(
    tmp_path: Path, address: str, sound: bool
) -> None:
    (tmp_path / "beside.py").write_text("")
    root = tmp_path / "root"
    (root / "code").mkdir(parents=True)
    (root / "code" / "thing two.py").write_text("")
    places = Places(SITE, None, REPOSITORY, root)
    found = broken_links(notebook(f"[x]({address})"), places)
    assert found == ([] if sound else [address])


def test_each_page_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one.html").write_text('<p id="a">x</p><p id="b">y</p>')
    read: list[Path] = []

    def anchors(file: Path) -> set[str]:
        read.append(file)
        return {"a", "b"}

    monkeypatch.setattr("tools.notebooks.checks.anchors", anchors)
    text = f"[a]({SITE}one.html#a) [b]({SITE}one.html#b)"
    assert broken_links(notebook(text), Places(SITE, tmp_path)) == []
    assert len(read) == 1
