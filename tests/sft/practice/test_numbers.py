"""posttrain.sft.practice.numbers: each summary on outcomes that are counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.sft.practice.forgetting import BASE, PLAIN, REMEDIES
from posttrain.sft.practice.numbers import (
    checkpointing,
    forgetting,
    over_seeds,
    packing,
    row_counts,
    share,
    turns,
)
from posttrain.sft.practice.turns import WAYS


def test_shares_and_intervals() -> None:
    assert share("0110") == 0.5
    mean, low, high = over_seeds([0.1, 0.2, 0.3])
    assert mean == pytest.approx(0.2) and low == pytest.approx(
        0.2 - 4.3027 * 0.1 / 3**0.5, abs=1e-4
    )
    assert high - mean == pytest.approx(mean - low)


def test_twice_the_rows() -> None:
    rights = {50: ("1000", "1100"), 100: ("1100", "1110"), 200: ("1110", "1111")}
    outcomes = [
        {"rows": size, "seed": seed, "right": right, "val_loss": 1 / size}
        for size, pair in rights.items()
        for seed, right in reversed(list(enumerate(pair)))
    ]
    found = row_counts(outcomes)
    assert found["accuracy"]["50"][0] == 0.375 and found["accuracy"]["200"][0] == 0.875
    assert found["doubling"] == pytest.approx([0.25] * 3)  # both seeds gain a quarter
    assert found["n"] == 4 and found["val_loss"]["100"] == pytest.approx([0.01] * 3)


def test_a_remedy_is_measured_against_the_run_without() -> None:
    def row(remedy: str, seed: int, chats: float, plays: float, right: str) -> dict[str, Any]:
        lost = {"chats": [chats, chats], "plays": [plays]}
        return {"remedy": remedy, "seed": seed, "right": right, **lost}

    outcomes = [row(BASE, 0, 1.0, 3.0, "00")]
    for seed in (0, 1):
        for remedy in REMEDIES:
            outcomes.append(row(remedy, seed, 1.4 + 0.2 * seed, 3.5, "11"))
        outcomes[-1 - list(REMEDIES)[::-1].index("half the steps")] = row(
            "half the steps", seed, 1.1 + 0.2 * seed, 3.25, "01"
        )
    found = forgetting(outcomes)
    assert found["base"] == {"chats": 1.0, "plays": 3.0}
    assert found["n"] == {"chats": 2, "plays": 1, "right": 2}
    plain, half = found["remedies"][PLAIN], found["remedies"]["half the steps"]
    assert plain["chats"][0] == pytest.approx(0.5) and "costs" not in plain
    assert half["saves_chats"] == pytest.approx([0.3] * 3)  # paired: the seeds cancel
    assert half["saves_plays"] == pytest.approx([0.25] * 3)
    assert half["costs"] == pytest.approx([0.5] * 3)
    assert found["remedies"]["5 % replay"]["costs"] == pytest.approx([0.0] * 3)


def test_all_answers_against_the_last() -> None:
    rights = {WAYS[0]: "1110", WAYS[1]: "1000", WAYS[2]: "1100"}
    outcomes = [
        {"way": way, "seed": seed, "alone": rights[way], "fourth": rights[way][:2],
         "read": 10, "trained": 4}
        for way in WAYS
        for seed in (0, 1)
    ]  # fmt: skip
    found = turns(outcomes)
    assert found["all_less_last"]["alone"] == pytest.approx([0.5] * 3)
    assert found["all_less_single"]["alone"] == pytest.approx([0.25] * 3)
    assert found["all_less_last"]["fourth"] == pytest.approx([0.5] * 3)
    assert found["n"] == {"alone": 4, "fourth": 2} and found[WAYS[0]]["trained"] == 4


def test_times_are_multiples_of_the_packed_one() -> None:
    outcomes = [
        {"layout": layout, "seed": seed, "positions": positions, "tokens": 60,
         "loss": loss, "seconds_cpu": seconds * (1 + seed)}
        for seed in (0, 1)
        for layout, positions, loss, seconds in (
            ("padded", 120, 10.1, 4.0), ("sorted", 80, 10.0, 2.5), ("packed", 60, 10.0, 2.0),
        )
    ]  # fmt: skip
    found = packing(outcomes)
    assert found["padded"] == {"padding": 0.5, "time": pytest.approx([2.0] * 3)}
    assert found["sorted"]["padding"] == pytest.approx(0.25)
    assert found["packed"]["time"] == [1.0] * 3 and found["loss"] == pytest.approx(0.01)


def test_memory_and_time_of_checkpointing() -> None:
    outcomes = [
        {"rows": 4, "T": 8, "seed": seed, "checkpointing": on, "growth": 40 if on else 100,
         "predicted": 39 if on else 90, "losses": [2.0, 1.0 + 0.1 * on * seed],
         "seconds_cpu": 1.3 if on else 1.0}
        for seed in (0, 1)
        for on in (True, False)
    ]  # fmt: skip
    found = checkpointing(outcomes)
    (shape,) = found["shapes"]
    assert shape["memory"] == pytest.approx([0.4] * 3) and shape["time"] == pytest.approx(
        [1.3] * 3
    )
    assert (shape["off"], shape["on"], shape["off_predicted"], shape["on_predicted"]) == (
        100, 40, 90, 39,
    )  # fmt: skip
    assert found["losses_differ"] == pytest.approx(0.1)
