"""Figures of Stage 1: each page hands over what it measured and keeps one call.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from posttrain.core.figures.plotting import PALETTE, SvgFigure, band, figure, reference, show
from posttrain.core.stats import Estimate
from posttrain.core.training.checkpoints import History

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def fit_figure(history: History) -> SvgFigure:
    """Draw training and validation loss of a fine-tuning run, on a logarithmic axis.

    Args:
        history: The run.

    Returns:
        The figure.
    """
    at, val = ([row[key] for row in history.evaluations] for key in ("step", "val_loss"))
    fig, ax = figure(height=2.4)
    ax.plot(range(len(history.loss)), history.loss, label="training batch", marker="")
    ax.plot(at, val, label="validation split", markevery=1)
    ax.set(xlabel="step", ylabel="loss (nats per token)", yscale="log")
    ax.set_yticks([0.2, 0.5, 1, 2, 3], labels=["0.2", "0.5", "1", "2", "3"])
    ax.minorticks_off()
    ax.legend()
    alt = (
        f"Training and validation loss, from {val[0]:.1f} nats before training to {val[1]:.2f} "
        f"after {at[1]} steps and {val[-1]:.2f} at the end."
    )
    return show(fig, alt=alt, name="main")


def kinds_figure(shares: Mapping[str, Mapping[str, Estimate]]) -> SvgFigure:
    """Draw the share of right answers of each kind of question, for several models.

    Args:
        shares: Shares by kind, by model; the last model's order the kinds.

    Returns:
        The figure.
    """
    last = list(shares.values())[-1]
    kinds = sorted(last, key=lambda kind: last[kind].value)
    fig, ax = figure(height=3.4)
    for i, (label, found) in enumerate(shares.items()):
        values = [found[kind].value for kind in kinds]
        ends = [
            [abs(found[kind].ci[end] - found[kind].value) for kind in kinds] for end in (0, 1)
        ]
        places = [place + 0.3 * i - 0.15 for place in range(len(kinds))]
        ax.errorbar(
            values, places, xerr=ends, linestyle="", marker="os^"[i], markevery=1, capsize=3,
            label=label,
        )  # fmt: skip
    ax.set_yticks(range(len(kinds)), [kind.replace("_", " ") for kind in kinds])
    ax.set(xlabel="share of right answers", xlim=(0, 1))
    ax.legend(loc="lower right")
    text = "; ".join(
        f"{kind.replace('_', ' ')} "
        + " and ".join(f"{s[kind].value:.0%}" for s in shares.values())
        for kind in reversed(kinds)
    )
    return show(
        fig, alt=f"Share of right answers, {' and '.join(shares)}: {text}.", name="kinds"
    )


def sweep_figure(by_rate: Mapping[float, float], before: float) -> SvgFigure:
    """Draw the validation loss at the end against the learning rate.

    Args:
        by_rate: Loss by rate.
        before: The loss before training.

    Returns:
        The figure.
    """
    fig, ax = figure(height=2.6)
    ax.plot(list(by_rate), list(by_rate.values()), markevery=1)
    ax.set(xscale="log", yscale="log", xlabel="learning rate", ylabel="validation loss (nats)")
    ax.set_xticks(list(by_rate), labels=[f"{rate:g}" for rate in by_rate])
    ax.set_yticks([0.5, 1, 2, 5, 10, 20], labels=["0.5", "1", "2", "5", "10", "20"])
    ax.minorticks_off()
    reference(ax, before, "before training", side="left")
    values = "; ".join(f"{loss:.2f} at {rate:g}" for rate, loss in by_rate.items())
    alt = f"Validation loss against the learning rate, both logarithmic: {values}."
    return show(fig, alt=alt, name="sweep")


def overfit_figure(
    passes: Sequence[float], rows: Sequence[Mapping[str, Any]], accuracy: Sequence[Estimate]
) -> SvgFigure:
    """Draw both losses and held-out accuracy against the passes over a small data set.

    Args:
        passes: Passes over the data at each evaluation; the first is before training.
        rows: The evaluations, with ``train_loss`` and ``val_loss``.
        accuracy: Held-out accuracy at each evaluation.

    Returns:
        The figure, two panels.
    """
    fig, (left, right) = figure("wide", ncols=2, height=2.6)
    for key, label in (("train_loss", "trained examples"), ("val_loss", "held-out rows")):
        left.plot(passes[1:], [row[key] for row in rows[1:]], label=label, markevery=1)
    left.set(xlabel="passes over the examples", ylabel="loss (nats)", xlim=0, ylim=0)
    left.legend(loc="center right")
    values, lows, highs = (
        [getattr(a, key) for a in accuracy] for key in ("value", "low", "high")
    )
    band(right, passes, values, lows, highs, "accuracy", markevery=1)
    right.set(xlabel="passes over the examples", ylabel="held-out accuracy", ylim=(0, 0.6))
    lowest = min(rows, key=lambda row: row["val_loss"])["val_loss"]
    alt = (
        f"Left: the training loss ends at {rows[-1]['train_loss']:.2f} nats; the validation "
        f"loss is lowest at {lowest:.2f} and ends at {rows[-1]['val_loss']:.2f}. Right: "
        f"held-out accuracy ends at {values[-1]:.0%}, with wide bands."
    )
    return show(fig, alt=alt, name="overfit")


def engines_figure(losses: Mapping[str, Sequence[float]]) -> SvgFigure:
    """Draw the loss of each step for several engines.

    Args:
        losses: Loss of each step by the engine's label; the second is drawn by open markers.

    Returns:
        The figure.
    """
    fig, ax = figure(height=2.6)
    for i, (label, curve) in enumerate(losses.items()):
        look: dict[str, Any] = {"markersize": 8, "fillstyle": "none"} if i == 1 else {}
        steps = range(1, len(curve) + 1)
        ax.plot(steps, curve, linestyle=("-", "", "--")[i], label=label, markevery=1, **look)
    ax.set(xlabel="step", ylabel="loss of the batch (nats)", ylim=(0, None))
    ax.legend()
    ends = "; ".join(f"{name} from {c[0]:.2f} to {c[-1]:.2f}" for name, c in losses.items())
    return show(fig, alt=f"Loss of each step, nats: {ends}.", name="engines")


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
