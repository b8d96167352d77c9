"""A page runs again where its key has changed, and the site is written anew where it must be.

A small book with three pages and a toy package. Most tests run the cells in this process; one
starts kernels, for cells that fail in the ways that only a kernel can.
"""

import contextlib
import importlib
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("myst_nb")
import nbformat
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext.chapters.myst import read
from posttrain.core.page_key import cells_of

ROOT = Path(__file__).parents[3]
HEAD = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
%s---
"""
CELL = "```{code-cell} ipython3\n:tags: [hide-input]\n%s\n```\n"
CHECK = (
    "from posttrain.core.goals import Goal, check_goals\n"
    "_ = check_goals([Goal('sft.two', 'a sum', 4, 3, '>')], chapter='sft/two')"
)
PAGES = {
    "index": "# Start\n\n```{toctree}\nbook/sft/one\nbook/sft/two\nbook/sft/free\n"
    "book/plain\nbook/times\n```\n",
    "book/sft/one": "# One\n\nText.\n\n"
    + CELL % "from toy.outer import double\nprint(double(21))",
    "book/sft/two": "# Two\n\n"
    + CELL % "from toy import other\nprint(other.VALUE)"
    + CELL % CHECK,
    "book/sft/free": "# Free\n\n" + CELL % "print('free')",
    "book/times": "# Times\n\n```{nb-exec-table}\n```\n",
    "book/plain": "# Plain\n\n```{index} word\n```\n\nNo cells. {doc}`sft/one`\n",
}
TOY = {
    "__init__": "",
    "outer": "from toy import helper\n\ndef double(x):\n    return helper.times(x, 2)\n",
    "helper": '"""Help."""\n\ndef times(x, y):\n    """Multiply."""\n    return x * y\n',
    "other": "VALUE = 7\n",
}
CHAPTERS = ["book/sft/free", "book/sft/one", "book/sft/two"]


class Book:
    """A small book, its package and what its builds did."""

    def __init__(self, folder: Path, keys: ModuleType) -> None:
        self.root, self.out = folder, folder / "_build" / "html"
        self.keys, self.processor = keys, {"name": "one"}
        self.settings: dict[str, Any] = {}
        self.app: Sphinx | None = None
        (folder / "requirements.lock").write_text("# made by hand\nnumpy==1\n")
        for name, text in PAGES.items():
            self.write(f"{name}.md", (HEAD % "" if "code-cell" in text else "") + text)
        for name, text in TOY.items():
            self.write(f"code/toy/{name}.py", text)

    def write(self, name: str, text: str) -> None:
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert old in text
        self.write(name, text.replace(old, new))

    def build(self, only: str = "") -> list[str]:
        """Build, and return the pages that were run."""
        log = io.StringIO()
        settings = {
            "extensions": [
                "myst_nb",
                "sphinx_sitemap",
                "book._ext.chapters.goals",
                "book._ext.chapters.page_keys",
            ],
            "html_baseurl": "https://example.org/",
            "sitemap_url_scheme": "{link}",
            "exclude_patterns": ["_build", "code"],
            "html_theme": "basic",
            "source_suffix": {".rst": "restructuredtext", ".md": "myst-nb"},
            "nb_execution_mode": "cache",
            "nb_execution_timeout": 60,
            "page_keys_package": "toy",
            "page_keys_only": only,
            **self.settings,
        }
        doctrees = self.root / "_build" / ".doctrees"
        with docutils_namespace():
            self.app = Sphinx(
                str(self.root), None, str(self.out), str(doctrees), "html",
                confoverrides=settings, status=None, warning=log,
                warningiserror=True, keep_going=True,
            )  # fmt: skip
            self.read: list[str] = []
            self.written: list[str] = []
            self.app.connect("source-read", lambda app, name, source: self.read.append(name))
            self.app.connect(
                "html-page-context", lambda app, name, *rest: self.written.append(name)
            )
            one = [str(self.root / f"{only}.md")] if only else []
            self.app.build(False, one)
        self.log = log.getvalue()
        return sorted(self.keys.build_of(self.app).ran)

    def page(self, name: str) -> str:
        return (self.out / f"{name}.html").read_text()

    def in_sitemap(self) -> set[str]:
        text = (self.out / "sitemap.xml").read_text()
        return set(re.findall(r"example\.org/(.*?)\.html", text))

    def rows(self) -> list[str]:
        return [row["id"] for row in json.loads((self.out / "goals.json").read_text())]


def run_here(notebook: Any, cwd: str, **kwargs: Any) -> None:
    """Stand in for a kernel: run the cells in this process."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]
    names: dict[str, Any] = {}
    cells = (cell for cell in notebook.cells if cell.cell_type == "code")
    for count, cell in enumerate(cells, 1):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(cell.source, names)
        cell.execution_count = count
        cell.outputs = [nbformat.v4.new_output("stream", text=out.getvalue())]


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a size and a second: no new file
    monkeypatch.setenv("POSTTRAIN_GOALS", "somewhere else")
    client = importlib.import_module("myst_nb.core.execute.cache")
    own = client.single_nb_execution, client.get_cache
    yield importlib.import_module("book._ext.chapters.page_keys")
    client.single_nb_execution, client.get_cache = own
    for name in ("book._ext.chapters.goals", "book._ext.chapters.page_keys"):
        sys.modules.pop(name, None)


