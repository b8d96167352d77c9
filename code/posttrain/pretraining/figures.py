"""Figures of Stage 0: each page hands over what it measured and keeps one call.

Chapter: pretraining/training_dynamics.
"""

import math
from collections.abc import Mapping, Sequence
from statistics import median

from posttrain.core.figures.plotting import (
    INK,
    PALETTE,
    SvgFigure,
    band,
    figure,
    label_lines,
    reference,
    show,
)
from posttrain.core.stats import Estimate, mean_interval
from posttrain.core.training.checkpoints import History
from posttrain.pretraining.model.attention import rotary_frequencies
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.training.metrics import smoothed


def loss_figure(history: History, goal: float, window: int = 50) -> SvgFigure:
    """Draw the loss of batches, and the loss on both texts, against the step.

    Args:
        history: The run.
        goal: The goal for the held-out loss, in nats.
        window: How many batches make a point of the smoothed line.

    Returns:
        The figure.
    """
    smooth = smoothed(history.loss, window)
    steps = [row["step"] for row in history.evaluations]
    fig, ax = figure(height=3.0)
    batches = range(1, len(history.loss) + 1)
    ax.plot(batches, history.loss, "-", color=INK, alpha=0.35, linewidth=0.6, marker="")
    middles = [window * (i + 0.5) for i in range(len(smooth))]
    ax.plot(middles, smooth, label="batches, smoothed")
    ax.plot(steps, _column(history, "train_loss"), label="training text")
    ax.plot(steps, _column(history, "val_loss"), label="held-out plays")
    reference(ax, goal, f"goal: ≤ {goal:g}", side="left")
    ax.set(xlabel="step", ylabel="loss (nats per character)", ylim=(1.2, 4.4))
    ax.legend()
    ends = [_column(history, key)[-1] for key in ("train_loss", "val_loss")]
    alt = (
        f"Loss against steps, from {history.loss[0]:.1f} nats. It falls steeply for the first "
        f"steps and then slowly, to {ends[0]:.2f} nats on the training text and {ends[1]:.2f} "
        "on the held-out plays. Single batches scatter around the smoothed line."
    )
    return show(fig, alt=alt, name="main")


def norms_figure(history: History, max_grad_norm: float) -> SvgFigure:
    """Draw gradient norm and learning rate against the step.

    Args:
        history: The run.
        max_grad_norm: The bound above which gradients were clipped.

    Returns:
        The figure, two panels.
    """
    fig, (norms, rates) = figure(ncols=2, height=2.3)
    shown = range(1, len(history.loss) + 1)
    norms.plot(shown, history.grad_norm, marker="", linewidth=0.7)
    reference(norms, max_grad_norm, "clipped above")
    norms.set(xlabel="step", ylabel="gradient norm", yscale="log")
    rates.plot(shown, history.learning_rate, marker="")
    rates.set(xlabel="step", ylabel="learning rate", ylim=(0, None))
    above = sum(norm > max_grad_norm for norm in history.grad_norm) / len(history.loss)
    alt = (
        "Two panels. Left, on a logarithmic axis: the gradient norm, above the clipping bound "
        f"in {above:.0%} of the steps. Right: the learning rate rises in a straight line, then "
        "falls along half a cosine."
    )
    return show(fig, alt=alt, name="norms")


def dials_figure(panels: Mapping[str, Mapping[float, Sequence[float]]]) -> SvgFigure:
    """Draw the loss against each setting that was varied, with intervals over seeds.

    Args:
        panels: For each axis label, the losses of all seeds by value of the setting.

    Returns:
        The figure, a panel each.
    """
    fig, axes = figure("wide", ncols=len(panels), height=2.5, sharey=True)
    lowest = []
    for ax, (name, results) in zip(axes, panels.items(), strict=True):
        found = [mean_interval(losses) for losses in results.values()]
        means, lows, highs = ([getattr(e, k) for e in found] for k in ("value", "low", "high"))
        band(ax, list(results), means, lows, highs, f"mean of {found[0].n} seeds")
        ax.set(xscale="log", xlabel=name)
        if "rate" not in name:
            ax.set_xticks(list(results), [f"{value:g}" for value in results])
            ax.minorticks_off()
        lowest.append(f"{name} at {list(results)[means.index(min(means))]:g}")
    axes[0].set(ylabel="held-out loss (nats)")
    alt = (
        f"{len(panels)} panels of held-out loss with bands over seeds. The lowest means: "
        f"{'; '.join(lowest)}."
    )
    return show(fig, alt=alt, name="dials")


