"""posttrain.dpo.recorded.numbers: each summary on outcomes that are counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.core.stats import wilson_interval
from posttrain.dpo.recorded.numbers import engines, people, quantities_of, settings, win_rate_of


def outcome(varied: str, seed: int, scores: str, **other: Any) -> dict[str, Any]:
    return {
        "varied": varied, "seed": seed, "scores": scores, "words": [10, 20], "finished": "10",
        "accuracy": 0.8, "kl": 0.5, "chosen_logps": -50.0, "beta": 0.1, "flipped": 0.0,
        "pairs": 300, **other,
    }  # fmt: skip


def test_a_run_is_reduced_to_shares_and_means() -> None:
    found = quantities_of(outcome("main", 0, "4420"))
    assert found["complies"] == 0.5 and found["score"] == 2.5
    assert found["finished"] == 0.5 and found["words"] == 15


def test_differences_are_taken_seed_by_seed() -> None:
    rows = [
        outcome("main", 0, "4400"), outcome("main", 1, "4444"),
        outcome("beta", 1, "4440", beta=0.3), outcome("beta", 0, "4000", beta=0.3),
        outcome("robust", 0, "0000", flipped=0.3), outcome("robust", 1, "0000", flipped=0.3),
    ]  # fmt: skip
    found = settings(rows)
    assert found["levels"]["main"]["complies"][0] == 0.75
    assert found["differences"]["beta 0.3"]["complies"] == pytest.approx([-0.25] * 3)
    assert found["differences"]["robust 0.3"]["complies"][0] == -0.75
    assert "main" not in found["differences"]


def test_engines_are_compared_with_the_run_by_hand() -> None:
    rows = [
        {"engine": "by hand", "losses": [0.7, 0.5], "pairs": 8, "seconds": 2.0},
        {"engine": "TRL", "losses": [0.7, 0.6], "pairs": 8, "seconds": 4.0},
    ]
    found = engines(rows)
    assert found["apart"] == {"by hand": 0, "TRL": pytest.approx(0.1)}
    assert found["pairs_per_second"] == {"by hand": 4, "TRL": 2}


def test_a_judge_agrees_where_both_orders_name_the_persons_choice() -> None:
    row = {"judge": "j", "chosen_first": "ccrtc", "rejected_first": "crrtc"}
    found = people([row])["j"]
    assert found["n"] == 5 and found["consistent"] == pytest.approx(3 / 5)
    assert found["agrees"][0] == pytest.approx((2 + 1) / 5) and found["first"] == 0.2


def test_without_ties_it_is_wilsons_interval() -> None:
    found, expected = win_rate_of(7, 3, 10), wilson_interval(7, 10)
    assert (found.value, found.low, found.high) == pytest.approx(
        (expected.value, expected.low, expected.high)
    )
    assert win_rate_of(0, 0, 4).value == 0.5
