"""Where the valley of a sweep over learning rates is deepest, and how that moves with the rank.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from posttrain.core.stats import mean_interval
from posttrain.sft.recorded.rank_and_rate import FULL, RANKS, SAME_AT, SCALINGS


def best_rate(rates: Sequence[float], losses: Sequence[float | None]) -> tuple[float, bool]:
    """Find the rate of the lowest loss, between the rates that were tried.

    A parabola over the logarithm of the rate goes through the lowest loss and its neighbors;
    its lowest point lies at most half a step away from there.

    Args:
        rates: The rates, rising, each the same multiple of the one before, about.
        losses: The loss of each; None where a run has none.

    Returns:
        The rate, and whether the lowest loss has a neighbor on either side. Where it has none
        the best rate may lie outside, and this is only the end of the range.

    Raises:
        ValueError: If no run has a loss.
    """
    known = [math.inf if loss is None else loss for loss in losses]
    at = min(range(len(known)), key=known.__getitem__)
    if not math.isfinite(known[at]):
        raise ValueError("no run has a loss: there is no best rate")
    if not 0 < at < len(known) - 1:
        return rates[at], False
    left, low, right = known[at - 1 : at + 2]
    curvature = left - 2 * low + right
    shift = 0.0
    if math.isfinite(curvature) and curvature > 0:
        shift = 0.5 * (left - right) / curvature
    elif math.isfinite(left):
        shift = -0.5  # the other side is beyond all measure
    step = rates[at + 1] / rates[at] if shift > 0 else rates[at] / rates[at - 1]
    return rates[at] * step**shift, True


def best_rates(outcomes: Sequence[dict[str, Any]]) -> dict[tuple[str, int | None, int], float]:
    """Find the best rate of each scaling, rank and seed.

    Args:
        outcomes: Rows of :func:`posttrain.sft.recorded.rank_and_rate.run`.

    Returns:
        The rate by ``(scaling, r, seed)``; at the common rank for each scaling.
    """
    curves: dict[tuple[str, int | None, int], list[dict[str, Any]]] = {}
    for row in outcomes:
        same = row["r"] == SAME_AT
        for scaling in SCALINGS if same else (row["scaling"],):
            curves.setdefault((scaling, row["r"], row["seed"]), []).append(row)
    return {
        key: best_rate([row["rate"] for row in rows], [row["val_loss"] for row in rows])[0]
        for key, rows in curves.items()
    }


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Fit a line by least squares.

    Args:
        xs: Positions.
        ys: Values.

    Returns:
        Its slope.
    """
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True))
    return above / sum((a - x) ** 2 for a in xs)


def summarize(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say how the best rate moves with the rank, and how it stands to that of full training.

    Every interval is Student's, over the seeds: the start of the adapter and the order of the
    rows. The rows themselves, of training and validation, are the same for all seeds.

    Args:
        outcomes: Rows of :func:`posttrain.sft.recorded.rank_and_rate.run`.

    Returns:
        For each scaling: ``exponent``, the power of the rank with which the best rate goes
        (0: it does not depend on it; -1: it falls as the rank rises), and ``ratio``, the best
        rate (geometric mean over the ranks) over that of full training; each as ``[value, low,
        high]``. And ``best``: the lowest mean loss with its rate, for each setting.
    """
    best = best_rates(outcomes)
    seeds = sorted({row["seed"] for row in outcomes})
    logs = [math.log(r) for r in RANKS]
    summary: dict[str, Any] = {}
    for scaling in SCALINGS:
        rates = {s: [math.log(best[scaling, r, s]) for r in RANKS] for s in seeds}
        ratios = [sum(rates[s]) / len(RANKS) - math.log(best[FULL, None, s]) for s in seeds]
        exponent = mean_interval([slope(logs, rates[s]) for s in seeds])
        ratio = mean_interval(ratios)
        summary[scaling] = {
            "exponent": [exponent.value, *exponent.ci],
            "ratio": [math.exp(x) for x in (ratio.value, *ratio.ci)],
        }
    summary["best"] = [
        {"scaling": scaling, "r": r, "rate": rate, "val_loss": loss}
        for (scaling, r), (rate, loss) in _lowest_means(outcomes).items()
    ]
    return summary


def mean_losses(
    outcomes: Sequence[dict[str, Any]], scaling: str, r: int | None
) -> dict[float, list[float]]:
    """Collect the losses of one setting over the seeds.

    Args:
        outcomes: Rows of :func:`posttrain.sft.recorded.rank_and_rate.run`.
        scaling: One of `rank_and_rate.SCALINGS`, or `rank_and_rate.FULL`.
        r: The rank; None with full training.

    Returns:
        The losses by rate; runs without a finite loss are left out.
    """
    found: dict[float, list[float]] = {}
    for row in outcomes:
        if row["r"] == r and (row["scaling"] == scaling or r == SAME_AT):
            losses = found.setdefault(row["rate"], [])
            losses += [] if row["val_loss"] is None else [row["val_loss"]]
    return found


def _lowest_means(
    outcomes: Sequence[dict[str, Any]],
) -> dict[tuple[str, int | None], tuple[float, float]]:
    seeds = len({row["seed"] for row in outcomes})
    lowest = {}
    for scaling, r in dict.fromkeys((row["scaling"], row["r"]) for row in outcomes):
        means = {
            rate: sum(losses) / seeds
            for rate, losses in mean_losses(outcomes, scaling, r).items()
            if len(losses) == seeds
        }
        rate = min(means, key=means.__getitem__)
        lowest[scaling, r] = (rate, means[rate])
    return lowest
