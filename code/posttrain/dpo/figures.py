"""Figures of Stage 2: each page hands over what it measured and keeps one call.

Chapter: dpo/derivation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from posttrain.core.figures.plotting import (
    INK,
    PALETTE,
    SvgFigure,
    band,
    figure,
    heatmap,
    label_lines,
    reference,
    show,
)
from posttrain.core.stats import Estimate
from posttrain.dpo.data.shared_prompt import CHOSEN, PROMPT, REJECTED, PackedPair
from posttrain.dpo.theory.finite_data import Descent


def closed_form_figure(
    ref: Sequence[float], reward: Sequence[float], optima: Mapping[float, Sequence[float]]
) -> SvgFigure:
    """Draw a reference, a reward, and the optimal policy for several betas.

    Args:
        ref: Probability of each answer under the reference.
        reward: Reward of each answer; answers are drawn in the order of their reward.
        optima: Probability of each answer under the optimal policy, by beta.

    Returns:
        The figure, two panels.
    """
    order = sorted(range(len(reward)), key=lambda answer: reward[answer])
    places = range(len(order))
    fig, (top, bottom) = figure(height=4.2, nrows=2, sharex=True)
    top.bar(places, [reward[y] for y in order], color=PALETTE[4], alpha=0.7, width=0.7)
    top.axhline(0, color=INK, linewidth=0.8)
    top.set(title="Reward r")
    bottom.bar(
        places, [ref[y] for y in order], color=INK, alpha=0.22, width=0.7, label="reference"
    )
    for number, (beta, optimum) in enumerate(optima.items()):
        bottom.plot(
            places, [optimum[y] for y in order], markevery=1, color=PALETTE[number],
            label=f"optimum, β = {beta:g}",
        )  # fmt: skip
    bottom.set(title="Probability", xlabel="answer, by its reward", xticks=places, ylim=0)
    bottom.set_xticklabels([str(place + 1) for place in places])
    bottom.legend(loc="upper left")
    best = order[-1]
    grows = ", ".join(f"{optimum[best]:.0%} for β = {b:g}" for b, optimum in optima.items())
    alt = (
        f"Above: rewards of {len(order)} answers, sorted. Below: the answer with the highest "
        f"reward has {ref[best]:.0%} under the reference, and under the optimum {grows}."
    )
    return show(fig, alt=alt, name="closed-form")


def loss_figure(betas: Sequence[float] = (1.0, 0.5)) -> SvgFigure:
    """Draw DPO's loss over the margin, and the weight of a pair's gradient.

    Args:
        betas: The betas whose weights are drawn.

    Returns:
        The figure, two panels.
    """
    margin = np.linspace(-6, 6, 121)
    weight = 1 / (1 + np.exp(margin))
    fig, (left, right) = figure(height=2.7, ncols=2)
    left.plot(margin, np.logaddexp(0, -margin), marker="")
    left.axvline(0, color=INK, linewidth=0.8, alpha=0.6)
    reference(left, float(np.log(2)), "ln 2", side="right")
    left.set(xlabel="margin", title="Loss (nats)", ylim=0)
    for beta in betas:
        right.plot(margin, beta * weight, marker="", label=f"β = {beta:g}")
    right.axvline(0, color=INK, linewidth=0.8, alpha=0.6)
    right.set(xlabel="margin", title="Weight of a pair", ylim=0)
    right.legend()
    alt = (
        "Left: the loss falls from 6 nats at a margin of -6 through ln 2 at 0 toward 0. Right: "
        "the gradient's weight is beta for pairs that are far wrong, half of it at a margin of "
        "0, and near 0 for pairs that are far right."
    )
    return show(fig, alt=alt, name="loss")


def losses_figure(
    margins: Sequence[float], curves: Mapping[str, tuple[Sequence[float], Sequence[float]]]
) -> SvgFigure:
    """Draw losses of a pair over its margin, and their slopes.

    Args:
        margins: Where they were computed.
        curves: Losses and slopes at each margin, by name.

    Returns:
        The figure, two panels.

    Chapter: dpo/losses.
    """
    fig, (left, right) = figure(width="wide", height=3.4, ncols=2)
    for name, (losses, slopes) in curves.items():
        left.plot(margins, losses, label=name)
        right.plot(margins, slopes, label=name)
    for ax in (left, right):
        ax.axhline(0, color=INK, linewidth=0.8, alpha=0.6)
        ax.axvline(0, color=INK, linewidth=0.8, alpha=0.6)
    left.set(xlabel="margin", title="Loss of a pair", ylim=(-1.3, 6.6))
    right.set(xlabel="margin", title="Slope (negative: the margin is raised)", ylim=(-1.8, 1))
    right.legend(loc="lower right")
    first = min(range(len(margins)), key=lambda k: abs(margins[k] - margins[0] / 2))
    last = min(range(len(margins)), key=lambda k: abs(margins[k] - margins[-1] / 2))
    slopes_there = "; ".join(
        f"{name} {slopes[first]:+.2f} and {slopes[last]:+.2f}"
        for name, (_, slopes) in curves.items()
    )
    alt = (
        f"Left: {len(curves)} losses over the margin. Right: their slopes, at margins of "
        f"{margins[first]:.1f} and {margins[last]:.1f}: {slopes_there}."
    )
    return show(fig, alt=alt, name="losses")


def label_noise_figure(
    accuracy: Mapping[str, Mapping[float, Estimate]],
    scale: Mapping[str, Mapping[float, Estimate]],
) -> SvgFigure:
    """Draw what flipped labels do to held-out accuracy and to the size of margins.

    Args:
        accuracy: Accuracy by the share of flipped labels, with its interval, by loss.
        scale: Size of the margins beside the true ones, in the same form.

    Returns:
        The figure, two panels.

    Chapter: dpo/losses.
    """
    fig, panels = figure(width="wide", height=3.0, ncols=2)
    titles = "True held-out accuracy", "Size of margins, true = 1"
    for ax, found, title in zip(panels, (accuracy, scale), titles, strict=True):
        for number, (name, curve) in enumerate(found.items()):
            at = [100 * share + 0.6 * (number - (len(found) - 1) / 2) for share in curve]
            ends = [
                [x.value - x.low for x in curve.values()],
                [x.high - x.value for x in curve.values()],
            ]
            values = [x.value for x in curve.values()]
            ax.errorbar(at, values, yerr=ends, label=name, capsize=4, markevery=1)
        ax.set(xlabel="flipped labels (%)", title=title)
        ax.set_xticks([100 * share for share in next(iter(found.values()))])
    reference(panels[1], 1.0, "right size", side="left")
    panels[1].set_ylim(bottom=0)
    panels[0].legend(loc="lower left")
    most = max(next(iter(accuracy.values())))
    parts = "; ".join(
        f"{name} accuracy {accuracy[name][most].value:.3f} and size {size[most].value:.2f}"
        for name, size in scale.items()
    )
    alt = f"Points with intervals over the share of flipped labels. At {most:.0%}: {parts}."
    return show(fig, alt=alt, name="label-noise")


def reward_model_figure(
    curves: Mapping[str, Mapping[int, Estimate]],
    bayes: float,
    gaps: Mapping[str, Mapping[str, Estimate]],
) -> SvgFigure:
    """Draw held-out accuracy over the number of pairs, and two intervals of the gap to Bayes.

    Args:
        curves: Accuracy by the number of training pairs, with its interval over seeds, by
            learner.
        bayes: The accuracy that no learner exceeds on average.
        gaps: The gap to Bayes at one number of pairs, by learner, by what its interval covers.

    Returns:
        The figure, two panels.
    """
    fig, (left, right) = figure(width="wide", height=3.0, ncols=2)
    for name, curve in curves.items():
        middle, low, high = (
            [getattr(found, key) for found in curve.values()]
            for key in ("value", "low", "high")
        )
        band(left, list(curve), middle, low, high, name, markevery=1)
    left.set(xscale="log", xlabel="training pairs", title="Held-out accuracy")
    left.set_xticks(list(next(iter(curves.values()))))
    left.set_xticklabels([f"{n:,}" for n in next(iter(curves.values()))])
    left.minorticks_off()
    left.set_ylim(top=bayes + 0.2 * (bayes - left.get_ylim()[0]))  # room for the label
    reference(left, bayes, "Bayes", side="left")
    left.legend(loc="lower right")
    rows = [(learner, covers) for learner, found in gaps.items() for covers in found]
    for row, (learner, covers) in enumerate(rows):
        found = gaps[learner][covers]
        color = PALETTE[list(curves).index(learner)]
        ends = [[found.value - found.low], [found.high - found.value]]
        right.errorbar(
            [found.value], [-row], xerr=ends, color=color, linestyle="", capsize=4, markevery=1,
            marker="os"[list(curves).index(learner) % 2], markersize=6,
        )  # fmt: skip
    right.set_yticks([-row for row in range(len(rows))])
    right.set_yticklabels([f"{learner},\nover {covers}" for learner, covers in rows])
    right.set(title="Gap to Bayes", ylim=(0.5 - len(rows), 0.5))
    right.set_xlim(left=0.0)
    right.locator_params(axis="x", nbins=5)
    last = "; ".join(
        f"{name} from {next(iter(c.values())).value:.3f} to {list(c.values())[-1].value:.3f}"
        for name, c in curves.items()
    )
    alt = (
        f"Left: accuracy rises with the training pairs toward {bayes:.3f}, the Bayes "
        f"accuracy: {last}. Right: the gap to Bayes of each, with an interval over pairs and "
        "one over seeds."
    )
    return show(fig, alt=alt, name="reward-model")


def finite_data_figure(
    margins: Mapping[str, Descent], displaced: Descent, answers: Sequence[str]
) -> SvgFigure:
    """Draw how far one pair is pushed apart, and what happens to three answers meanwhile.

    Args:
        margins: Runs on one pair, by label.
        displaced: A run with shared features.
        answers: What its answers are called, chosen and rejected first.

    Returns:
        The figure, two panels.
    """
    fig, (left, right) = figure(width="wide", height=2.9, ncols=2)
    for name, run in margins.items():
        left.plot(run.steps, run.log_ratio, label=name)
    left.set(xscale="log", yscale="symlog", xlabel="step", title="Log-ratio of the pair (nats)")
    left.set_yticks([0, 1, 10, 100], labels=["0", "1", "10", "100"])
    left.set_ylim(0, 200)
    left.minorticks_off()
    left.legend(loc="upper left")
    until = next((k for k, logp in enumerate(displaced.logps[:, 0]) if logp < -6), None)
    for number, name in enumerate(answers):
        right.plot(displaced.steps[:until], displaced.logps[:until, number], label=name)
    right.set(xscale="log", xlabel="step", title="Log-probability (nats)")
    right.minorticks_off()
    label_lines(right)
    ends = "; ".join(f"{name} {run.log_ratio[-1]:.1f}" for name, run in margins.items())
    first, last = displaced.logps[0], displaced.logps[-1]
    moved = "; ".join(
        f"{name} from {first[i]:.1f} to {last[i]:.1f}" for i, name in enumerate(answers)
    )
    alt = (
        f"Left: the log-ratio of one pair after {next(iter(margins.values())).steps[-1]:,} "
        f"steps: {ends}. Right: log-probabilities over all of training: {moved}."
    )
    return show(fig, alt=alt, name="finite-data")


_PARTS = {PROMPT: "prompt", CHOSEN: "chosen", REJECTED: "rejected"}


def pair_mask_figure(pair: PackedPair, tokens: Sequence[str]) -> SvgFigure:
    """Draw which token of a packed pair sees which, and where each stands in its own sequence.

    Args:
        pair: The pair in one row, of ``T`` tokens.
        tokens: How each token is written, ``T`` texts.

    Returns:
        The figure.

    Chapter: dpo/preference_data.
    """
    mask, parts = pair.attention_mask.numpy(), pair.parts.numpy()
    fig, ax = figure(height=4.6)
    for number, (part, name) in enumerate(_PARTS.items()):
        columns = np.flatnonzero(parts == part)
        seen = np.where(mask & (parts == part), 1.0, np.nan)
        heatmap(ax, seen, low=0.0, high=1.0, color=PALETTE[number])
        ax.text(columns.mean(), -1.0, name, ha="center", va="bottom")
        for edge in (columns[0] - 0.5, columns[-1] + 0.5):
            ax.axvline(edge, color=INK, linewidth=0.8, alpha=0.6)
            ax.axhline(edge, color=INK, linewidth=0.8, alpha=0.6)
    places = pair.position_ids.tolist()
    ax.set_yticks(
        range(len(tokens)), labels=[f"{t}  {p}" for t, p in zip(tokens, places, strict=True)]
    )
    ax.set_xticks(range(len(tokens)), labels=list(tokens), rotation=90)
    ax.set(ylabel="token that looks, and its position", xlabel="token that is looked at")
    counts = ", ".join(f"{(parts == part).sum()} of the {_PARTS[part]}" for part in _PARTS)
    across = int(mask[parts == REJECTED][:, parts == CHOSEN].sum())
    first, last = (np.array(places)[parts == REJECTED][i] for i in (0, -1))
    alt = (
        f"A square of {len(tokens)} by {len(tokens)} tokens: {counts}. Each answer sees the "
        f"prompt and its own tokens before. The rejected answer sees {across} tokens of the "
        f"chosen one, and stands at positions {first} to {last}."
    )
    return show(fig, alt=alt, name="pair-mask")