def rows_figure(
    rows: Mapping[str, Estimate], xlabel: str, name: str, *, zero: bool = False
) -> SvgFigure:
    """Draw one estimate a row, the first on top.

    Args:
        rows: Estimates by label.
        xlabel: What they are, with the unit.
        name: The figure's name.
        zero: Whether a line marks zero.

    Returns:
        The figure.
    """
    fig, ax = figure(height=0.5 + 0.4 * len(rows))
    for place, found in enumerate(list(rows.values())[::-1]):
        ends = [[found.value - found.low], [found.high - found.value]]
        ax.errorbar(
            found.value, place, xerr=ends, marker="o", markevery=1, capsize=4, color="C0"
        )
    if zero:
        ax.axvline(0, color=INK, linewidth=0.8)
    ax.set_yticks(range(len(rows)), list(rows)[::-1])
    ax.set(xlabel=xlabel, ylim=(-0.6, len(rows) - 0.4))
    values = "; ".join(f"{label} {found.value:.2f}" for label, found in rows.items())
    return show(fig, alt=f"Rows of points with intervals, {xlabel}: {values}.", name=name)


def failures_figure(
    healthy: History, exploded: History, leaking: History, overfitted: History
) -> SvgFigure:
    """Draw three failures beside what is right.

    Args:
        healthy: A run that went well.
        exploded: One that the guard stopped.
        leaking: One whose mask shows the next token.
        overfitted: One on a text that is far too small.

    Returns:
        The figure, three panels.
    """
    fig, (explosion, leak, overfit) = figure("wide", ncols=3, height=2.6)
    shown = max(20, 2 * len(exploded.loss))
    explosion.plot(healthy.loss[:shown], label="healthy")
    explosion.plot(exploded.loss, label="stopped by the guard")
    explosion.set(title="explosion", xlabel="step", ylabel="training loss (nats)", yscale="log")
    for history, label in ((healthy, "right mask"), (leaking, "mask off by one")):
        leak.plot(_column(history, "step"), _column(history, "val_loss"), label=label)
    leak.set(title="leak through the mask", xlabel="step", ylabel="held-out loss (nats)")
    steps = _column(overfitted, "step")
    overfit.plot(steps, _column(overfitted, "train_loss"), label="its own text")
    overfit.plot(steps, _column(overfitted, "val_loss"), label="held-out plays")
    overfit.set(title="too little text", xlabel="step", ylabel="loss (nats)")
    for ax in (explosion, leak, overfit):
        ax.legend()
    ends = [_column(history, "val_loss")[-1] for history in (healthy, leaking, overfitted)]
    alt = (
        f"Three panels. A run climbs to {max(exploded.loss):.3g} nats until the guard stops it "
        f"after {len(exploded.loss)} steps. A leaking mask brings the held-out loss to "
        f"{ends[1]:.2f} nats where the right one ends at {ends[0]:.2f}. On too little text the "
        f"training loss keeps falling while the held-out loss ends at {ends[2]:.2f}."
    )
    return show(fig, alt=alt, name="failures")


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


def rope_scaling_figure(config: GPTConfig, *, name: str = "rope-scaling") -> SvgFigure:
    """Draw what a stretching of the context does to each pair of channels.

    Args:
        config: The shape of a model with ``rope_scaling``.
        name: The figure's name on its page.

    Returns:
        The figure; its text says how many pairs are kept, mixed and stretched.

    Raises:
        ValueError: If the model stretches nothing.

    Chapter: pretraining/gpt.
    """
    scaling = config.rope_scaling
    if scaling is None:
        raise ValueError("rope_scaling is None: there is nothing to draw")
    plain, stretched = (
        2 * math.pi / rotary_frequencies(config.channels_per_head, config.rope_theta, chosen)
        for chosen in (None, scaling)
    )
    kept = int((stretched == plain).sum())
    slow = int((stretched > 0.999 * scaling.factor * plain).sum())
    fig, ax = figure(height=3.1)
    ax.plot(range(len(plain)), plain, label="as trained at first")
    ax.plot(range(len(plain)), stretched, label=f"stretched by {scaling.factor:g}")
    original = scaling.original_max_position_embeddings
    reference(ax, original, f"first context, {original:,}", side="left")
    reference(
        ax,
        config.max_position_embeddings,
        f"context now, {config.max_position_embeddings:,}",
        side="left",
    )
    ax.set(yscale="log", xlabel="pair of channels", ylabel="tokens for one full turn")
    label_lines(ax)
    alt = (
        "Tokens that a pair of channels needs for a full turn, before and after the context "
        f"was stretched, on a logarithmic axis. {kept} of {len(plain)} pairs stay, "
        f"{slow} are {scaling.factor:g} times slower, and {len(plain) - kept - slow} between "
        "them change by less."
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


def _column(history: History, key: str) -> list[float]:
    return [row[key] for row in history.evaluations]
