"""posttrain.pretraining.recorded.stability: numbers from outcomes, checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.pretraining.recorded.stability import explosions, warm_up_effects


def exploded(seed: int, worst: float, stopped_at: int | None) -> dict[str, Any]:
    return {
        "processor": "native", "rate": 3.0, "seed": seed, "start": 4.0, "worst": worst,
        "stopped_at": stopped_at, "losses": [],
    }  # fmt: skip


def test_the_margin_is_that_of_the_run_nearest_to_the_limit():
    rows = [
        exploded(0, 12.0, 20),
        exploded(1, 9.0, 31),
        {**exploded(2, 5.0, None), "rate": 1.0},
    ]
    assert explosions(rows) == {
        "native, rate 3": {"runs": 2, "stopped": 2, "last_stop": 31, "margin": 1.5},
        "native, rate 1": {
            "runs": 1, "stopped": 0, "last_stop": None, "margin": pytest.approx(5 / 6),
        },
    }  # fmt: skip


def ran(seed: int, length: int, end: float | None) -> dict[str, Any]:
    return {
        "processor": "native", "layers": 2, "rate": 0.03, "warmup_steps": length, "seed": seed,
        "first": 4.0, "peak": 5.0, "val_loss": end, "losses": [],
    }  # fmt: skip


def test_effects_are_paired_by_seed():
    rows = [ran(0, 50, 2.0), ran(1, 50, 3.0), ran(1, 0, 3.5), ran(0, 0, 2.5)]
    rows += [ran(0, 15, 3.0), ran(1, 15, 3.0)]
    found = warm_up_effects(rows)
    assert list(found) == [
        "native, 2 layers, rate 0.03, 15 steps", "native, 2 layers, rate 0.03, 50 steps",
    ]  # fmt: skip
    short, long = found.values()
    assert long["cost"] == pytest.approx([0.5, 0.5, 0.5])
    assert (long["worse"], long["seeds"], long["end"]) == (2, 2, [3.0, 2.5])
    assert short["cost"][0] == 0 and short["worse"] == 1


def test_a_run_without_an_end_is_left_out_of_its_pair():
    rows = [ran(s, length, 2.0 + s) for s in range(3) for length in (50, 0)]
    rows[0]["val_loss"] = None
    (found,) = warm_up_effects(rows).values()
    assert found["seeds"] == 2
