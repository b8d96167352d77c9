"""posttrain.sft.practice.row_counts: rows that are different, and a part in small."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest

from posttrain.sft.data.checks import find_leaks
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.data.duplicates import same_words_key
from posttrain.sft.practice import row_counts
from posttrain.sft.practice.row_counts import PASSES, PRESET, SIZES, parts, run, training_rows
from posttrain.sft.practice.tuning import steps_of


def test_more_rows_are_other_rows() -> None:
    data, rows = build_dataset(), training_rows(max(SIZES))
    assert len(rows) == 1000 and rows[:600] == data["train"]
    asked = [row["messages"][1]["content"] for row in rows]
    assert len({same_words_key(text) for text in asked}) == 1000
    held_out = [row["messages"][1]["content"] for row in data["test"] + data["validation"]]
    assert not find_leaks({"train": asked, "held out": held_out})
    assert training_rows(50) == rows[:50]
    with pytest.raises(ValueError, match="count is 0"):
        training_rows(0)


def test_each_size_reads_its_rows_as_often() -> None:
    assert [steps_of(PRESET, size, PASSES).training.max_steps for size in SIZES] == [
        12, 25, 50, 125, 250,
    ]  # fmt: skip
    assert len(parts((0, 1, 2))) == 3 * len(SIZES)


def test_a_part_has_a_digit_for_each_question(small: Callable[[ModuleType], None]) -> None:
    small(row_counts)
    (row,) = run({"rows": 50, "seed": 1})
    assert set(row["right"]) <= {"0", "1"} and len(row["right"]) == 320
    assert row["steps"] == 12 and row["diverged"] is None and 0 < row["val_loss"] < 12
