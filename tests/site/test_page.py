"""One page alone: what `make page` is given, and what it asks of Sphinx."""

import importlib
import subprocess
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("sphinx_external_toc")
ROOT = Path(__file__).parents[2]
PAGES = ["book/index", "book/sft/lora", "book/sft/qlora", "book/api/index", "book/dpo/loss"]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    return importlib.import_module("tools.site.page")


@pytest.mark.parametrize(
    "name", ["book/sft/lora", "sft/lora", "lora", "book/sft/lora.md", "./book/sft/lora.md"]
)
def test_a_page_has_several_names(tool: ModuleType, name: str) -> None:
    assert tool.page_named(name, PAGES) == "book/sft/lora"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "book/sft/lorra",
            "PAGE=book/sft/lorra names no page: did you mean book/sft/lora or book/sft/qlora?",
        ),
        ("qlorra", "PAGE=qlorra names no page: did you mean book/sft/qlora or book/sft/lora?"),
        ("index", "PAGE=index is not one page: did you mean book/index or book/api/index?"),
        ("xyz", "PAGE=xyz names no page: _toc.yml names the pages"),
    ],
)
def test_a_wrong_name_gets_near_ones(tool: ModuleType, name: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        tool.page_named(name, PAGES)
    assert str(error.value) == message


@pytest.fixture
def book(tmp_path: Path) -> Path:
    (tmp_path / "book").mkdir()
    for name in ("index", "lora"):
        (tmp_path / f"book/{name}.md").write_text(f"# {name}\n")
    (tmp_path / "_toc.yml").write_text(
        "format: jb-book\nroot: book/index\nchapters:\n- file: book/lora\n"
    )
    (tmp_path / "_config.yml").write_text("title: A book\n")
    return tmp_path


def test_the_page_is_built_alone(
    tool: ModuleType, book: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    calls: list[Any] = []

    def build_sphinx(*arguments: Any, **options: Any) -> int:
        calls.append((arguments, options))
        return len(calls) - 1

    monkeypatch.setattr("jupyter_book.sphinx.build_sphinx", build_sphinx)
    kept = book / "_build/.jupyter_cache/book__lora/page.json"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert tool.main(["lora", "--root", str(book)]) == 0
    arguments, options = calls[0]
    assert arguments == (book, book / "_build/html")
    assert options["filenames"] == [str(book / "book/lora.md")]
    assert options["confoverrides"]["page_keys_only"] == "book/lora"
    assert options["warningiserror"] and options["keep_going"] and kept.is_file()
    said = capsys.readouterr().out
    assert "No build yet: every page is read first" in said
    assert f"The page is ready: {book}/_build/html/book/lora.html" in said

    assert tool.main(["lora", "--fresh", "--root", str(book)]) == 1
    assert not kept.exists() and "is ready" not in capsys.readouterr().out


def test_a_name_is_needed(tool: ModuleType, book: Path, capsys: Any) -> None:
    assert tool.main(["", "--root", str(book)]) == 2
    assert capsys.readouterr().err == "Name a page: make page PAGE=book/sft/lora\n"
    assert tool.main(["lara", "--root", str(book)]) == 2
    assert capsys.readouterr().err == "PAGE=lara names no page: did you mean book/lora?\n"


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["book"], ["jupyter-book build . -n -W --keep-going"]),
        (
            ["book", "FRESH=1"],
            ["rm -rf _build/.jupyter_cache _build/.doctrees", "jupyter-book build . -n -W"],
        ),
        (["page", "PAGE=sft/lora"], ["python -m tools.site.page 'sft/lora' \n"]),
        (
            ["page", "PAGE=sft/lora", "FRESH=1"],
            ["python -m tools.site.page 'sft/lora' --fresh"],
        ),
    ],
)
def test_make(words: list[str], commands: list[str]) -> None:
    options = ["--no-print-directory", "-n", "-o", ".venv/.installed"]
    done = subprocess.run(
        ["make", *options, *words], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for command in commands:
        assert command in done.stdout
    assert ("rm -rf" in done.stdout) == (words == ["book", "FRESH=1"])


def test_the_tools_know_where_the_repository_is(tool: ModuleType) -> None:
    from tools.clean import robustness

    for root in (tool.ROOT, robustness.ROOT):
        assert (root / "_toc.yml").is_file() and (root / "code" / "posttrain").is_dir()
