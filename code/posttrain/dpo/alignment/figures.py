"""Figures of the chapter on alignment.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.core.figures.plotting import INK, PALETTE, SvgFigure, figure, reference, show
from posttrain.core.stats import Estimate

_MARKERS = "osD^vP"


def curves_figure(evaluations: Sequence[Mapping[str, Any]]) -> SvgFigure:
    """Draw what happens to held-out pairs during a run.

    Args:
        evaluations: Rows with ``step`` and the fields of
            :class:`posttrain.dpo.training.dpo_run.PairMetrics`.

    Returns:
        The figure, four panels.
    """
    steps = [row["step"] for row in evaluations]

    def values(name: str) -> list[float]:
        return [row[name] for row in evaluations]

    fig, ((logps, margin), (accuracy, kl)) = figure(
        "wide", nrows=2, ncols=2, height=4.6, sharex=True
    )
    logps.plot(steps, values("chosen_logps"), label="chosen", markevery=1)
    logps.plot(steps, values("rejected_logps"), label="rejected", markevery=1)
    logps.set(title="Log-probability of an answer (nats)")
    logps.legend(loc="lower left")
    margin.plot(steps, values("margin"), markevery=1, color=PALETTE[2])
    margin.set(title="Margin of the implicit rewards")
    accuracy.plot(steps, values("accuracy"), markevery=1, color=PALETTE[3])
    accuracy.set(title="Pairs in the right order", xlabel="step", ylim=(0, 1.02))
    reference(accuracy, 0.5, "chance")
    kl.plot(steps, values("kl"), markevery=1, color=PALETTE[4])
    kl.set(title="KL from the reference (nats per token)", xlabel="step", ylim=0)
    first, last = evaluations[0], evaluations[-1]
    alt = (
        f"Four curves over {steps[-1]} steps on held-out pairs. Log-probability: chosen from "
        f"{first['chosen_logps']:.0f} to {last['chosen_logps']:.0f} nats, rejected from "
        f"{first['rejected_logps']:.0f} to {last['rejected_logps']:.0f}. The margin goes from "
        f"{first['margin']:.2f} to {last['margin']:.2f}, the share of pairs in the right order "
        f"from {first['accuracy']:.0%} to {last['accuracy']:.0%}, the divergence from "
        f"{first['kl']:.2g} to {last['kl']:.2g} nats per token."
    )
    return show(fig, alt=alt, name="curves")


def shift_figure(shares: Mapping[str, Mapping[str, Estimate]]) -> SvgFigure:
    """Draw the share of answers that meet each criterion, for several models.

    Args:
        shares: Shares by criterion, by model.

    Returns:
        The figure.
    """
    criteria = list(next(iter(shares.values())))
    fig, ax = figure(height=3.2)
    for i, (label, found) in enumerate(shares.items()):
        values = [found[name].value for name in criteria]
        ends = [[abs(found[n].ci[end] - found[n].value) for n in criteria] for end in (0, 1)]
        places = [-place + 0.22 * (len(shares) / 2 - i) for place in range(len(criteria))]
        ax.errorbar(
            values, places, xerr=ends, linestyle="", marker=_MARKERS[i], markevery=1,
            capsize=3, label=label,
        )  # fmt: skip
    ax.set_yticks([-place for place in range(len(criteria))], [_plain(n) for n in criteria])
    ax.set(xlabel="share of answers", xlim=(0, 1))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    text = "; ".join(
        f"{_plain(name)} " + ", ".join(f"{k} {s[name].value:.0%}" for k, s in shares.items())
        for name in criteria
    )
    return show(fig, alt=f"Share of answers that meet each criterion: {text}.", name="shift")


def rates_figure(
    rates: Mapping[str, Mapping[str, Estimate]], goals: Mapping[str, float]
) -> SvgFigure:
    """Draw win-rates with their intervals.

    Args:
        rates: Win-rates by their kind, such as "as they are", by opponent.
        goals: Rates that the lower ends are to pass, by what they are called.

    Returns:
        The figure.
    """
    opponents = list(rates)
    fig, ax = figure(height=0.9 + 0.55 * len(opponents))
    for i, kind in enumerate(next(iter(rates.values()))):
        found = [rates[opponent][kind] for opponent in opponents]
        ends = [[abs(r.ci[end] - r.value) for r in found] for end in (0, 1)]
        ax.errorbar(
            [r.value for r in found], [-place + 0.12 - 0.24 * i for place in range(len(found))],
            xerr=ends, linestyle="", marker=_MARKERS[i], markevery=1, capsize=3, label=kind,
        )  # fmt: skip
    for name, rate in goals.items():
        ax.axvline(rate, color=INK, linewidth=0.9, linestyle=":")
        ax.text(rate, 0.62, f" {name}", va="bottom", fontsize="small", color=INK)
    ax.axvline(0.5, color=INK, linewidth=0.9, alpha=0.5)
    ax.set_yticks([-place for place in range(len(opponents))], opponents)
    ax.set(xlabel="win-rate", xlim=(0, 1), ylim=(-len(opponents) + 0.4, 0.6))
    ax.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    text = "; ".join(
        f"against {opponent} " + ", ".join(f"{r.value:.0%} {kind}" for kind, r in kinds.items())
        for opponent, kinds in rates.items()
    )
    return show(fig, alt=f"Win-rates with 95 % intervals: {text}.", name="rates")


def setting_figure(
    found: Mapping[str, Mapping[float, Sequence[Mapping[str, float]]]],
    quantities: Mapping[str, str],
    *,
    label: str,
    name: str,
) -> SvgFigure:
    """Draw how outcomes hang on one setting, a point for each seed.

    Args:
        found: By what was varied, such as "beta": the outcomes of all seeds by value.
        quantities: Title of each panel, by the outcome that it shows.
        label: What is varied, for the horizontal axis.
        name: Name of the figure.

    Returns:
        The figure, one panel for each quantity.
    """
    (by_value,) = found.values()
    fig, panels = figure("wide", ncols=len(quantities), height=2.7)
    axes: list[Any] = list(panels) if len(quantities) > 1 else [panels]
    texts = []
    for number, (ax, (quantity, title)) in enumerate(
        zip(axes, quantities.items(), strict=True)
    ):
        points = [
            (i, row[quantity]) for i, rows in enumerate(by_value.values()) for row in rows
        ]
        means = [sum(row[quantity] for row in rows) / len(rows) for rows in by_value.values()]
        ax.plot(
            [x for x, _ in points], [y for _, y in points], linestyle="", marker="o",
            markevery=1, alpha=0.55, color=PALETTE[number],
        )  # fmt: skip
        ax.plot(range(len(means)), means, color=PALETTE[number], marker="")
        ax.set(title=title, xlabel=label)
        ax.set_xticks(range(len(means)), [f"{value:g}" for value in by_value])
        texts.append(
            f"{title}: "
            + ", ".join(f"{m:.3g} at {v:g}" for v, m in zip(by_value, means, strict=True))
        )
    return show(fig, alt=f"Means over the seeds. {'; '.join(texts)}.", name=name)


def _plain(name: str) -> str:
    return name.replace("_", " ")
