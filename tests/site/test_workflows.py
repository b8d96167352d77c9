"""What GitHub runs for us: pinned, with few permissions, and made of our own commands."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
ACTIONS = sorted((GITHUB / "actions").glob("*/action.yml"))
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40}")
USES = re.compile(r"^\s*(?:- )?uses:\s*(\S+)(.*)$", re.MULTILINE)
# The only jobs that may write, and what.
MAY_WRITE = {
    ("publish.yml", "pages"): {"pages", "id-token"},
    ("publish.yml", "notebooks"): {"contents"},
    ("publish.yml", "release"): {"contents"},
}


def read(path: Path) -> dict[Any, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def jobs() -> list[tuple[str, str, dict[str, Any]]]:
    return [(w.name, name, job) for w in WORKFLOWS for name, job in read(w)["jobs"].items()]


def scripts() -> list[tuple[str, str]]:
    """All shell scripts, with the file that holds each."""
    steps = [(name, step) for name, _, job in jobs() for step in job["steps"]]
    for path in ACTIONS:
        steps += [(path.parent.name, step) for step in read(path)["runs"]["steps"]]
    return [(name, step["run"]) for name, step in steps if "run" in step]


def unpinned(text: str) -> list[str]:
    """Actions of others that are not pinned by hash, or whose version is not said."""
    return [
        name
        for name, comment in USES.findall(text)
        if not name.startswith("./")
        and not (PINNED.fullmatch(name) and re.fullmatch(r" # v\d+\.\d+\.\d+", comment))
    ]


def actionlint(*files: Path) -> subprocess.CompletedProcess[str]:
    """Run the checker as ``make test`` does."""
    program = Path(sys.executable).with_name("actionlint")
    if not program.is_file():
        pytest.skip("actionlint is not installed")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (options,) = re.findall(r"actionlint((?: -\S+)+) \.github/workflows/\*\.yml", makefile)
    return subprocess.run(
        [program, *options.split(), *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_checker_finds_no_fault() -> None:
    done = actionlint(*WORKFLOWS)
    assert (done.stdout, done.returncode) == ("", 0)


def test_the_checker_finds_a_fault(tmp_path: Path) -> None:
    text = WORKFLOWS[0].read_text(encoding="utf-8")
    faulty = tmp_path / "faulty.yml"
    faulty.write_text(text.replace("needs: build", "needs: built"))
    assert 'needs job "built" which does not exist' in actionlint(faulty).stdout


def test_there_is_something_to_test() -> None:
    assert {path.name for path in WORKFLOWS} == {"test.yml", "publish.yml", "weekly.yml"}
    assert ACTIONS and len(jobs()) >= 8 and len(scripts()) >= 10


@pytest.mark.parametrize(
    "path", [*WORKFLOWS, *ACTIONS], ids=lambda path: path.parent.name + path.name
)
def test_every_action_is_pinned(path: Path) -> None:
    assert unpinned(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "uses: actions/checkout@v4 # v4.0.0",
        f"uses: actions/checkout@{'a' * 40}",
        f"- uses: actions/checkout@{'a' * 39} # v4.0.0",
        f"- uses: actions/checkout@{'a' * 40} # newest",
    ],
)
def test_an_action_that_is_not_pinned_is_found(line: str) -> None:
    assert len(unpinned(f"steps:\n  {line}\n")) == 1


def test_an_action_has_one_version_everywhere() -> None:
    versions: dict[str, set[str]] = {}
    for path in [*WORKFLOWS, *ACTIONS]:
        for name, comment in USES.findall(path.read_text(encoding="utf-8")):
            versions.setdefault(name.partition("@")[0], set()).add(name + comment)
    assert {name for name, found in versions.items() if len(found) > 1} == set()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_nothing_by_itself(path: Path) -> None:
    workflow = read(path)
    assert workflow["permissions"] == {}
    assert workflow["concurrency"]["group"]


@pytest.mark.parametrize(("file", "name", "job"), jobs(), ids=lambda value: str(value)[:20])
def test_a_job_may_do_little_and_not_for_long(
    file: str, name: str, job: dict[str, Any]
) -> None:
    written = {scope for scope, access in job["permissions"].items() if access == "write"}
    assert written == MAY_WRITE.get((file, name), set())
    assert 0 < job["timeout-minutes"] <= 240
    # A job that may write runs none of the book's code.
    commands = " ".join(step.get("run", "") for step in job["steps"])
    assert not written or not re.search(r"\bmake\b|\.ci/run|\bpip\b", commands)


def test_no_step_keeps_the_token_and_none_runs_with_a_strangers_rights() -> None:
    for file, name, job in jobs():
        for step in job["steps"]:
            if step.get("uses", "").startswith("actions/checkout@"):
                assert step["with"]["persist-credentials"] is False, f"{file}: {name}"
    for path in WORKFLOWS:
        triggers = read(path)[True]  # YAML 1.1 reads the key `on` as true
        assert "pull_request_target" not in triggers and "workflow_run" not in triggers


def test_no_script_is_put_together_from_what_others_write() -> None:
    assert [script for _, script in scripts() if "${{" in script] == []


def test_each_workflow_starts_when_it_should() -> None:
    triggers = {path.name: read(path)[True] for path in WORKFLOWS}
    assert "pull_request" in triggers["test.yml"]
    assert triggers["test.yml"]["push"]["branches"] == ["**"]
    assert triggers["publish.yml"]["push"]["branches"] == ["main"]
    assert (
        "pull_request" not in triggers["publish.yml"] and "schedule" in triggers["weekly.yml"]
    )


def run_in(file: str, job: str) -> list[str]:
    steps = read(GITHUB / "workflows" / file)["jobs"][job]["steps"]
    return [step["run"].strip() for step in steps if "run" in step]


def test_a_change_must_pass_what_ci_runs() -> None:
    assert ".ci/run" in run_in("test.yml", "test")


def test_the_site_is_checked_before_it_is_shown() -> None:
    commands = run_in("publish.yml", "build")
    order = ["make book FRESH=1", "make notebooks", "make site-check", "make offline"]
    assert [command for command in commands if command in order] == order
    assert commands.index('test ! -e "$POSTTRAIN_HOME"') < commands.index("make book FRESH=1")
    assert read(GITHUB / "workflows" / "publish.yml")["jobs"]["pages"]["needs"] == "build"


def test_every_week_the_book_is_trained_from_nothing() -> None:
    assert run_in("weekly.yml", "cold") == ['test ! -e "$POSTTRAIN_HOME"', "make book FRESH=1"]
    assert "make links" in run_in("weekly.yml", "links")
    newest = read(GITHUB / "workflows" / "weekly.yml")["jobs"]["newest"]
    assert newest["continue-on-error"] is True
    assert any("LOCKFLAGS=--upgrade" in command for command in run_in("weekly.yml", "newest"))


def test_all_commands_are_make_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    rules = re.findall(r"^([a-z][a-z -]*):(?!=)", makefile, re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    asked = {name for _, run in scripts() for name in re.findall(r"\bmake ([a-z-]+)", run)}
    assert asked and asked <= targets
