"""Figures of the chapters on pre-training, one function each.

What such a figure shows comes from measurements, and so do the numbers in its alternative text.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from posttrain.core.plotting import INK, PALETTE, SvgFigure, figure, label_lines, show
from posttrain.core.stats import Estimate


def decoding_times(
    seconds: Mapping[str, Sequence[float]], prompt_length: int, *, name: str = "cache"
) -> SvgFigure:
    """Draw the time of each new token against the length of the text.

    Args:
        seconds: For each way to decode, the seconds of each step after the first.
        prompt_length: Tokens before the first step.
        name: The figure's name on its page.

    Returns:
        The figure; its text says how long the first and the last steps took.

    Chapter: pretraining/sampling.
    """
    fig, ax = figure(height=2.6)
    told = []
    for label, steps in seconds.items():
        milliseconds = [1000 * step for step in steps]
        positions = range(prompt_length + 1, prompt_length + 1 + len(steps))
        ax.plot(positions, milliseconds, label=label)
        first, last = median(milliseconds[:8]), median(milliseconds[-8:])
        told.append(f"{label}: {first:.0f} ms in the first eight steps, {last:.0f} in the last")
    ax.set(xlabel="tokens in the text", ylabel="ms per new token", ylim=(0, None))
    label_lines(ax)
    alt = (
        "Milliseconds per new token against the length of the text. Medians, "
        f"{'; '.join(told)}."
    )
    return show(fig, name=name, alt=alt)


def kept_ranks(
    curves: Mapping[str, Sequence[float]],
    counts: Mapping[str, Mapping[str, int]],
    *,
    name: str = "filters",
) -> SvgFigure:
    """Draw probabilities by rank, and a bar for each filter over the ranks that it keeps.

    Args:
        curves: For each distribution, the largest probabilities, falling.
        counts: For each distribution, how many tokens each filter keeps.
        name: The figure's name on its page.

    Returns:
        The figure; its text says how many tokens each filter keeps.

    Chapter: pretraining/sampling.
    """
    fig, axes = figure(height=3.3, ncols=len(curves), sharey=True)
    told = []
    for ax, (title, curve) in zip(axes, curves.items(), strict=True):
        ax.plot(range(1, len(curve) + 1), curve, color=INK, marker="", linewidth=1.4)
        where = ax.get_xaxis_transform()
        for row, (label, n) in enumerate(counts[title].items()):
            y = 0.29 - 0.105 * row
            bar = (y - 0.035, y + 0.035)
            ax.fill_between(
                [0.75, n * 1.12], *bar, color=PALETTE[row], linewidth=0, transform=where
            )
            ax.annotate(f"{label}: {n}", (n * 1.3, y), xycoords=where, va="center", fontsize=9)
        ax.set(xscale="log", yscale="log", xlim=(0.75, len(curve)), ylim=(3e-9, 2))
        ax.set(title=title, xlabel="rank of the token")
        kept = ", ".join(f"{label} {n}" for label, n in counts[title].items())
        told.append(f"{title}: {kept}")
    axes[0].set_ylabel("probability")
    alt = (
        "Probability against rank, with a bar for each filter over the ranks it keeps. "
        f"Tokens kept, {'; '.join(told)}."
    )
    return show(fig, name=name, alt=alt)


def trade_off(
    points: Mapping[str, tuple[Estimate, Estimate]],
    curve: Sequence[str],
    *,
    name: str = "trade",
) -> SvgFigure:
    """Draw added surprise against entropy, and a line through the temperatures.

    Args:
        points: Entropy and added surprise of each sampler, in nats per token.
        curve: The names of the samplers that the line joins, in order.
        name: The figure's name on its page.

    Returns:
        The figure; its text says where each point lies.

    Chapter: pretraining/sampling.
    """
    fig, ax = figure(height=3.4)
    line = [(points[key][0].value, points[key][1].value) for key in curve]
    ax.plot(*zip(*line, strict=True), color=PALETTE[0], marker="", linewidth=1.2)
    told, shapes = [], iter("sD^vPX")
    colors = iter(PALETTE[1:] * 2)
    for label, (x, y) in points.items():
        on_curve = label in curve
        ax.errorbar(
            x.value,
            y.value,
            xerr=[[x.value - x.low], [x.high - x.value]],
            yerr=[[y.value - y.low], [y.high - y.value]],
            color=PALETTE[0] if on_curve else next(colors),
            marker="o" if on_curve else next(shapes),
            markevery=1,
            markersize=5,
            linestyle="",
            label="_" if on_curve else label,
        )
        if on_curve:
            first = label == curve[0]  # left of it is room
            ax.annotate(
                label,
                (x.value, y.value),
                (-8 if first else 8, -12),
                textcoords="offset points",
                ha="right" if first else "left",
                fontsize=9,
            )
        height = f"{y.value:.2f}".replace("-0.00", "0.00")
        told.append(f"{label} at {x.value:.1f} and {height}")
    ax.set(
        xlabel="entropy of the sampler (nats per token)",
        ylabel="added surprise, KL(q‖p)\n(nats per token)",
    )
    ax.margins(0.16)
    ax.legend(loc="upper left")
    alt = f"Added surprise against entropy, with a line through {len(curve)} temperatures. "
    return show(fig, name=name, alt=alt + "; ".join(told) + ".")
