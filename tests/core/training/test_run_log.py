"""posttrain.core.training.run_log: what a run says, and the file that stays."""

import json
import sys
import types
from pathlib import Path

import pytest

from posttrain.core.training.run_log import RunLog, check_reporters, read_metrics


def run(log: RunLog, *steps: int) -> None:
    for step in steps:
        log.step(step, loss=1 / step, learning_rate=1e-3, tokens=10, grad_norm=2.0)


def test_rows_and_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = RunLog(tmp_path, 3)
    log.evaluation(0, {"val_loss": 2.5})
    run(log, 1, 2, 3)
    log.samples(3, [("Two\nlines?", "Yes, " + "very " * 60)])
    log.close()
    rows = read_metrics(log.path)
    assert [row["event"] for row in rows] == ["evaluation", *["step"] * 3, "samples"]
    assert rows[2]["loss"] == 0.5 and rows[2]["tokens"] == 10 and rows[2]["grad_norm"] == 2.0
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "step    0/3  val_loss 2.500"
    assert said[1].startswith("step    1/3  loss 1.000  lr 1.0e-03  ")
    assert "  > Two lines?" in said and said[-1].endswith(" …")


def test_long_runs_print_about_twenty_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = RunLog(tmp_path, 1000)
    run(log, *range(1, 1001))
    lines = capsys.readouterr().out.splitlines()
    assert 15 <= len(lines) <= 25
    assert len(read_metrics(log.path)) == 1000
    # a line's loss is the mean since the line before
    assert float(lines[1].split("loss ")[1].split()[0]) == pytest.approx(
        sum(1 / step for step in range(2, 51)) / 49, abs=1e-3
    )


def test_a_run_that_goes_on_repeats_no_row(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 9, show=False)
    run(log, 1, 2, 3, 4, 5)
    with log.path.open("a") as file:
        file.write('{"event": "step", "step": 6, "lo')  # a kill in the middle of a line
    run(RunLog(tmp_path, 9, start=4, show=False), 5, 6)
    assert [row["step"] for row in read_metrics(log.path)] == [1, 2, 3, 4, 5, 6]
    run(RunLog(tmp_path, 9, show=False), 1)
    assert [row["step"] for row in read_metrics(log.path)] == [1]
    assert read_metrics(tmp_path / "none") == []


def test_other_tools_get_the_same_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, object]] = []
    for name in ("wandb", "trackio"):
        module = types.ModuleType(name)
        module.__spec__ = types.SimpleNamespace()  # type: ignore[assignment]
        module.init = lambda **x: calls.append(("init", x["config"]))  # type: ignore[attr-defined]
        module.log = lambda row, step: calls.append(("log", (step, row)))  # type: ignore[attr-defined]
        module.finish = lambda: calls.append(("finish", None))  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
        log = RunLog(tmp_path, 1, report_to=[name], config={"r": 8}, show=False)
        log.evaluation(0, {"val_loss": 2.0})
        run(log, 1)
        log.close()
        assert calls[0] == ("init", {"r": 8}) and calls[-1] == ("finish", None)
        assert calls[1] == ("log", (0, {"eval/loss": 2.0}))
        step, row = calls[2][1]  # type: ignore[misc]
        assert step == 1 and row["train/loss"] == 1.0 and row["train/learning_rate"] == 1e-3
        calls.clear()


def test_tools_that_are_not_there_are_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ValueError, match="report-to is 'mlflow': choose from tensorboard"):
        check_reporters(["mlflow"])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("tensorboard", "wandb", "trackio"):
        with pytest.raises(ValueError, match=f"{name} is not installed: pip install {name}"):
            RunLog(tmp_path / "new", 3, report_to=[name])
    assert not (tmp_path / "new").exists()


def test_a_line_that_is_no_row_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('[1]\n{"step": "x"}\n\n' + json.dumps({"event": "step", "step": 1}) + "\n")
    assert read_metrics(path) == [{"event": "step", "step": 1}]


def test_a_single_name_is_no_list_of_reporters() -> None:
    with pytest.raises(
        ValueError, match="report-to is 'tensorboard': give a sequence of texts"
    ):
        check_reporters("tensorboard")


def test_tensorboard_reads_what_was_written(tmp_path: Path) -> None:
    """With the package itself, where it is installed; it is no requirement."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import (  # type: ignore
        EventAccumulator,
    )

    log = RunLog(tmp_path, 2, report_to=("tensorboard",), show=False)
    log.step(1, 2.0, 1e-3, 100, 0.5)
    log.step(2, 1.5, 1e-3, 100, 0.4)
    log.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.0), (2, 1.5)]
