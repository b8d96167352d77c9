"""posttrain.dpo.command and ``posttrain dpo``. Runs themselves: dpo/runs/test_own_run.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posttrain.cli import app
from posttrain.dpo import command
from posttrain.dpo.command import dpo_command
from posttrain.dpo.presets import CPU, PRESETS, T4
from posttrain.dpo.runs.own_run import PairsRequest

runner = CliRunner()


def test_every_option_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    monkeypatch.setattr(command, "dpo_command", lambda *a, **k: calls.append((a, k)))
    options = [
        "dpo", "--preset", "t4", "--data", "p.jsonl", "--adapter", "sft", "--val", "v.jsonl",
        "--model", "m", "--set", "beta=0.3", "--set", "engine=trl", "--steps", "5", "--seed",
        "3", "--out", "o", "--resume", "--dry-run", "--on-bad-row", "drop", "--report-to",
        "wandb", "--prompt", "Hi", "--prompt", "Ho", "--print-every", "7",
    ]  # fmt: skip
    assert runner.invoke(app, options).exit_code == 0
    (((request, out), options_given),) = calls
    assert request == PairsRequest(
        T4, "p.jsonl", validation="v.jsonl", model="m", adapter=Path("sft"),
        settings=("beta=0.3", "engine=trl"), steps=5, seed=3, on_bad_row="drop",
        report_to=("wandb",), prompts=("Hi", "Ho"), print_every=7,
    )  # fmt: skip
    assert out == Path("o") and options_given["resume"] and options_given["dry_run"]
    calls.clear()
    assert runner.invoke(app, ["dpo", "--data", "p.jsonl"]).exit_code == 0
    (((request, out), options_given),) = calls
    assert request == PairsRequest(CPU, "p.jsonl") and out is None
    assert not options_given["resume"] and not options_given["dry_run"]


def test_the_help_names_the_presets() -> None:
    said = runner.invoke(app, ["dpo", "--help"], env={"COLUMNS": "200"}).output
    *others, last = PRESETS
    assert f"{', '.join(others)} or {last}." in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data", "missing.jsonl"], "missing.jsonl"),
        (["--data", "p.jsonl", "--preset", "tpu"], "there is no preset 'tpu': choose one of"),
        (["--data", "p.jsonl", "--on-bad-row", "skip"], "--on-bad-row is 'skip': choose error"),
        (["--data", "p.jsonl", "--set", "betta=1"], "did you mean loss.beta"),
        ([], "Missing option '--data'"),
    ],
)
def test_bad_input_is_one_line(options: list[str], sentence: str, tmp_path: Path) -> None:
    found = runner.invoke(app, ["dpo", *options, "--out", str(tmp_path / "out")])
    assert found.exit_code == 2 and sentence in found.output
    assert not (tmp_path / "out").exists()


def test_no_folder_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--resume without --out"):
        dpo_command(PairsRequest(CPU, "p.jsonl"), resume=True)
