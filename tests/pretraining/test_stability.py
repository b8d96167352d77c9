"""posttrain.pretraining.stability: numbers from outcomes, checked by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.pretraining.stability import explosions, warm_up_effects


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


def ran(seed: int, length: int, peak: float, end: float | None) -> dict[str, Any]:
    return {
        "processor": "native", "layers": 2, "rate": 0.03, "warmup_steps": length, "seed": seed,
        "first": 4.0, "peak": peak, "val_loss": end, "losses": [],
    }  # fmt: skip


def test_effects_are_paired_by_seed():
    rows = [
        ran(0, 30, 4.0, 2.0), ran(1, 30, 4.4, 3.0), ran(0, 0, 8.0, 2.5), ran(1, 0, 8.4, 3.5),
    ]  # fmt: skip
    (found,) = warm_up_effects(rows).values()
    assert found["cost"] == pytest.approx([0.5, 0.5, 0.5])
    assert found["rise"] == pytest.approx([4.0, 4.0, 4.0])
    assert found["highest"] == pytest.approx([2.1, 1.1])


def test_a_run_without_an_end_leaves_no_interval_of_one():
    rows = [
        ran(0, 30, 4.0, 2.0), ran(1, 30, 4.4, 3.0), ran(0, 0, 8.0, None), ran(1, 0, 8.4, 3.5),
    ]  # fmt: skip
    (found,) = warm_up_effects(rows).values()
    assert found["cost"] is None and found["rise"] is not None
