"""posttrain.dpo.runs.watching: the line, the row, and what stands in both."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.core.training.run_log import read_metrics
from posttrain.dpo.presets import CPU
from posttrain.dpo.runs.watching import open_log
from posttrain.dpo.training.dpo_run import PairMetrics
from posttrain.sft.training.watching import Watching


def test_a_step_an_evaluation_and_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = open_log(Watching(str(tmp_path)), CPU)
    for step, margin in ((1, 0.0), (2, 0.25), (3, 0.75), (4, 0.5)):
        log.pair_step(step, PairMetrics(0.7, -40.0, -60.5, margin, 1.0), 1e-4, 90, 2.0)
    log.pair_evaluation(4, {"loss": 0.6, "margin": 0.2})
    log.close()
    shown = capsys.readouterr().out
    assert "log-probability -40.0 chosen, -60.5 rejected" in shown
    assert "accuracy 1.00  margin +0.000" in shown
    assert "margin +0.250" in shown  # of step 2: each line is a mean since the last one
    assert "margin +0.625" in shown  # of steps 3 and 4
    assert "val_loss 0.600  val_margin 0.200" in shown
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["event"] for row in rows] == ["step"] * 4 + ["evaluation"]
    assert rows[2]["margin"] == 0.75 and rows[2]["chosen_logps"] == -40.0
    assert rows[2]["loss"] == 0.7 and rows[2]["tokens"] == 90
    assert rows[4] == {"event": "evaluation", "step": 4, "val_loss": 0.6, "val_margin": 0.2}


def test_a_run_that_goes_on_drops_what_it_repeats(tmp_path: Path) -> None:
    found = PairMetrics(0.7, -40.0, -60.5, 0.0, 1.0)
    log = open_log(Watching(str(tmp_path), show=False), CPU)
    for step in (1, 2, 3):
        log.pair_step(step, found, 1e-4, 90, 2.0)
    log.close()
    log = open_log(Watching(str(tmp_path), show=False), CPU, start=2)
    log.pair_step(3, found, 1e-4, 91, 2.0)
    log.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [(row["step"], row["tokens"]) for row in rows] == [(1, 90), (2, 90), (3, 91)]
