"""Figures of Stage 1: each page hands over what it measured and keeps one call.

Chapter: sft/fine_tuning.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from posttrain.core.figures.plotting import SvgFigure, band, figure, reference, show
from posttrain.core.stats import Estimate
from posttrain.core.training.checkpoints import History


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
