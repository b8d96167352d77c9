"""posttrain.sft.recorded.best_rates: valleys whose floor is known."""

from __future__ import annotations

import math
from typing import Any

import pytest

from posttrain.sft.recorded.best_rates import (
    best_rate,
    best_rates,
    mean_losses,
    slope,
    summarize,
)
from posttrain.sft.recorded.rank_and_rate import FULL, FULL_RATES, RANKS, RATES, SCALINGS, parts

GRID = [10.0**-k for k in (4, 3, 2, 1)]


@pytest.mark.parametrize("floor", [-2.6, -2.0, -1.7])
def test_the_floor_of_a_parabola_is_found_between_the_rates(floor: float):
    losses = [(math.log10(rate) - floor) ** 2 for rate in GRID]
    rate, inside = best_rate(GRID, losses)
    assert inside and math.log10(rate) == pytest.approx(floor)


def test_a_valley_that_is_not_closed_is_said():
    assert best_rate(GRID, [3, 2, 1, 0.5]) == (0.1, False)
    assert best_rate(GRID, [0.5, 1, 2, 3]) == (1e-4, False)
    assert best_rate(GRID, [None, None, None, 1.0]) == (0.1, False)
    with pytest.raises(ValueError, match="no best rate"):
        best_rate(GRID, [None] * 4)


def test_a_neighbor_beyond_all_measure_pushes_the_floor_away():
    rate, inside = best_rate(GRID, [3.0, 2.0, 1.0, None])
    assert inside and math.log10(rate) == pytest.approx(-2.5)
    assert best_rate([1.0, 2.0, 4.0], [None, 1.0, None]) == (2.0, True)


def test_the_slope_of_a_line():
    assert slope([0, 1, 3], [1, 3, 7]) == pytest.approx(2)


def outcomes(power: float, ratio: float) -> list[dict[str, Any]]:
    """Rows whose best rate goes with that power of the rank, `ratio` times full training's."""
    rows = []
    for part in parts((0, 1, 2)):
        full = part["scaling"] == FULL
        best = math.log(6.3e-3) + 0.01 * part["seed"]
        if full:
            best -= math.log(ratio)
        elif part["scaling"] == SCALINGS[1]:
            best += power * math.log(part["r"] / 8)
        for rate in FULL_RATES if full else RATES:
            loss = 0.5 + 0.1 * (math.log(rate) - best) ** 2
            rows.append({**part, "rate": rate, "val_loss": loss})
    return rows


def test_the_power_of_the_rank_and_the_ratio_to_full_training_are_found():
    summary = summarize(outcomes(power=-0.5, ratio=10.0))
    exponents = [summary[scaling]["exponent"] for scaling in SCALINGS]
    assert exponents[0] == pytest.approx([0, 0, 0], abs=0.02)
    assert exponents[1][0] == pytest.approx(-0.5, abs=0.03)
    assert summary[SCALINGS[0]]["ratio"][0] == pytest.approx(10, rel=0.03)
    low, high = summary[SCALINGS[0]]["ratio"][1:]
    assert low <= summary[SCALINGS[0]]["ratio"][0] <= high
    assert {(row["scaling"], row["r"]) for row in summary["best"]} == {
        (part["scaling"], part["r"]) for part in parts((0,))
    }
    assert all(row["rate"] in (*RATES, *FULL_RATES) for row in summary["best"])


def test_the_common_rank_counts_for_every_scaling():
    rows = outcomes(-0.5, 10.0)
    found = best_rates(rows)
    assert len(found) == 3 * (len(SCALINGS) * len(RANKS) + 1)
    assert len({found[scaling, 8, 0] for scaling in SCALINGS}) == 1
    for scaling in SCALINGS:
        losses = mean_losses(rows, scaling, 8)
        assert list(losses) == list(RATES) and all(len(v) == 3 for v in losses.values())


def test_a_run_without_a_loss_is_left_out():
    rows = outcomes(0, 10.0)
    rows[0]["val_loss"] = None
    losses = mean_losses(rows, rows[0]["scaling"], rows[0]["r"])
    assert len(losses[rows[0]["rate"]]) == 2
