"""Figures of the recorded runs of practice.

Chapter: sft/your_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posttrain.core.figures.plotting import SvgFigure, band, figure, reference, show
from posttrain.core.records import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def row_counts_figure(record: Record, prompted: float) -> SvgFigure:
    """Draw accuracy and held-out loss over the number of training rows.

    Args:
        record: The record ``sft/row_counts``.
        prompted: Accuracy of the base model with worked examples in its prompt, from 0 to 1.

    Returns:
        The figure. Bands are Student's 95 % intervals over the seeds.

    Chapter: sft/your_model.
    """
    found = record.summary
    sizes = [int(size) for size in found["accuracy"]]
    fig, (left, right) = figure("wide", height=2.6, ncols=2)
    for ax, name, label in (
        (left, "accuracy", "share of right answers"),
        (right, "val_loss", "held-out loss (nats per token)"),
    ):
        means, lows, highs = zip(*found[name].values(), strict=True)
        band(ax, sizes, means, lows, highs, name, markevery=1, marker="o")
        ax.set(xscale="log", xlabel="training rows, each read twice", ylabel=label)
        ax.set_xticks(sizes, labels=[f"{size:,}" for size in sizes])
        ax.minorticks_off()
    left.set_ylim(bottom=0)
    reference(left, prompted, "base model, three examples in the prompt", side="right")
    words = ", ".join(f"{mean[0]:.0%} at {size}" for size, mean in found["accuracy"].items())
    alt = f"Accuracy over the number of training rows: {words}. Beside it the held-out loss."
    return show(fig, alt=alt, name="row-counts")


def forgetting_figure(record: Record) -> SvgFigure:
    """Draw what each remedy leaves of forgetting, and what it costs on the task.

    Args:
        record: The record ``sft/forgetting``.

    Returns:
        The figure: a row for each remedy, means and Student's 95 % intervals over the seeds.

    Chapter: sft/fine_tuning.
    """
    remedies = record.summary["remedies"]
    names = list(remedies)[::-1]
    fig, axes = figure("wide", height=3.0, ncols=3, sharey=True)
    titles = {
        "chats": "loss on general chats, rise",
        "plays": "loss on plays, rise",
        "accuracy": "share of right answers",
    }
    for ax, (name, title) in zip(axes, titles.items(), strict=True):
        _dots(ax, [remedies[remedy][name] for remedy in names])
        ax.set(title=title, xlabel="" if name == "accuracy" else "nats per token")
        low, high = ax.get_xlim()
        ax.set_xlim(min(low, 0), high)
    axes[0].set_yticks(range(len(names)), names)
    words = "; ".join(
        f"{name}: {found['chats'][0]:+.2f}, {found['plays'][0]:+.2f} nats, "
        f"{found['accuracy'][0]:.0%} right"
        for name, found in remedies.items()
    )
    return show(fig, alt=f"Seven runs and what they forget. {words}.", name="forgetting")


def _dots(ax: Axes, found: list[list[float]]) -> None:
    """Draw means with their intervals, one below the other."""
    ends: Any = [
        [mean - low for mean, low, _ in found],
        [high - mean for mean, _, high in found],
    ]
    ax.errorbar(
        [mean for mean, _, _ in found], range(len(found)), xerr=ends, linestyle="", marker="o",
        markevery=1, capsize=3,
    )  # fmt: skip
