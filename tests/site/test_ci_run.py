""".ci/run: its steps, what it says of them, and the programs that the site check needs."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\n'
GOAL = "goals that need them are not measured"


def ci_run(
    folder: Path, programs: dict[str, str], status: int = 0
) -> tuple[list[str], str, str]:
    """Run .ci/run where only stand-ins exist.

    Args:
        folder: An empty folder.
        programs: The stand-ins: a shell script for each name.
        status: The exit status that is expected.

    Returns:
        What was called, and what was printed to the two streams.
    """
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
    assert done.returncode == status, done.stderr
    return calls.read_text().splitlines(), done.stdout, done.stderr


MAKES = [
    "make install",
    "make test",
    "make book FRESH=1",
    "make site-check CHECKS=ci SKIP_MISSING=1",
]
THERE = {"chromium": "", "node": "", "npm": "", "apt-get": "", "sudo": ""}


def test_nothing_is_installed_where_all_is_there(tmp_path: Path) -> None:
    calls, out, errors = ci_run(tmp_path, THERE)
    assert calls == MAKES and GOAL not in out and errors == ""


@pytest.mark.parametrize(
    ("apt", "says"),
    [
        ({}, "apt-get: command not found"),
        ({"apt-get": "echo 'E: no such place' >&2; exit 100\n"}, "E: no such place"),
    ],
)
def test_what_cannot_be_installed_is_named_and_apt_get_says_why(
    tmp_path: Path, apt: dict[str, str], says: str
) -> None:
    sudo = 'shift; exec "$@"\n' if apt else "echo 'apt-get: command not found' >&2; exit 1\n"
    calls, out, errors = ci_run(tmp_path, {"node": "", "sudo": sudo, **apt})
    assert [call for call in calls if call.startswith("make")] == MAKES
    assert "Missing and not installable here: chromium npm; " + GOAL in out
    assert says in errors


def test_what_is_missing_is_installed(tmp_path: Path) -> None:
    installs = (
        "echo fetched; "
        "test $1 = update || for name in chromium npm; do cp $0 $FOUND/$name; done\n"
    )
    programs = {"node": "", "apt-get": installs, "sudo": 'shift; exec "$@"\n'}
    calls, out, errors = ci_run(tmp_path, programs)
    wanted = "apt-get install --yes --no-install-recommends chromium npm"
    assert wanted in calls and calls[-1] == MAKES[-1] and GOAL not in out
    assert any(call.startswith("sudo -n apt-get") for call in calls) == (os.geteuid() != 0)
    assert "fetched" not in out and errors == ""


def fails(step: str) -> dict[str, str]:
    return {**THERE, "make": f'test "$1" != {step} || exit 2\n'}


@pytest.mark.parametrize("step", ["book", "site-check"])
def test_a_missed_goal_fails_after_the_site_was_checked(tmp_path: Path, step: str) -> None:
    calls, out, _ = ci_run(tmp_path, fails(step), status=1)
    assert calls == MAKES
    (failed,) = re.findall(r"^Failed: (.*)$", out, re.MULTILINE)
    assert failed.startswith(f"make {step}") and "Not reached" not in out


def test_a_test_that_fails_ends_the_run_at_once(tmp_path: Path) -> None:
    calls, out, _ = ci_run(tmp_path, fails("test"), status=2)
    assert calls == MAKES[:2] and "Failed: make test\n" in out
    assert re.findall(r"^Not reached: (.*)$", out, re.MULTILINE) == MAKES[2:]


def test_the_seconds_of_each_step_and_their_sum(tmp_path: Path) -> None:
    _, out, _ = ci_run(tmp_path, THERE)
    rows = re.findall(r"^ *(\d+) s  (.*)$", out, re.MULTILINE)
    assert [name for _, name in rows] == [*MAKES, "in all"]
    seconds = [int(number) for number, _ in rows]
    assert sum(seconds[:-1]) == seconds[-1]


def test_the_last_lines_say_what_was_not_run_and_what_runs_it(tmp_path: Path) -> None:
    _, out, _ = ci_run(tmp_path, THERE)
    last = out.rpartition("s  in all\n")[2].splitlines()
    assert len(last) >= 6 and all(line.startswith("Not run here: ") for line in last)
    weekly = (ROOT / ".github" / "workflows" / "weekly.yml").read_text(encoding="utf-8")
    for line in last:
        (target,) = re.findall(r": make ([a-z-]+)", line)
        assert not line.endswith("(weekly)") or f"make {target}" in weekly
    assert {"robustness", "records", "site-check", "links"} <= set(
        re.findall(r"make (\S+)", out)
    )
