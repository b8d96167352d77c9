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
        outcomes: Rows of :func:`posttrain.pretraining.explosion.run`.

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
    """Compare the runs of each pair: without a warm-up and with one.

    Args:
        outcomes: Rows of :func:`posttrain.pretraining.warm_up.run`.

    Returns:
        For each processor and setting: ``cost``, what the run without a warm-up is worse by at
        the end, in nats; and ``rise``, how much higher its loss comes in the first steps; each
        as ``[mean, low, high]``, Student's interval over the seeds. And ``highest``, the
        highest loss of any run without a warm-up and with one, over its own first loss.
    """
    pairs: dict[str, dict[int, dict[bool, dict[str, Any]]]] = {}
    for row in outcomes:
        key = f"{row['processor']}, {row['layers']} layers, rate {row['rate']:g}"
        pairs.setdefault(key, {}).setdefault(row["seed"], {})[row["warmup_steps"] > 0] = row
    summary: dict[str, Any] = {}
    for key, by_seed in pairs.items():
        found = [(pair[False], pair[True]) for pair in by_seed.values()]
        ended = [(a, b) for a, b in found if None not in (a["val_loss"], b["val_loss"])]
        summary[key] = {
            "cost": _interval([a["val_loss"] - b["val_loss"] for a, b in ended]),
            "rise": _interval([a["peak"] - b["peak"] for a, b in found]),
            "highest": [
                max(pair[i]["peak"] / pair[i]["first"] for pair in found) for i in (0, 1)
            ],
        }
    return summary


def _interval(values: list[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    estimate = mean_interval(values)
    return [estimate.value, *estimate.ci]
