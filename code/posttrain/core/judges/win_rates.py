"""Win-rates out of a judge's outcomes, with intervals, as they are and at equal length.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from posttrain.core.judges.verdicts import Outcome
from posttrain.core.stats import Estimate, wilson_interval

SCORES = {"a": 1.0, "tie": 0.5, "b": 0.0}
"""What a pair counts for answer a."""

_STEPS = 100  # of Newton's method; about ten are needed
_LONGEST_STEP = 2.0


@dataclass(frozen=True)
class WinRate(Estimate):
    """How often answer a is preferred to answer b; a tie counts as half.

    Attributes:
        wins: Pairs that a won in both orders.
        losses: Pairs that b won in both orders.
        ties: All other pairs, those with a verdict that could not be read among them.
        unread: Pairs with a verdict that could not be read.
        first_twice: Share of pairs in which the first place won both times: the bias towards
            it. A judge that says the same of a pair in both orders has 0 here.
        second_twice: Share of pairs in which the second place won both times.
    """

    wins: int
    losses: int
    ties: int
    unread: int
    first_twice: Estimate
    second_twice: Estimate

    def __str__(self) -> str:
        text = (
            f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}], n = {self.n} "
            f"({self.wins} won, {self.losses} lost, {self.ties} tied"
        )
        text += f", of these {self.unread} unread)" if self.unread else ")"
        return (
            f"{text}; the first place won both times in {self.first_twice.value:.1%}, the "
            f"second in {self.second_twice.value:.1%}"
        )


@dataclass(frozen=True)
class LengthControlledWinRate(Estimate):
    """The win-rate that a logistic regression predicts for answers of equal length.

    Attributes:
        slope: Change of the log-odds of a win when ``tanh`` of the length difference, in units
            of `scale`, grows by one: positive where the judge favors the longer answer.
        scale: Root mean square of the length differences, in the unit of the lengths.
        mean_difference: Mean of ``length_a - length_b``.
        extrapolated: Whether all differences lie on one side of zero. No pair of about equal
            length then backs the rate.
    """

    slope: float
    scale: float
    mean_difference: float
    extrapolated: bool

    def __str__(self) -> str:
        text = (
            f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] at equal length, n = {self.n} "
            f"(slope {self.slope:.2g}; a is longer by {self.mean_difference:.3g} on average)"
        )
        return text + (", extrapolated" if self.extrapolated else "")


def win_rate(outcomes: Sequence[Outcome], confidence: float = 0.95) -> WinRate:
    """Count how often answer a wins against answer b, a tie as half.

    The interval is Wilson's score interval (Wilson, 1927) on ``wins + ties / 2`` of n. It takes
    each pair as a coin with the variance ``p (1 - p)``. A tie varies less than that, so with
    many ties the interval is wider than it need be. It covers the draw of the prompts: each
    pair must belong to a prompt of its own. It does not cover the seeds of the training, nor
    another judge.

    Args:
        outcomes: One for each prompt, from `judge_pairs`.
        confidence: Confidence level, between 0 and 1.

    Returns:
        The rate with its interval, its counts, and the bias towards a place.

    Raises:
        ValueError: If there are no outcomes, or the level is none.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    count = len(outcomes)
    if not count:
        raise ValueError("there are no outcomes: give one for each prompt")
    first = wilson_interval(sum(o.place == "first" for o in outcomes), count, confidence)
    second = wilson_interval(sum(o.place == "second" for o in outcomes), count, confidence)
    winners = [outcome.winner for outcome in outcomes]
    wins, losses, ties = (winners.count(name) for name in ("a", "b", "tie"))
    rate = (wins + ties / 2) / count
    low, high = _wilson(rate, count, confidence)
    return WinRate(
        value=rate,
        low=low,
        high=high,
        n=count,
        wins=wins,
        losses=losses,
        ties=ties,
        unread=sum(bool(outcome.problem) for outcome in outcomes),
        first_twice=first,
        second_twice=second,
    )


