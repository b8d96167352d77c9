"""Figures of the recorded runs of Stage 1.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posttrain.core.figures.plotting import INK, SvgFigure, band, figure, reference, show
from posttrain.core.records import Record
from posttrain.core.stats import mean_interval
from posttrain.sft.recorded.best_rates import mean_losses
from posttrain.sft.recorded.rank_and_rate import FULL, RANKS, SCALINGS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TITLES = ("α / r, α fixed", "α = 2r: fixed scale", "α / √r (rsLoRA)")
_TICKS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


def rank_and_rate_figure(record: Record) -> SvgFigure:
    """Draw the loss over the rate: a panel for each scaling, a line for each rank.

    Args:
        record: The record ``sft/rank_and_rate``.

    Returns:
        The figure. Bands are Student's 95 % intervals over the seeds; full training, whose
        rates are lower, is the gray line of every panel.

    Chapter: sft/fine_tuning.
    """
    fig, axes = figure("wide", height=3.0, ncols=len(SCALINGS), sharey=True)
    for ax, scaling, title in zip(axes, SCALINGS, _TITLES, strict=True):
        full = mean_losses(record.outcomes, FULL, None)
        _valley(ax, full, "full training", color=INK, linestyle="-", marker="", alpha=0.6)
        for i, r in enumerate(RANKS):
            look = {"color": f"C{i}", "linestyle": ("-", "--", ":")[i], "marker": "os^"[i]}
            _valley(ax, mean_losses(record.outcomes, scaling, r), f"rank {r}", **look)
        reference(ax, record.outcomes[0]["start"], "before training", side="left")
        ax.set(title=title, xscale="log", yscale="log", xlabel="learning rate")
        ax.minorticks_off()
    low, high = axes[0].get_ylim()
    ticks = [tick for tick in _TICKS if low < tick < high]
    axes[0].set_yticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axes[0].set(ylabel="validation loss (nats)")
    axes[-1].legend()
    lowest = {
        "full training" if row["r"] is None else f"{row['scaling']}, rank {row['r']}": row[
            "rate"
        ]
        for row in record.summary["best"]
    }
    words = "; ".join(f"{name} at {rate:g}" for name, rate in lowest.items())
    alt = f"Three panels of valleys: validation loss over the learning rate. Lowest: {words}."
    return show(fig, alt=alt, name="rank-and-rate")


def _valley(ax: Axes, losses: Mapping[float, list[float]], label: str, **look: Any) -> None:
    """Draw mean and interval of each rate that every seed has a loss for."""
    seeds = max(len(values) for values in losses.values())
    found = {x: mean_interval(v) for x, v in losses.items() if len(v) == seeds > 1}
    means = [estimate.value for estimate in found.values()]
    lows = [max(estimate.low, estimate.value / 2) for estimate in found.values()]
    highs = [estimate.high for estimate in found.values()]
    band(ax, list(found), means, lows, highs, label, markevery=1, **look)
