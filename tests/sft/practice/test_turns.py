"""posttrain.sft.practice.turns: the same questions, trained in three ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.practice import turns
from posttrain.sft.practice.turns import WAYS, examples_for, joined, parts, run

ROWS = build_dataset()["train"][:16]


def test_a_conversation_of_several_rows() -> None:
    whole, last = joined(ROWS[:3]), joined(ROWS[:3], only_last=True)
    assert [m["role"] for m in whole] == ["system"] + ["user", "assistant"] * 3
    assert [m["content"] for m in whole] == [m["content"] for m in last]
    assert not any("weight" in message for message in whole)
    assert [m.get("weight") for m in last if m["role"] == "assistant"] == [0, 0, None]


def test_the_ways_train_the_same_answers_or_a_quarter_of_them() -> None:
    every, last, single = (examples_for(way, ROWS) for way in WAYS)
    trained = [sum(sum(x.assistant_mask) for x in way[0]) for way in (every, last, single)]
    read = [sum(len(x.input_ids) for x in way[0]) for way in (every, last, single)]
    assert trained[0] == trained[2] and 0.1 < trained[1] / trained[0] < 0.5
    assert read[0] == read[1] < read[2]  # the system message is read once for four
    assert [len(way[0]) for way in (every, last, single)] == [4, 4, 16]
    assert [way[1].batch_size for way in (every, last, single)] == [4, 4, 16]
    assert len({way[1].training.max_steps for way in (every, last, single)}) == 1
    with pytest.raises(ValueError, match="no way 'none'"):
        examples_for("none", ROWS)


def test_a_part_asks_in_both_ways(small: Callable[..., None]) -> None:
    small(turns, QUESTIONS=32, IN_CONVERSATION=6)
    (row,) = run({"way": WAYS[0], "seed": 0})
    assert (len(row["alone"]), len(row["fourth"]), row["steps"]) == (320, 6, 2)
    assert 0 < row["trained"] < row["read"]
    assert len(parts((0, 1))) == 2 * len(WAYS)