def length_controlled_win_rate(
    outcomes: Sequence[Outcome],
    length_a: ArrayLike,
    length_b: ArrayLike,
    *,
    ridge: float = 0.1,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> LengthControlledWinRate:
    """Estimate the win-rate that two models would have if their answers were equally long.

    Judges favor long answers. AlpacaEval 2 (Dubois et al., 2024) fits a logistic regression of
    the verdicts and takes the length out of its prediction. This is the version for one pair of
    models, without the terms for the difficulty of each prompt::

        d_i        = tanh((length_a_i - length_b_i) / scale)
        P(a wins)  = sigmoid(intercept + slope d_i)
        rate       = sigmoid(intercept)

    ``tanh`` is the paper's, and keeps one very long answer from ruling the fit. ``scale`` is
    the root mean square of the differences, where the paper has their standard deviation: so
    differences that are all large stay apart. The fit maximizes the likelihood, in which a tie
    is half a win and half a loss, less ``ridge / 2 (intercept**2 + slope**2)``. The ridge keeps
    both finite where the length separates wins from losses, or one of them is missing. With 300
    pairs and a rate between 10 and 90 % it moves the rate by a tenth of a point or so. The
    optimum is found by Newton's method.

    The interval is made of percentiles of the rate over prompts drawn anew, at the same scale.
    Where all pairs have the same winner these have no spread, and the interval is the plain
    rate's, widened to hold the prediction.

    Args:
        outcomes: One for each prompt, from `judge_pairs`.
        length_a: Length of each answer a, in tokens or characters, shape (n,).
        length_b: Length of each answer b, in the same unit, shape (n,).
        ridge: Weight of the penalty, above 0.
        confidence: Confidence level, between 0 and 1.
        resamples: How often the prompts are drawn anew.
        seed: Seed of the drawing.

    Returns:
        The rate at equal length, with its interval and what the fit says of the length.

    Raises:
        ValueError: If the numbers of outcomes and lengths differ, a length is negative or not
            finite, a setting is no good, or all pairs differ in length by the same amount other
            than zero: length and quality then cannot be told apart.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    if not ridge > 0 or not math.isfinite(ridge):
        raise ValueError(f"ridge is {ridge}: give a finite number above 0")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few for an interval: use at least 100")
    plain = win_rate(outcomes, confidence)
    count = len(outcomes)
    difference = _lengths(length_a, "length_a", count) - _lengths(length_b, "length_b", count)
    scale = float(np.sqrt(np.mean(difference**2)))
    if scale > 0 and np.ptp(difference) == 0:
        raise ValueError(
            f"all {count} pairs differ in length by {difference[0]:g}, so length and quality "
            "cannot be told apart: give pairs whose differences vary"
        )
    feature = np.tanh(difference / scale) if scale else difference
    wins = np.array([SCORES[outcome.winner] for outcome in outcomes])
    [(intercept, slope)] = _fit(feature, wins, np.ones((1, count)), ridge)
    rate = float(_sigmoid(intercept))
    if np.ptp(wins) == 0:
        low, high = min(plain.low, rate), max(plain.high, rate)
    else:
        drawn = np.random.default_rng(seed).multinomial(
            count, np.full(count, 1 / count), size=resamples
        )
        rates = _sigmoid(_fit(feature, wins, drawn.astype(np.float64), ridge)[:, 0])
        tail = (1 - confidence) / 2
        low, high = (float(end) for end in np.quantile(rates, [tail, 1 - tail]))
    return LengthControlledWinRate(
        value=rate,
        low=low,
        high=high,
        n=count,
        slope=float(slope),
        scale=scale,
        mean_difference=float(difference.mean()),
        extrapolated=bool(difference.min() > 0 or difference.max() < 0),
    )


def _wilson(rate: float, count: int, confidence: float) -> tuple[float, float]:
    """Return Wilson's interval for a share that need not come of a whole number."""
    z = float(scipy.stats.norm.ppf((1 + confidence) / 2))
    middle = (rate + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * math.sqrt(rate * (1 - rate) / count + (z / (2 * count)) ** 2)
    half /= 1 + z**2 / count
    return max(0.0, min(rate, middle - half)), min(1.0, max(rate, middle + half))


def _lengths(values: ArrayLike, name: str, count: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,):
        raise ValueError(
            f"{name} has the shape {array.shape} and there are {count} outcomes: give one "
            "length for each"
        )
    bad = np.flatnonzero(~np.isfinite(array) | (array < 0))
    if len(bad):
        raise ValueError(f"{name} holds {array[bad[0]]} at position {bad[0]}: give lengths")
    return array


def _fit(
    feature: NDArray[np.float64],
    wins: NDArray[np.float64],
    weights: NDArray[np.float64],
    ridge: float,
) -> NDArray[np.float64]:
    """Fit one regression for each row of weights by Newton's method.

    Args:
        feature: The length feature of each pair, shape (n,).
        wins: 1, 0.5 or 0 for each pair, shape (n,).
        weights: How often each pair counts, shape (R, n).
        ridge: Weight of the penalty.

    Returns:
        Intercept and slope, shape (R, 2).
    """
    found = np.zeros((len(weights), 2))
    design = np.stack([np.ones_like(feature), feature], axis=1)  # (n, 2)
    products = (design[:, :, None] * design[:, None, :]).reshape(-1, 4)
    for _ in range(_STEPS):
        chance = _sigmoid(found @ design.T)  # (R, n)
        gradient = (weights * (wins - chance)) @ design - ridge * found
        curvature = ((weights * chance * (1 - chance)) @ products).reshape(-1, 2, 2)
        curvature += ridge * np.eye(2)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        size = np.linalg.norm(step, axis=1, keepdims=True)
        found += step * np.minimum(1, _LONGEST_STEP / np.maximum(size, 1e-12))
        if size.max() < 1e-10:
            break
    return found


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-values))
