"""Which commit a notebook's first cell installs."""

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("jupyter_book")
from tools.notebooks.first_cell import SETUP, head_of
from tools.notebooks.inline import NotebookError


def test_the_revision_is_that_of_the_checkout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unknown = pytest.raises(NotebookError, match=r"git is missing, or .* name the commit with")
    with unknown:
        head_of(tmp_path)

    def git(*words: str) -> str:
        name = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        command = ["git", "-C", str(tmp_path), *name, *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    git("init", "--quiet")
    with unknown:  # no commit yet
        head_of(tmp_path)
    git("commit", "--quiet", "--allow-empty", "--message", "One")
    assert head_of(tmp_path) == git("rev-parse", "HEAD").strip()
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    with unknown:  # the commit is that of the repository around it
        head_of(unpacked)
    monkeypatch.setenv("PATH", str(unpacked))
    with unknown:  # no git
        head_of(tmp_path)


def test_threads_are_calmed_before_pytorch_is_imported() -> None:
    calmed = SETUP.index("\ncalm_threads()")
    assert SETUP.index("_install(") < calmed < SETUP.index("import examine")
    assert "import torch" not in SETUP[:calmed]