@pytest.fixture
def book(tmp_path: Path, keys: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Book]:
    book = Book(tmp_path, keys)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=":")
    monkeypatch.setattr(keys, "describe_processor", lambda: dict(book.processor))
    importlib.invalidate_caches()
    yield book
    for name in [name for name in sys.modules if name.partition(".")[0] == "toy"]:
        del sys.modules[name]


@pytest.fixture
def quick(book: Book, monkeypatch: pytest.MonkeyPatch) -> Book:
    """A book without kernels, built once."""
    monkeypatch.setattr("jupyter_cache.executors.utils.executenb", run_here)
    assert book.build() == CHAPTERS and book.log == ""
    return book


def test_a_page_runs_again_where_what_it_depends_on_has_changed(quick: Book) -> None:
    book = quick
    assert "42" in book.page("book/sft/one") and book.rows() == ["sft.two"]
    assert book.build() == [] and book.read == [] and book.rows() == ["sft.two"]
    assert book.in_sitemap() >= set(PAGES)
    index = (book.out / "searchindex.js").read_text()
    assert '"word"' in index
    book.build()  # only the page of times
    assert (book.out / "searchindex.js").read_text() == index

    for name, old, new in (
        ("book/sft/one.md", "Text.", "Other text."),
        ("book/sft/one.md", "[hide-input]", "[hide-cell]"),
        ("code/toy/helper.py", "Multiply.", "Return the product."),
        ("code/toy/helper.py", "return x * y", "return x * y  # the product"),
        ("requirements.lock", "# made by hand", "# made by a program"),
        ("book/plain.md", "No cells.", "No code."),
    ):
        book.edit(name, old, new)
        assert book.build() == [], name
        assert sorted(book.read) == sorted(PAGES), name
        assert book.rows() == ["sft.two"], name
    assert "Other text." in book.page("book/sft/one") and "42" in book.page("book/sft/one")

    book.edit("code/toy/helper.py", "x * y", "x + y")  # a helper of a helper
    assert book.build() == ["book/sft/one"] and "23" in book.page("book/sft/one")
    book.edit("code/toy/other.py", "7", "8")
    assert book.build() == ["book/sft/two"] and "8" in book.page("book/sft/two")
    book.edit("book/sft/free.md", "'free'", "'new'")
    assert book.build() == ["book/sft/free"] and "new" in book.page("book/sft/free")

    book.processor = {"name": "two"}
    assert book.build() == CHAPTERS
    book.edit("requirements.lock", "numpy==1", "numpy==2")
    assert book.build() == CHAPTERS
    book.edit("requirements.lock", "numpy==2", "numpy==1")
    book.processor = {"name": "one"}  # what ran before is still there
    assert book.build() == [] and "new" in book.page("book/sft/free")


def test_fresh_runs_all_pages(quick: Book) -> None:
    shutil.rmtree(quick.root / "_build" / ".jupyter_cache")
    shutil.rmtree(quick.root / "_build" / ".doctrees")
    assert quick.build() == CHAPTERS


def test_a_build_with_a_warning_or_without_an_end_is_no_ground(quick: Book) -> None:
    quick.edit("book/plain.md", "sft/one", "sft/none")
    assert quick.build() == [] and "unknown document" in quick.log
    assert quick.build() == [] and "unknown document" in quick.log  # not forgotten
    assert quick.app is not None and quick.app.statuscode == 1
    quick.edit("book/plain.md", "sft/none", "sft/one")
    assert quick.build() == [] and quick.log == "" and quick.app.statuscode == 0
    assert quick.build() == [] and quick.read == []


def test_a_file_set_back_to_an_older_date_is_seen(quick: Book) -> None:
    quick.edit("book/plain.md", "No cells.", "Back again.")
    os.utime(quick.root / "book/plain.md", (1, 1))
    quick.build()
    assert "Back again." in quick.page("book/plain")


def test_a_page_that_is_gone_leaves_the_site(quick: Book) -> None:
    (quick.root / "book/sft/free.md").unlink()
    quick.edit("index.md", "book/sft/free\n", "")
    assert quick.build() == [] and not (quick.out / "book/sft/free.html").exists()
    assert (quick.out / "book/sft/one.html").exists()


