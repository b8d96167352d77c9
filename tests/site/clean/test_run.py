"""``tools/clean/run.py``: which pages it takes, and what it says when something fails."""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
import yaml

from tools.clean import run as clean_run
from tools.clean.run import (
    CleanRunError,
    brought_along,
    clean_runs,
    constraints,
    environment,
    shortest_pages,
)
from tools.notebooks.run import Run, memory_of

ROOT = Path(__file__).resolve().parents[3]


def notebook(*cells: str) -> Any:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


@pytest.fixture
def this_python(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in the interpreter of the tests, which has ipykernel."""
    monkeypatch.setattr(clean_run, "new_python", lambda folder, limits: Path(sys.executable))


def run(folder: Path, *cells: str) -> Run:
    file = folder / "one.ipynb"
    nbformat.write(notebook(*cells), file)
    before = file.read_bytes()
    wheel, limits = folder / "posttrain-0-py3-none-any.whl", folder / "constraints.txt"
    found = clean_run.run_notebook(file, "book/one", wheel, limits, folder)
    assert file.read_bytes() == before
    return found


def test_cells_see_the_wheel_and_the_versions(this_python: None, tmp_path: Path) -> None:
    done = run(
        tmp_path,
        "import os\nsource = os.environ['POSTTRAIN_SOURCE']",
        "limits = os.environ['PIP_CONSTRAINT']\n"
        "assert source.startswith('file://') and source.endswith('.whl'), source\n"
        "assert limits.endswith('constraints.txt') and 'PYTHONPATH' not in os.environ",
    )
    assert done.passed and done.error == "" and done.page == "book/one"
    assert done.install_seconds >= 0 and done.seconds > 0


def test_the_kernels_memory_is_noted(this_python: None, tmp_path: Path) -> None:
    done = run(tmp_path, "x = bytearray(300 * 2**20)", "x[::4096] = x[::4096]\ndel x", "y = 1")
    assert 0.3 <= done.memory < 1.0  # the block is freed before the last cell


def test_no_kernel_is_left_behind(this_python: None, tmp_path: Path) -> None:
    before = set(psutil.Process().children(recursive=True))
    assert run(tmp_path, "x = 1").passed
    left = set(psutil.Process().children(recursive=True)) - before
    assert not [child for child in left if "ipykernel_launcher" in " ".join(child.cmdline())]


def test_a_process_that_is_gone_holds_nothing() -> None:
    assert memory_of(2**22 + 1) == 0.0
    assert memory_of(os.getpid()) > 0.01


def test_only_a_build_of_torch_that_needs_options_is_brought_along(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCH", "torch==1")
    assert brought_along() == ["ipykernel"]
    monkeypatch.setenv("TORCH", "torch==1 --find-links 'https://example.org/a b'")
    assert brought_along() == [
        "ipykernel", "torch==1", "--find-links", "https://example.org/a b"
    ]  # fmt: skip


def test_a_cell_that_fails_is_reported(this_python: None, tmp_path: Path) -> None:
    done = run(tmp_path, "x = 1", "assert x == 2, 'x is one'")
    assert not done.passed and done.error == "AssertionError: x is one"


def test_the_kernels_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "somewhere")
    monkeypatch.setenv("POSTTRAIN_GOALS", "goals of the build")
    monkeypatch.setenv("POSTTRAIN_HOME", "the store")
    found = environment(
        tmp_path / "bin/python", tmp_path / "a.whl", tmp_path / "c.txt", tmp_path
    )
    assert "PYTHONPATH" not in found
    assert found["POSTTRAIN_GOALS"] == str(tmp_path / "goals")
    assert found["POSTTRAIN_HOME"] == "the store"
    assert found["PATH"].split(os.pathsep)[0] == str(tmp_path / "bin")


def test_constraints_hold_torch_and_the_lock(tmp_path: Path) -> None:
    lines = constraints(ROOT, tmp_path).read_text().splitlines()
    assert sum(line.startswith("torch==") for line in lines) == 1
    assert any(line.startswith("transformers==") for line in lines)


def test_the_shortest_page_of_each_stage_is_taken(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    seconds = {"book/a/long": 20, "book/a/short": 3, "book/b/only": 100, "book/start/x": 1}
    for stage in ("a", "b"):
        (tmp_path / "code" / "posttrain" / stage).mkdir(parents=True)
    pages = {page: {"memory": 1, "seconds": s, "binder": False} for page, s in seconds.items()}
    (tmp_path / "book/launch.yml").write_text(yaml.safe_dump({"pages": pages}))
    assert shortest_pages(tmp_path) == ["book/a/short", "book/b/only"]


def test_a_missing_launch_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(CleanRunError, match=r"book/launch.yml is missing"):
        shortest_pages(tmp_path)


def test_a_notebook_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(CleanRunError, match=r"no notebook of book/x: run make notebooks"):
        clean_runs(ROOT, tmp_path, ["book/x"])


def test_a_wheel_that_cannot_be_built_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "pyproject.toml").write_text("[project\n")
    with pytest.raises(CleanRunError, match="the wheel could not be built: "):
        clean_run.build_wheel(tmp_path, tmp_path / "wheels")


def test_a_wheel_is_built_and_nothing_left_beside_the_source(tmp_path: Path) -> None:
    package = tmp_path / "code" / "small"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (tmp_path / "README.md").write_text("Small.")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "small"\nversion = "1"\nreadme = "README.md"\n'
        '[tool.setuptools.packages.find]\nwhere = ["code"]\n'
    )
    before = sorted(tmp_path.rglob("*"))
    with tempfile.TemporaryDirectory() as folder:
        wheel = clean_run.build_wheel(tmp_path, Path(folder))
        assert wheel.name == "small-1-py3-none-any.whl"
    assert sorted(tmp_path.rglob("*")) == before


def test_the_program_exits_with_1_if_a_notebook_fails(
    this_python: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat.write(notebook("1 / 0"), tmp_path / "one.ipynb")
    (tmp_path / "requirements.in").write_text("torch==1\n")
    (tmp_path / "requirements.lock").write_text("a==1\n")
    monkeypatch.setattr(clean_run, "ROOT", tmp_path)
    arguments = ["one", "--notebooks", str(tmp_path), "--wheel", str(tmp_path / "a.whl")]
    monkeypatch.setattr(sys, "argv", ["clean_run", *arguments])
    with pytest.raises(SystemExit) as stopped:
        clean_run.main()
    assert stopped.value.code == 1
    (row,) = json.loads((tmp_path / "_build/clean_run.json").read_text())
    assert row["error"].startswith("ZeroDivisionError") and row["passed"] is False


def test_the_goal_counts_the_notebooks_that_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [Run("a", True, 1, 2), Run("b", False, 1, 2, error="E: x")]
    monkeypatch.setattr(clean_run, "shortest_pages", lambda root: ["a", "b"])
    monkeypatch.setattr(clean_run, "clean_runs", lambda root, folder, pages: runs)
    (goal,) = clean_run.site_goals(tmp_path)
    assert (goal.id, goal.value, goal.n) == ("site.notebook_clean_run", 0.5, 2)
    assert not goal.passed
    assert len(json.loads((tmp_path / "_build/clean_run.json").read_text())) == 2
