"""Intervals and paired tests for the book's numbers; scipy computes, this module checks inputs.

Which one when: a share of n items, `wilson_interval`; the same items under two models,
`mcnemar_exact` if each answer is right or wrong, `paired_bootstrap` if it has a score; a few
seeds of one experiment, `mean_interval`; two shares of different items, `share_difference`.

Chapter: sft/fine_tuning.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


class Interval(NamedTuple):
    """A confidence interval.

    Attributes:
        low: Its lower end.
        high: Its upper end.
    """

    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """A measured value with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end of the interval.
        n: How many items or seeds it rests on.
    """

    value: float
    low: float
    high: float
    n: int

    @property
    def ci(self) -> Interval:
        """The interval, as `Goal` takes it."""
        return Interval(self.low, self.high)

    def __str__(self) -> str:
        return f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}], n = {self.n}"


@dataclass(frozen=True)
class PairedDifference(Estimate):
    """A mean difference between two measurements of the same items.

    Attributes:
        p_value: Two-sided, for the hypothesis that the mean difference is zero.
    """

    p_value: float

    def __str__(self) -> str:
        return f"{super().__str__()}, p = {self.p_value:.2g}"


@dataclass(frozen=True)
class McNemar:
    """Two models' answers to the same questions, where they differ.

    Attributes:
        only_a: Questions that only the first model answered correctly.
        only_b: Questions that only the second model answered correctly.
        n: All questions.
        p_value: Two-sided and exact, for the hypothesis that both are equally good.
    """

    only_a: int
    only_b: int
    n: int
    p_value: float


def wilson_interval(successes: int, n: int, confidence: float = 0.95) -> Estimate:
    """Return a share with Wilson's score interval (Wilson, 1927).

    Args:
        successes: How many of the items count.
        n: How many items there are.
        confidence: Confidence level, between 0 and 1.

    Returns:
        The share ``successes / n`` with its interval, inside [0, 1].

    Raises:
        ValueError: If there are no items, or the successes are not between 0 and n.
    """
    _check_confidence(confidence)
    if successes != int(successes) or n != int(n):
        raise ValueError(f"{successes} of {n} is not a pair of counts: give whole numbers")
    if n < 1:
        raise ValueError(f"n is {n}: a share needs at least one item")
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes of {n} items: give a count from 0 to {n}")
    test = scipy.stats.binomtest(int(successes), int(n))
    low, high = test.proportion_ci(confidence_level=confidence, method="wilson")
    return Estimate(successes / n, float(low), float(high), int(n))


def share_difference(a: Estimate, b: Estimate) -> Estimate:
    """Return the difference of two shares of different items, with Newcombe's interval.

    The interval is made of the two Wilson intervals (Newcombe, 1998, method 10). Where both
    shares are of the *same* items, use a paired test instead.

    Args:
        a: The baseline's share, from `wilson_interval`.
        b: The other share, at the same confidence.

    Returns:
        ``b - a`` with its interval; ``n`` counts the items of both.

    Raises:
        ValueError: If one of them is not a share.
    """
    for name, share in (("a", a), ("b", b)):
        if not 0 <= share.low <= share.value <= share.high <= 1:
            raise ValueError(f"{name} is {share}, not a share: give two of wilson_interval")
    value = b.value - a.value
    down = math.hypot(b.value - b.low, a.high - a.value)
    up = math.hypot(b.high - b.value, a.value - a.low)
    return Estimate(value, value - down, value + up, a.n + b.n)


def mean_interval(values: ArrayLike, confidence: float = 0.95) -> Estimate:
    """Return the mean of a few independent runs with Student's t interval.

    Args:
        values: One number for each seed, shape (n,).
        confidence: Confidence level, between 0 and 1.

    Returns:
        The mean with its interval.

    Raises:
        ValueError: If there are fewer than two values, or one is not finite.
    """
    _check_confidence(confidence)
    sample = _numbers(values, "values")
    if len(sample) < 2:
        raise ValueError("one value has no spread, hence no interval: run at least two seeds")
    mean, spread = float(sample.mean()), float(scipy.stats.sem(sample))
    half = spread * float(scipy.stats.t.ppf((1 + confidence) / 2, df=len(sample) - 1))
    return Estimate(mean, mean - half, mean + half, len(sample))


def paired_bootstrap(
    a: ArrayLike,
    b: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    method: Literal["BCa", "percentile"] = "BCa",
    seed: int = 0,
) -> PairedDifference:
    """Return the mean of b - a over the same items, with a bootstrap interval and p-value.

    The interval is bias-corrected and accelerated (Efron, 1987) or made of percentiles. The
    p-value is the share of resampled means, moved to a mean of zero, that lie at least as far
    from zero as the measured one; it is never below ``1 / (resamples + 1)``.

    Args:
        a: Scores of the baseline, shape (n,).
        b: Scores of the other model on the same items in the same order, shape (n,).
        confidence: Confidence level, between 0 and 1.
        resamples: How often the items are drawn anew.
        method: "BCa" or "percentile".
        seed: Seed of the drawing: the same seed gives the same numbers.

    Returns:
        The mean difference: positive where b is higher.

    Raises:
        ValueError: If the lengths differ, there are fewer than two items, a score is not
            finite, or the method is unknown.
    """
    _check_confidence(confidence)
    if method not in ("BCa", "percentile"):
        raise ValueError(f"unknown method {method!r}: use 'BCa' or 'percentile'")
    if resamples < 100:
        raise ValueError(f"{resamples} resamples are too few for an interval: use at least 100")
    first, second = _numbers(a, "a"), _numbers(b, "b")
    _check_pairs(first, second)
    difference = second - first
    n, mean = len(difference), float(difference.mean())
    if n < 2:
        raise ValueError("one item cannot be resampled: give at least two")
    if np.ptp(difference) == 0:  # every resample is the same: BCa would divide by zero
        return PairedDifference(mean, mean, mean, n, 1.0 if mean == 0 else 1 / (resamples + 1))
    drawn = scipy.stats.bootstrap(
        (difference,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, 4_000_000 // n),  # 32 MB of float64 at a time
        confidence_level=confidence,
        method=method,
        rng=np.random.default_rng(seed),
    )
    centered = np.abs(drawn.bootstrap_distribution - mean)
    as_far = int(np.sum(centered >= abs(mean) * (1 - 1e-12)))
    low, high = drawn.confidence_interval
    return PairedDifference(mean, float(low), float(high), n, (1 + as_far) / (1 + resamples))


def mcnemar_exact(a_correct: ArrayLike, b_correct: ArrayLike) -> McNemar:
    """Test whether two models answer the same questions equally well (McNemar, 1947), exactly.

    Only the questions on which they differ count. Under the hypothesis that both are equally
    good, each of these is as likely to favor either: a binomial test.

    Args:
        a_correct: Whether the first model's answers are right, booleans or 0 and 1, shape (n,).
        b_correct: The same for the second model, on the same questions in the same order.

    Returns:
        The counts and the p-value; it is 1 if they never differ.

    Raises:
        ValueError: If the lengths differ, there are no questions, or a value is neither right
            nor wrong.
    """
    first, second = _numbers(a_correct, "a_correct"), _numbers(b_correct, "b_correct")
    _check_pairs(first, second)
    for name, values in (("a_correct", first), ("b_correct", second)):
        if not np.isin(values, (0.0, 1.0)).all():
            raise ValueError(f"{name} holds {values[~np.isin(values, (0, 1))][0]}: use 0 and 1")
    only_a, only_b = int(np.sum(first > second)), int(np.sum(second > first))
    differ = only_a + only_b
    p_value = float(scipy.stats.binomtest(only_a, differ).pvalue) if differ else 1.0
    return McNemar(only_a, only_b, len(first), p_value)


def _numbers(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} has the shape {array.shape}: give a sequence of numbers")
    bad = np.flatnonzero(~np.isfinite(array))
    if len(bad):
        raise ValueError(f"{name} holds {array[bad[0]]} at position {bad[0]}: drop or mend it")
    return array


def _check_pairs(a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
    if len(a) != len(b):
        raise ValueError(f"{len(a)} and {len(b)} values are not pairs: give one each per item")


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"the confidence level is {confidence}: give one between 0 and 1")
