"""Figures of Stage 1's chapters that would be long on a page.

Chapter: sft/qlora.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from posttrain.core.plotting import PALETTE, figure
from posttrain.core.stats import Estimate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TICKS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10)


def cost_figure(
    groups: Mapping[str, Mapping[str, Estimate]], rows: Sequence[str], xlabel: str
) -> Figure:
    """Draw costs with their intervals on a logarithmic axis, a row for each name.

    What is not above zero cannot be drawn there: an end of an interval below 0.01 is cut.

    Args:
        groups: Costs by name, for each group of dots; a group may lack some names.
        rows: The names, from top to bottom.
        xlabel: What the axis shows.

    Returns:
        The figure.

    Chapter: sft/qlora.
    """
    fig, ax = figure(height=2.5)
    least = _TICKS[0]
    spread = 0.26 / max(len(groups) - 1, 1)
    highest = least
    for i, (group, found) in enumerate(groups.items()):
        shown = [(row, found[name]) for row, name in enumerate(rows) if name in found]
        middles = [max(cost.value, least) for _, cost in shown]
        below = [m - max(cost.low, least) for m, (_, cost) in zip(middles, shown, strict=True)]
        above = [max(cost.high, m) - m for m, (_, cost) in zip(middles, shown, strict=True)]
        ax.errorbar(
            middles, [0.13 - spread * i - row for row, _ in shown],
            xerr=[[max(x, 0.0) for x in below], above], linestyle="", color=PALETTE[i],
            marker="os^D"[i % 4], markersize=6, markevery=1, capsize=4, label=group,
        )  # fmt: skip
        highest = max(highest, *(cost.high for _, cost in shown))
    ax.set(xlabel=xlabel, xscale="log", xlim=(0.8 * least, 1.6 * highest))
    ax.set_ylim(0.4 - len(rows), 0.6)
    ax.set_xticks(_TICKS, labels=[f"{tick:g}" for tick in _TICKS])
    ax.set_xticks([], minor=True)
    ax.set_xlim(0.8 * least, 1.6 * highest)  # the ticks may have widened it
    ax.set_yticks([-row for row in range(len(rows))], labels=list(rows))
    ax.legend(loc="upper right", fontsize=8.5)
    return fig