def test_one_page_is_read_and_run_alone(quick: Book) -> None:
    quick.edit("book/sft/one.md", "Text.", "Other text.")
    quick.edit("book/plain.md", "No cells.", "No code.")
    quick.edit("code/toy/other.py", "7", "8")
    assert quick.build(only="book/sft/one") == [] and quick.read == ["book/sft/one"]
    assert "Other text." in quick.page("book/sft/one")
    assert "No cells." in quick.page("book/plain") and "7" in quick.page("book/sft/two")
    quick.edit("book/sft/one.md", "21", "22")
    assert quick.build(only="book/sft/one") == ["book/sft/one"]
    assert quick.in_sitemap() >= set(PAGES)
    assert set(quick.written) - {"index", "genindex", "search"} == {"book/sft/one"}
    assert quick.build() == ["book/sft/two"] and sorted(quick.read) == sorted(PAGES)
    assert "44" in quick.page("book/sft/one") and "No code." in quick.page("book/plain")
    assert quick.rows() == ["sft.two"]


def test_one_page_of_a_book_that_was_never_built(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_cache.executors.utils.executenb", run_here)
    book.edit("book/sft/two.md", "# Two\n", "# Two\n\n{glue:text}`nothing`\n")
    assert book.build(only="book/sft/one") == ["book/sft/one"] and book.log == ""
    assert "42" in book.page("book/sft/one") and not (book.out / "book/plain.html").exists()
    book.build(only="book/sft/two")
    assert "No key 'nothing'" in book.log  # its own faults are told


def test_the_table_says_when_a_page_ran(quick: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    def dates() -> list[str]:
        return re.findall(r"\d{4}-\d\d-\d\d \d\d:\d\d", quick.page("book/times"))

    before = dates()
    quick.edit("book/sft/one.md", "Text.", "Other text.")
    assert quick.build() == [] and dates() == before and len(before) == 3
    monkeypatch.setenv("TZ", "Asia/Tokyo")  # jupyter-cache keeps times without their zone
    time.tzset()
    try:
        quick.edit("book/sft/one.md", "Other text.", "Text.")
        assert quick.build() == []
        run = json.loads(
            next(quick.root.glob("_build/.jupyter_cache/*one/*/page.json")).read_text()
        )
        assert time.strftime("%Y-%m-%d %H:%M", time.localtime(run["when"])) in dates()
    finally:
        monkeypatch.delenv("TZ")
        time.tzset()


def test_at_most_three_keys_of_a_page_are_kept(quick: Book) -> None:
    for value in range(5):
        quick.write("code/toy/other.py", f"VALUE = {value}\n")
        assert quick.build() == ["book/sft/two"]
    folder = quick.root / "_build" / ".jupyter_cache" / "book__sft__two"
    assert len(list(folder.iterdir())) == 3
    quick.write("code/toy/other.py", "VALUE = 3\n")
    assert quick.build() == []


def test_pages_that_fail_are_marked_and_run_again(book: Book) -> None:
    book.write("book/sft/one.md", HEAD % "" + "# One\n\n" + CELL % "1 / 0" + "\nAfter.\n")
    slow = HEAD % "mystnb: {execution_timeout: 1}\n"
    sleep = CELL % "import time\ntime.sleep(60)"
    book.write("book/sft/free.md", slow + "# Free\n\n" + sleep + "\nAfter.\n")
    dies = CELL % "import os\nos._exit(3)"
    book.write("book/plain.md", HEAD % "" + "# Plain\n\n" + dies + "\nAfter.\n")
    assert book.build() == ["book/plain", *CHAPTERS]
    assert book.app is not None and book.app.statuscode == 1
    texts = {name: book.page(name) for name in ("book/sft/one", "book/sft/free", "book/plain")}
    for name, error in zip(texts, ("CellExecution", "CellTimeout", "DeadKernel"), strict=True):
        assert "This page stopped before its end" in texts[name], name
        assert f"{error}Error stopped a cell of this page." in texts[name]
        assert "After." in texts[name] and (book.out / f"reports/{name}.err.log").is_file()
    assert "ZeroDivisionError" in texts["book/sft/one"]
    assert "timed out" in texts["book/sft/free"] and "Kernel died" in texts["book/plain"]
    assert "This page stopped" not in book.page("book/sft/two") and book.rows() == ["sft.two"]

    book.write("book/sft/free.md", "# Free\n")
    book.edit("book/sft/one.md", "1 / 0", "print(1 / 4)")
    assert book.build() == ["book/plain", "book/sft/one"]  # what failed is not kept
    assert "0.25" in book.page("book/sft/one") and book.rows() == ["sft.two"]
    assert not (book.out / "reports/book/sft/one.err.log").exists()


def test_a_new_commit_in_the_footer_writes_all_pages(quick: Book) -> None:
    quick.settings = {"html_context": {"site_stamp": "another commit"}}
    assert quick.build() == [] and sorted(quick.read) == sorted(PAGES)
    assert quick.build() == [] and quick.read == []


@pytest.mark.parametrize("page", sorted((ROOT / "book").rglob("*.md")), ids=lambda p: p.stem)
def test_the_key_is_made_of_the_cells_that_a_kernel_runs(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ours = [re.sub(r"^(# [\w-]+\n)+", "", cell) for cell in cells_of(text)]
    assert ours == [cell.source.strip() for cell in read(text).cells]
