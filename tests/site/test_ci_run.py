""".ci/run and the programs of the site check: installed if possible, else done without."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'
GOAL = "goals that need them are not measured"


def ci_run(folder: Path, programs: dict[str, str]) -> tuple[list[str], str]:
    """Run .ci/run where only stand-ins exist; return what was called, and what was printed."""
    (folder / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "run", folder / ".ci")
    found = folder / "bin"
    found.mkdir()
    for name in ("bash", "sh", "basename", "dirname", "env", "chmod", "cp"):
        (found / name).symlink_to(str(shutil.which(name)))
    for name, more in {"make": "", **programs}.items():
        (found / name).write_text(STUB + more)
        (found / name).chmod(0o755)
    calls = folder / "calls"
    variables = {"PATH": str(found), "CALLS": str(calls), "FOUND": str(found)}
    done = subprocess.run(
        [str(found / "bash"), str(folder / ".ci" / "run")],
        env=variables, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return calls.read_text().splitlines(), done.stdout


MAKES = ["make install", "make test", "make book FRESH=1", "make site-check SKIP_MISSING=1"]


def test_nothing_is_installed_where_all_is_there(tmp_path: Path) -> None:
    there = {"chromium": "", "node": "", "npm": "", "apt-get": "", "sudo": ""}
    calls, out = ci_run(tmp_path, there)
    assert calls == MAKES and GOAL not in out


@pytest.mark.parametrize("apt", [{}, {"apt-get": "exit 100\n", "sudo": "exit 1\n"}])
def test_what_cannot_be_installed_is_named(tmp_path: Path, apt: dict[str, str]) -> None:
    calls, out = ci_run(tmp_path, {"node": "", **apt})
    assert [call for call in calls if call.startswith("make")] == MAKES
    assert "Missing and not installable here: chromium npm; " + GOAL in out


def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    installs = "test $1 = update || for name in chromium npm; do cp $0 $FOUND/$name; done\n"
    calls, out = ci_run(
        tmp_path, {"node": "", "apt-get": installs, "sudo": 'shift; exec "$@"\n'}
    )
    wanted = "apt-get install --yes --no-install-recommends chromium npm"
    assert wanted in calls and calls[-1] == MAKES[-1] and GOAL not in out
    assert any(call.startswith("sudo -n apt-get") for call in calls) == (os.geteuid() != 0)
