"""posttrain.sft.exercises.own_rows: right answers, and every named wrong one."""

from typing import Any

import pytest

from posttrain.sft.exercises.own_rows import OWN_ROWS, grade_turns

NAMES = {"human": "user", "gpt": "assistant"}


def read(row: dict[str, Any], trained: Any, names: dict[str, str] = NAMES) -> list[list[Any]]:
    turns = row["conversations"]
    return [[names.get(t["from"], t["from"]), t["value"], trained(t)] for t in turns]


def right(row: dict[str, Any]) -> list[list[Any]]:
    return read(row, lambda t: t["from"] == "gpt" and t.get("weight") in (None, 1))


WRONG = [
    (lambda row: read(row, lambda t: t["from"] == "gpt"),
     "You train an answer whose weight is 0"),
    (lambda row: read(row, lambda t: t["from"] == "gpt" and t.get("weight") == 1),
     "You leave answers without a weight untrained"),
    (lambda row: read(row, lambda t: t["from"] == "gpt" and bool(t.get("weight", True))),
     "You leave answers untrained whose weight is null"),
    (lambda row: [[a, b, True] for a, b, _ in right(row)], "You train the user's messages too"),
    (lambda row: read(row, lambda t: t["from"] == "gpt" and t.get("weight") in (None, 1), {}),
     "You kept the names of ShareGPT"),
    (lambda row: [x for x in right(row) if x[0] != "system"], "You dropped the system message"),
    (lambda row: [[*x[:2], x[2] and x is found[-1]] for found in [right(row)] for x in found],
     "You train the last answer alone"),
    (lambda row: [[a, b.strip(), c] for a, b, c in right(row)], "You stripped the texts"),
]  # fmt: skip


def test_a_right_answer_passes() -> None:
    assert grade_turns(right).passed


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_each_mistake_is_named(wrong: Any, sentence: str) -> None:
    found = grade_turns(wrong)
    assert not found.passed and sentence in str(found)


def test_every_mistake_is_tried() -> None:
    assert len(WRONG) == len(OWN_ROWS)
    assert not grade_turns(lambda row: None).passed  # type: ignore[arg-type, return-value]
