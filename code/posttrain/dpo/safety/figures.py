"""The figure of safety against helpfulness: one point a model.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.core.figures.plotting import INK, PALETTE, SvgFigure, figure, show
from posttrain.core.figures.style import MARKERS
from posttrain.core.stats import Estimate
from posttrain.dpo.safety.measures import TradeOff


def trade_off_figure(rows: Sequence[TradeOff]) -> SvgFigure:
    """Draw attack success against over-refusal, and the win-rates beside it.

    The best model lies at the lower left. Models without a win-rate stand in the left panel
    only.

    Args:
        rows: One for each model, at most six.

    Returns:
        The figure, two panels; one where no model has a win-rate.

    Raises:
        ValueError: If there are no models or too many, or two have the same name.

    Chapter: dpo/preference_data.
    """
    names = [row.name for row in rows]
    if not 1 <= len(rows) <= len(MARKERS) or len(set(names)) < len(names):
        raise ValueError(
            f"the models are {names}: give 1 to {len(MARKERS)}, each with its own name"
        )
    judged = [(row.name, row.win_rate) for row in rows if row.win_rate is not None]
    if judged:
        fig, (left, right) = figure(width="wide", height=3.2, ncols=2)
    else:
        fig, left = figure(height=3.2)
    for number, row in enumerate(rows):
        left.errorbar(
            [100 * row.over_refusal.value], [100 * row.attack_success.value],
            xerr=_ends(row.over_refusal), yerr=_ends(row.attack_success), label=row.name,
            color=PALETTE[number], marker=MARKERS[number], markersize=7,
            linestyle="", capsize=3, markevery=1,
        )  # fmt: skip
    left.set(xlabel="harmless look-alikes refused (%)", title="Harmful requests answered (%)")
    left.set_xlim(-3, max(20.0, *(100 * row.over_refusal.high + 3 for row in rows)))
    left.set_ylim(-3, 103)
    left.legend(loc="best")
    if judged:
        for place, (name, rate) in enumerate(judged):
            right.errorbar(
                [100 * rate.value], [-place], xerr=_ends(rate),
                color=PALETTE[names.index(name)],
                marker=MARKERS[names.index(name)], markersize=7, linestyle="", capsize=3,
                markevery=1,
            )  # fmt: skip
        right.axvline(50, color=INK, linewidth=0.8, alpha=0.6)
        right.set_yticks([-place for place in range(len(judged))])
        right.set_yticklabels([name for name, _ in judged])
        right.set(title="Win-rate against the base (%)", ylim=(0.5 - len(judged), 0.5))
        right.set_xlim(0, 100)
    told = "; ".join(
        f"{row.name} answers {row.attack_success.value:.0%} of the harmful requests and "
        f"refuses {row.over_refusal.value:.0%} of the harmless look-alikes"
        for row in rows
    )
    rates = ", ".join(f"{name} {rate.value:.0%}" for name, rate in judged)
    alt = f"One point a model, with intervals: {told}."
    return show(fig, alt=alt + (f" Win-rates: {rates}." if rates else ""), name="trade-off")


def _ends(rate: Estimate) -> list[list[float]]:
    return [[100 * (rate.value - rate.low)], [100 * (rate.high - rate.value)]]
