"""The numbers of the records of Stage 0: how surely a run explodes, and what a warm-up gains.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.core.stats import mean_interval
from posttrain.pretraining.presets import NANO


def explosions(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Count the runs that the guard stopped, and measure by how much.

    Args:
        outcomes: Rows of :func:`posttrain.pretraining.recorded.explosion.run`.

    Returns:
        For each processor and rate: ``runs``, ``stopped``, ``last_stop`` (the latest step at
        which the guard spoke) and ``margin`` (the smallest ratio of ``worst`` to the guard's
        limit; above 1 every run is beyond it).
    """
    limit = NANO.training.explosion_ratio
    summary: dict[str, Any] = {}
    for row in outcomes:
        key = f"{row['processor']}, rate {row['rate']:g}"
        found = summary.setdefault(
            key, {"runs": 0, "stopped": 0, "last_stop": None, "margin": float("inf")}
        )
        found["runs"] += 1
        found["margin"] = min(found["margin"], row["worst"] / (limit * row["start"]))
        if row["stopped_at"] is not None:
            found["stopped"] += 1
            found["last_stop"] = max(found["last_stop"] or 0, row["stopped_at"])
    return summary


def warm_up_effects(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare the runs without a warm-up with those that have one, seed by seed.

    Args:
        outcomes: Rows of :func:`posttrain.pretraining.recorded.warm_up.run`.

    Returns:
        For each processor, setting and length of the warm-up: ``cost``, what the runs without
        one are worse by at the end, in nats, as ``[mean, low, high]`` with Student's interval
        over the seeds; ``worse``, in how many of ``seeds`` they are; and ``end``, the mean
        losses ``[without, with]``.
    """
    ends: dict[str, dict[int, dict[int, float | None]]] = {}
    for row in outcomes:
        setting = f"{row['processor']}, {row['layers']} layers, rate {row['rate']:g}"
        runs = ends.setdefault(setting, {}).setdefault(row["warmup_steps"], {})
        runs[row["seed"]] = row["val_loss"]
    summary: dict[str, Any] = {}
    for setting, by_length in ends.items():
        without = by_length[0]
        for length in sorted(by_length.keys() - {0}):
            pairs = [
                (without[seed], end)
                for seed, end in by_length[length].items()
                if without[seed] is not None and end is not None
            ]
            summary[f"{setting}, {length} steps"] = _compared(pairs)
    return summary


def _compared(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    costs = [without - end for without, end in pairs]
    cost = mean_interval(costs)
    return {
        "cost": [cost.value, *cost.ci],
        "worse": sum(x > 0 for x in costs),
        "seeds": len(costs),
        "end": [sum(column) / len(column) for column in zip(*pairs, strict=True)],
    }
