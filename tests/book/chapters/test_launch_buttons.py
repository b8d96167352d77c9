"""The launch buttons: Colab opens generated notebooks, Binder the sources that fit it."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sphinx_book_theme")
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext.chapters.launch_table import LaunchTableError, checked, read_launch_table

ROOT = Path(__file__).parents[3]
REPOSITORY = "https://github.com/somebody/some-book"
COLAB = "https://colab.research.google.com/github/somebody/some-book/blob/notebooks"
BINDER = "https://mybinder.org/v2/gh/somebody/some-book/dev?urlpath=lab/tree"
HEAD = """\
---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---
"""
CELL = "\n```{code-cell} ipython3\nx = 1\n```\n"
BOX = "\n```{admonition} Cost of this page\nLittle.\n```\n"
PAGES = {
    "index": "# Start\n\n```{toctree}\nbook/small\nbook/large\nbook/words\n```\n",
    "book/small": f"{HEAD}# Small\n{BOX}{CELL}",
    "book/large": f"{HEAD}# Large\n{CELL}",
    "book/words": f"{HEAD}# Words\n\n```python\nno_cell = 1\n```\n",
}
TABLE = {
    "binder": {"memory": 2.0, "server": 0.25},
    "pages": {
        "book/small": {"memory": 1.2, "seconds": 3, "binder": True},
        "book/large": {"memory": 3.1, "seconds": 4, "binder": False},
    },
}

Build = Callable[..., str]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build the small book; returns Sphinx's warnings."""

    def run(table: Any = TABLE, pages: dict[str, str] = PAGES, **theme: Any) -> str:
        source = tmp_path / "source"
        for name, text in pages.items():
            file = source / f"{name}.md"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        if table is not None:
            (source / "book" / "launch.yml").write_text(yaml.safe_dump(table))
        warnings = io.StringIO()
        with docutils_namespace():
            app = Sphinx(
                str(source),
                None,
                str(tmp_path / "html"),
                str(tmp_path / "doctrees"),
                "html",
                confoverrides={
                    "extensions": ["myst_nb", "book._ext.chapters.launch_buttons"],
                    "nb_execution_mode": "off",
                    "source_suffix": {".rst": "restructuredtext"},  # Sphinx's default may grow
                    "html_theme": "sphinx_book_theme",
                    "html_theme_options": {
                        "repository_url": REPOSITORY,
                        "repository_branch": "dev",
                        "use_edit_page_button": True,
                        "use_issues_button": True,
                        **theme,
                    },
                },
                status=None,
                warning=warnings,
                freshenv=True,
            )
            app.build(force_all=True)
        return warnings.getvalue()

    return run


def page(folder: Path, name: str) -> str:
    return (folder / "html" / f"{name}.html").read_text(encoding="utf-8")


def test_buttons_open_the_notebook_and_the_source(build: Build, tmp_path: Path) -> None:
    assert build() == ""
    small, large, words = (
        page(tmp_path, f"book/{name}") for name in ("small", "large", "words")
    )
    assert small.count(f'href="{COLAB}/book/small.ipynb"') == 2  # the menu and the cost box
    assert small.count(f'href="{BINDER}/book/small.md"') == 2
    assert large.count(f'href="{COLAB}/book/large.ipynb"') == 2
    assert "mybinder" not in large
    assert "colab" not in words and "mybinder" not in words and "pt-launch" not in words
    assert "dropdown-launch-buttons" not in words
    for name, text in {"small": small, "words": words}.items():
        assert f'href="{REPOSITORY}/edit/dev/book/{name}.md"' in text
        assert f"{REPOSITORY}/issues/new" in text


def test_the_page_says_where_it_runs(build: Build, tmp_path: Path) -> None:
    build()
    box = page(tmp_path, "book/small").split("Cost of this page", 1)[1]
    line = box.split('<p class="pt-launch">', 1)[1].split("</p>", 1)[0]
    assert box.index("pt-launch") < box.index("cell docutils")
    assert line.startswith("Run this page in <a") and " or <a" in line and line.endswith(".")
    large = page(tmp_path, "book/large")
    assert large.index("</h1>") < large.index("pt-launch")
    assert (
        "</a>. Binder cannot run it: it needs more memory than the 2 GiB of a session.</p>"
        in large
    )


def test_a_reason_of_the_table_is_shown(build: Build, tmp_path: Path) -> None:
    entry = TABLE["pages"]["book/large"] | {"why": "it starts a server"}
    build(TABLE | {"pages": TABLE["pages"] | {"book/large": entry}})
    assert "Binder cannot run it: it starts a server.</p>" in page(tmp_path, "book/large")


def test_the_themes_own_buttons_stay_in_the_menu(build: Build, tmp_path: Path) -> None:
    build(launch_buttons={"thebe": True})
    menu = page(tmp_path, "book/small").split("dropdown-launch-buttons", 1)[1]
    menu = menu.split("</div>", 1)[0]
    assert menu.index("colab.research") < menu.index("mybinder") < menu.index("initThebeSBT")


def test_pages_and_table_must_agree(build: Build) -> None:
    pages = {name: entry for name, entry in TABLE["pages"].items() if "small" not in name}
    gone = {"book/gone": {"memory": 1, "seconds": 1, "binder": False}}
    said = build(TABLE | {"pages": pages | gone})
    assert "book/launch.yml names book/gone, which is no page: remove it" in said
    assert "small.md: WARNING: the page has code cells, but book/launch.yml does not" in said


def test_a_page_too_large_for_binder_is_refused(build: Build) -> None:
    entry = {"memory": 1.8, "seconds": 1, "binder": True}
    with pytest.raises(
        LaunchTableError, match=r"book/small is marked .* takes 1.8 GiB of the 1.75"
    ):
        build(TABLE | {"pages": TABLE["pages"] | {"book/small": entry}})


def test_a_missing_table_is_named(build: Build) -> None:
    with pytest.raises(LaunchTableError, match=r"book/launch.yml is missing"):
        build(None)


def test_a_measured_size_contradicts_the_table(build: Build, tmp_path: Path) -> None:
    glued = tmp_path / "jupyter_execute" / "book" / "small.glue.json"
    glued.parent.mkdir(parents=True)
    glued.write_text(json.dumps({"page-memory": {"data": {"text/plain": "2.04"}}}))
    assert "the page took 2.0 GiB, and book/launch.yml marks it as fit for Binder" in build()
    glued.write_text(json.dumps({"page-memory": {"data": {"text/plain": "1.9"}}}))
    assert build() == ""


def test_the_books_table_is_consistent() -> None:
    table = checked(read_launch_table(ROOT))
    assert all(
        {"memory", "seconds", "binder"} <= entry.keys() for entry in table["pages"].values()
    )
