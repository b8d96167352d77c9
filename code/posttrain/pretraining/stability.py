"""The numbers of the records of Stage 0: how surely a run explodes, and what a warm-up gains.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
