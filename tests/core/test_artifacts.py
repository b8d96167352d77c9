"""The store under two processes, kills, a full disk, damage and edited code."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from posttrain.core import artifacts, machine
from posttrain.core.artifacts import artifact_key, get_or_build, list_artifacts, remove, show
from posttrain.core.errors import ArtifactError
from posttrain.core.storage.store import store_folder

pytestmark = pytest.mark.usefixtures("store")

MACHINE = {"seconds": 1.0, "created": "2026-01-01T00:00:00+00:00"}


@pytest.fixture(autouse=True)
def _quick_record(monkeypatch: pytest.MonkeyPatch):
    """Describing the machine imports torch; one test here does it for real."""
    monkeypatch.setattr(artifacts, "run_record", lambda since: MACHINE)


def simple(out: Path, scratch: Path) -> dict:
    (out / "sub").mkdir()
    (out / "sub" / "weights.bin").write_bytes(b"123")
    return {"loss": 1.5}


def refuse(out: Path, scratch: Path) -> dict:
    raise AssertionError("built although it was stored")


def build(function=simple, name="run", **inputs):
    inputs = {"config": {"lr": 0.1}, "data": "d1", "modules": []} | inputs
    return get_or_build(name, function, **inputs)


def visible(store: Path) -> list[str]:
    """Everything in the store but the locks."""
    root = store / "artifacts"
    paths = root.rglob("*") if root.exists() else []
    return sorted(p.relative_to(root).as_posix() for p in paths if ".locks" not in p.parts)


def test_built_once_and_then_loaded(store: Path):
    first = build()
    again = build(refuse)
    assert not first.reused and again.reused
    assert first.folder == again.folder == store / "artifacts" / "run" / first.record["key"]
    assert (again.folder / "sub" / "weights.bin").read_bytes() == b"123"
    assert first.record == again.record and again.metrics == {"loss": 1.5}
    key = first.record["key"]
    assert visible(store) == ["run", *(f"run/{key}{end}" for end in ENDS)]


ENDS = ("", "/record.json", "/sub", "/sub/weights.bin")


def test_the_record_says_what_was_made_from_what(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(artifacts, "run_record", machine.run_record)
    record = build(modules=["posttrain.core.errors"]).record
    assert record["config"] == {"lr": 0.1} and record["data"] == "d1"
    assert set(record["modules"]) == {"posttrain.core", "posttrain.core.errors"}
    facts = record["files"]["sub/weights.bin"]
    assert facts["size"] == 3 and facts["sha256"].startswith("a665a459")
    assert record["seconds"] < 60 and record["created"].startswith("20")
    assert record["machine"]["versions"]["torch"] == record["torch"]


@dataclass(frozen=True)
class Config:
    lr: float = 0.1
    sizes: tuple[int, ...] = (1, 2)


def test_the_key_depends_on_every_input_and_on_nothing_else(monkeypatch: pytest.MonkeyPatch):
    key = artifact_key(Config(), "d", ["posttrain.core.errors"])
    assert len(key) == 16 and int(key, 16) >= 0
    assert key == artifact_key(
        {"sizes": [1, 2], "lr": 0.1}, "d", iter(["posttrain.core.errors"])
    )
    others = {
        artifact_key(Config(lr=0.2), "d", ["posttrain.core.errors"]),
        artifact_key(Config(), "e", ["posttrain.core.errors"]),
        artifact_key(Config(), "d", ["posttrain.core.storage.paths"]),
        artifact_key(Config(), "d", []),
    }
    monkeypatch.setattr(artifacts, "package_version", lambda name: "99.0")
    others.add(artifact_key(Config(), "d", ["posttrain.core.errors"]))
    assert len(others) == 5 and key not in others


def test_a_config_that_is_no_data_is_named():
    with pytest.raises(TypeError, match=r"config of an artifact must be plain data: <built-in"):
        build(config={"f": print})
    with pytest.raises(TypeError, match="plain data: keys must be"):
        build(config={(1, 2): 3})


@pytest.mark.parametrize("name", ["", "a/b", "..", ".hidden", "a b", "x" * 81])
def test_names_that_are_no_folder_names_are_refused(name: str):
    with pytest.raises(ValueError, match="use up to 80 letters, digits"):
        build(refuse, name=name)


def test_metrics_must_be_a_dict_that_json_can_hold(store: Path):
    with pytest.raises(TypeError, match="dict of metrics or None, not float"):
        build(lambda out, scratch: 0.5)
    with pytest.raises(TypeError, match="cannot be written as JSON"):
        build(lambda out, scratch: {"f": print})
    assert visible(store) == ["run"]
    assert build(lambda out, scratch: None).metrics == {}


def test_the_stores_own_file_name_is_refused(store: Path):
    with pytest.raises(ValueError, match=r"record\.json: that name is the store's own"):
        build(lambda out, scratch: (out / "record.json").touch())
    assert visible(store) == ["run"]


# --- interruptions ---


def test_an_error_leaves_only_what_was_kept_in_scratch(store: Path):
    def fails(out: Path, scratch: Path) -> dict:
        (out / "half.bin").touch()
        (scratch / "step-3").touch()
        raise KeyboardInterrupt

    def resumes(out: Path, scratch: Path) -> dict:
        return {"found": [path.name for path in scratch.iterdir()]}

    with pytest.raises(KeyboardInterrupt):
        build(fails)
    key = artifact_key({"lr": 0.1}, "d1", [])
    assert visible(store) == ["run", f"run/.{key}.scratch", f"run/.{key}.scratch/step-3"]
    artifact = build(resumes)
    assert artifact.metrics == {"found": ["step-3"]} and artifact.record["resumed"]
    assert visible(store) == ["run", f"run/{key}", f"run/{key}/record.json"]


CHILD = """
import os, signal, sys
from pathlib import Path
from posttrain.core import artifacts
from posttrain.core.storage import store
artifacts.run_record = lambda since: {"seconds": 1.0, "created": "2026"}
where = sys.argv[1]

