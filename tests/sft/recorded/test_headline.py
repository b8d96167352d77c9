"""posttrain.sft.recorded.headline: one row for each seed, one digit for each question."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.sft.experiments import Answers
from posttrain.sft.recorded import headline
from posttrain.sft.recorded.headline import parts, run

RIGHT = "Answer: {}\nWhy: because.\nConfidence: high"


def test_a_row_has_a_digit_for_each_question(monkeypatch: pytest.MonkeyPatch):
    rows: list[Any] = headline.answers_of.__globals__["build_dataset"]()["test"][:3]
    asked: list[Any] = []

    def answers(tuned: Any, **options: Any) -> Answers:
        asked.append((tuned, options))
        if tuned is None:  # loosely right, wrong, loosely right
            texts = [rows[0]["answer"], "?", f"it is {rows[2]['answer']}"]
        else:  # right in the format, right in the format, right outside of it
            texts = [RIGHT.format(row["answer"]) for row in rows[:2]] + [rows[2]["answer"]]
        return Answers(rows, texts)

    history = SimpleNamespace(evaluations=[{"step": 0, "val_loss": 2.123456}], seconds=1.26)
    tuned = SimpleNamespace(history=history, diverged=None)
    monkeypatch.setattr(headline, "answers_of", answers)
    monkeypatch.setattr(headline, "fine_tuned", lambda preset, seed: tuned)
    (row,) = run({"seed": 4})
    assert row["seed"] == 4 and row["ids"] == [r["id"] for r in rows]
    assert row["tuned_right"] == row["tuned_format"] == "110"
    assert row["base_format"] == "000" and row["base_right"][1] == "0"
    assert row["val_losses"] == {"0": 2.12346} and row["seconds"] == 1.3
    assert asked[0] == (None, {"prompt": "few-shot", "shots": 3}) and asked[1][0] is tuned


def test_one_part_for_each_seed():
    assert parts((3, 4)) == [{"seed": 3}, {"seed": 4}]