def die(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGKILL)

def build(out, scratch):
    with Path(os.environ["COUNT"]).open("a") as file:
        file.write("built ")
    (out / "half.bin").write_text("half")
    (scratch / "step-1").touch()
    print("building", flush=True)
    if where == "building":
        sys.stdin.readline()
    (out / "half.bin").rename(out / "whole.bin")
    return {"loss": 2.0}

if where == "writing the record":
    artifacts.write_json_atomic = die
if where == "renaming":
    rename = Path.rename
    Path.rename = lambda self, to: die() if self.suffix == ".tmp" else rename(self, to)
if where == "removing scratch":
    artifacts.shutil.rmtree = die
artifact = artifacts.get_or_build("run", build, config={"lr": 0.1}, data="d1", modules=[])
print("reused" if artifact.reused else "built", flush=True)
"""


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """Start a process that builds the artifact ``run``; none outlives the test."""
    monkeypatch.setenv("COUNT", str(tmp_path / "count"))
    (tmp_path / "child.py").write_text(CHILD)
    children = []

    def run(where: str) -> subprocess.Popen:
        command = [sys.executable, str(tmp_path / "child.py"), where]
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        children.append(subprocess.Popen(command, text=True, **pipes))
        return children[-1]

    yield run
    for child in children:
        child.kill()
        child.communicate()


def count(tmp_path: Path) -> int:
    return len((tmp_path / "count").read_text().split())


@pytest.mark.parametrize(
    ("where", "visible_after"),
    [
        ("building", False),
        ("writing the record", False),
        ("renaming", False),
        ("removing scratch", True),
    ],
)
def test_a_kill_leaves_no_half_artifact_and_the_next_try_goes_on(
    store: Path, tmp_path: Path, start, where: str, visible_after: bool
):
    child = start(where)
    assert child.stdout.readline() == "building\n"
    if where == "building":
        os.kill(child.pid, signal.SIGKILL)
    assert child.wait(timeout=30) == -signal.SIGKILL
    key = artifact_key({"lr": 0.1}, "d1", [])
    folder = store / "artifacts" / "run" / key
    assert folder.exists() == visible_after
    assert (folder.parent / f".{key}.scratch" / "step-1").exists()
    leftovers = [path.name for path in folder.parent.glob("*.tmp")]
    assert len(leftovers) == (0 if visible_after else 1)

    def resumes(out: Path, scratch: Path) -> dict:
        return {"found": [path.name for path in scratch.iterdir()]}

    artifact = build(resumes)
    assert artifact.reused == visible_after
    assert artifact.metrics == ({"loss": 2.0} if visible_after else {"found": ["step-1"]})
    build(config="another key")  # sweeps what is of no more use
    names = [path.name for path in folder.parent.glob(".*")]
    assert names == [] and count(tmp_path) == 1


def test_of_two_processes_one_builds_and_the_other_waits(tmp_path: Path, start):
    first = start("building")
    assert first.stdout.readline() == "building\n"
    second = start("waiting")
    assert "another process is building run/" in second.stderr.readline()
    with pytest.raises(ArtifactError, match="another process is working on"):
        remove_while_building()
    first.stdin.write("go on\n")
    first.stdin.flush()
    assert first.stdout.readline() == "built\n"
    assert second.stdout.readline() == "reused\n"
    assert count(tmp_path) == 1


def remove_while_building() -> None:
    key = artifact_key({"lr": 0.1}, "d1", [])
    folder = store_folder() / "run" / key
    folder.mkdir()  # as if a damaged one were being replaced
    try:
        remove(key)
    finally:
        folder.rmdir()


# --- a full disk ---


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("where", ["build", "record"])
def test_a_full_disk_is_one_sentence_and_leaves_nothing_half(
    store: Path, monkeypatch: pytest.MonkeyPatch, code: int, where: str
):
    def full(*arguments):
        raise OSError(code, os.strerror(code))

    if where == "record":
        monkeypatch.setattr(artifacts, "write_json_atomic", full)
    with pytest.raises(ArtifactError) as caught:
        build(full if where == "build" else simple)
    text = str(caught.value)
    assert f"the disk is full: run/{artifact_key({'lr': 0.1}, 'd1', [])}" in text
    assert str(store) in text and "MiB free now" in text and "set POSTTRAIN_HOME" in text
    assert visible(store) == ["run"]


def test_a_full_disk_at_the_first_folder(store: Path, monkeypatch: pytest.MonkeyPatch):
    def full(self, *arguments, **keywords):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(ArtifactError, match="the disk is full"):
        build(refuse)
    assert not store.exists()


def test_a_store_that_may_not_be_written(monkeypatch: pytest.MonkeyPatch):
    def denied(self, *arguments, **keywords):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(ArtifactError, match=r"cannot write to the store .* set POSTTRAIN_HOME"):
        build(refuse)


# --- damage ---


def lose(folder: Path) -> None:
    (folder / "sub" / "weights.bin").unlink()


def shorten(folder: Path) -> None:
    (folder / "sub" / "weights.bin").write_bytes(b"12")


def flip(folder: Path) -> None:
    (folder / "sub" / "weights.bin").write_bytes(b"124")


def truncate_record(folder: Path) -> None:
    (folder / "record.json").write_text('{"name": "run", "fi')


def lose_record(folder: Path) -> None:
    (folder / "record.json").unlink()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lose, "sub/weights.bin is missing"),
        (shorten, "sub/weights.bin is not what was stored"),
        (flip, "sub/weights.bin is not what was stored"),
        (truncate_record, "record.json cannot be read"),
        (lose_record, "record.json cannot be read"),
    ],
)
def test_a_damaged_artifact_is_built_again_with_a_warning(damage, reason: str):
    folder = build().folder
    damage(folder)
    with pytest.warns(UserWarning, match=f"is damaged .{reason}.*building it again"):
        artifact = build()
    assert not artifact.reused and build(refuse).reused
    assert (folder / "sub" / "weights.bin").read_bytes() == b"123"


# --- looking and tidying ---


def test_artifacts_are_listed_by_name_and_found_by_key(monkeypatch: pytest.MonkeyPatch):
    assert list_artifacts() == []
    for day, (name, lr) in enumerate([("b", 1), ("a", 1), ("a", 2)]):
        monkeypatch.setattr(
            artifacts,
            "run_record",
            lambda since, day=day: {**MACHINE, "created": f"2026-{day}"},
        )
        build(name=name, config=lr)
    found = [(a.record["name"], a.record["config"]) for a in list_artifacts()]
    assert found == [("a", 2), ("a", 1), ("b", 1)]
    assert [a.record["config"] for a in show("a")] == [2, 1]
    key = artifact_key(2, "d1", [])
    assert [a.folder.name for a in show(key[:6])] == [key]
    assert [a.folder.name for a in show(f"a/{key}")] == [key]
    with pytest.raises(ArtifactError, match=r"no artifact 'c' in .*; it has: a, b\. Run"):
        show("c")
    with pytest.raises(ArtifactError, match="no artifact"):
        show(f"b/{key}")


def test_a_damaged_record_is_listed_and_can_be_removed():
    folder = build().folder
    truncate_record(folder)
    (artifact,) = list_artifacts()
    assert artifact.record["name"] == "run" and "cannot be read" in artifact.record["damage"]
    assert remove(folder.name) == [f"run/{folder.name}"]
    assert list_artifacts() == []


def test_removing_a_key_keeps_the_others_and_their_checkpoints(store: Path):
    def interrupted(out: Path, scratch: Path) -> dict:
        (scratch / "step-1").touch()
        raise KeyboardInterrupt

    one, two = build(config=1), build(config=2)
    with pytest.raises(KeyboardInterrupt):
        build(interrupted, config=3)
    assert remove(f"run/{one.folder.name}") == [f"run/{one.folder.name}"]
    assert [a.folder for a in list_artifacts()] == [two.folder]
    assert len(list(two.folder.parent.glob(".*.scratch"))) == 1
    assert remove("run") == [f"run/{two.folder.name}"]
    assert visible(store) == []


@pytest.mark.parametrize("name", ["..", ".", "", "run/..", ".locks", "/"])
def test_removing_stays_inside_the_store(store: Path, name: str):
    build()
    (store / ".x.tmp").mkdir()
    with pytest.raises(ArtifactError, match="no artifact"):
        remove(name)
    assert (store / ".x.tmp").exists() and build(refuse).reused


def test_the_record_is_json_for_other_programs():
    folder = build().folder
    assert json.loads((folder / "record.json").read_text())["metrics"] == {"loss": 1.5}
