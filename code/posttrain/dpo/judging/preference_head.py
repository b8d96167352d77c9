"""The head of a reward model: features of an answer times weights, fitted to pairs.

The reward is linear in the features, ``r = w . phi``, and a pair is won with the probability
``sigmoid(r_better - r_worse)`` (Bradley and Terry, 1952). So fitting it is logistic regression
on differences of features, without a constant. A few hundred pairs can always be told apart in
as many dimensions, hence the penalty on ``w``. How strong it has to be, held-out pairs say.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.core.arguments import whole_number
from posttrain.dpo.theory.minimize import minimize

L2 = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
"""Strengths of the penalty that are tried."""


@dataclass(frozen=True)
class HeldOut:
    """How a strength of the penalty did on pairs that it was not fitted to.

    Attributes:
        l2: The strength.
        margins: Reward of the better answer less that of the worse one, for each pair under
            the head that was fitted without it, in nats, float64, shape (n,).
    """

    l2: float
    margins: Tensor

    @property
    def loss(self) -> float:
        """Mean negative log-likelihood of the verdicts, in nats."""
        return float(-F.logsigmoid(self.margins).mean())

    @property
    def accuracy(self) -> float:
        """Share of the pairs in the right order; a tie is half of one."""
        return float((0.5 + 0.5 * self.margins.sign()).mean())


@dataclass(frozen=True)
class PreferenceHead:
    """A linear reward.

    Attributes:
        center: Mean of each feature over the answers fitted to, float64, shape (C,).
        scale: Its standard deviation, and 1 where that is zero, float64, shape (C,).
        weights: Weight of each standardized feature, in nats, float64, shape (C,).
        l2: Strength of the penalty.
        held_out: What cross-validation found, one for each strength that was tried.
    """

    center: Tensor
    scale: Tensor
    weights: Tensor
    l2: float
    held_out: tuple[HeldOut, ...]

    @property
    def chosen(self) -> HeldOut:
        """What cross-validation found for the strength that was taken."""
        return next(found for found in self.held_out if found.l2 == self.l2)

    def rewards(self, features: Tensor) -> Tensor:
        """Compute rewards.

        Args:
            features: Shape (n, C), of any floating dtype.

        Returns:
            Rewards in nats, float64, shape (n,). Their zero is the mean over the answers
            fitted to, so only differences mean something.
        """
        return (features.double() - self.center) / self.scale @ self.weights


def fit_head(
    better: Tensor, worse: Tensor, l2: float | Sequence[float] = L2, folds: int = 5
) -> PreferenceHead:
    """Fit a linear reward to pairs, with the penalty that does best on held-out ones.

    Minimized is the sum of ``-ln sigmoid(margin)`` plus ``l2 / 2`` times the squared length of
    the weights on standardized features. The strength with the lowest held-out loss is taken,
    the stronger one of two that are equal.

    Args:
        better: Features of the better answers, shape (n, C).
        worse: Features of the worse ones, shape (n, C).
        l2: Strengths to try, above 0; a single one is taken.
        folds: Parts of cross-validation; row i lies in part ``i % folds``.

    Returns:
        The head, fitted to all pairs.

    Raises:
        ValueError: If the shapes do not fit, a feature is not finite, no feature differs within
            a pair, there are fewer pairs than parts, or a strength is not above 0.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    better, worse = better.detach().double(), worse.detach().double()
    strengths = [l2] if isinstance(l2, int | float) else list(l2)
    _check(better, worse, strengths, whole_number(folds, "folds", 2))
    held_out = tuple(_held_out(better, worse, strength, folds) for strength in strengths)
    best = min(held_out, key=lambda found: (found.loss, -found.l2))
    return PreferenceHead(*_fit(better, worse, best.l2), best.l2, held_out)


def check_tie_band(tie_band: float) -> None:
    """Refuse a band of ties that is none.

    Args:
        tie_band: Largest difference that is a tie still, in nats.

    Raises:
        ValueError: If it is negative, infinite or no number.

    Chapter: dpo/alignment.
    """
    if not 0 <= tie_band < math.inf:
        raise ValueError(f"tie_band is {tie_band}: give a finite number of nats, from 0")


def _held_out(better: Tensor, worse: Tensor, l2: float, folds: int) -> HeldOut:
    margins = torch.zeros(len(better), dtype=torch.float64)
    part = torch.arange(len(better)) % folds
    for fold in range(folds):
        inside, outside = part != fold, part == fold
        _, scale, weights = _fit(better[inside], worse[inside], l2)
        margins[outside] = (better[outside] - worse[outside]) / scale @ weights
    return HeldOut(l2, margins)


def _fit(better: Tensor, worse: Tensor, l2: float) -> tuple[Tensor, Tensor, Tensor]:
    """Return center, scale and weights."""
    answers = torch.cat([better, worse])
    center, spread = answers.mean(dim=0), answers.std(dim=0, correction=0)
    scale = torch.where(spread > 0, spread, 1.0)
    difference = (better - worse) / scale

    def loss(weights: Tensor) -> Tensor:
        return -F.logsigmoid(difference @ weights).sum() + l2 / 2 * weights @ weights

    return center, scale, minimize(loss, torch.zeros_like(center))


def _check(better: Tensor, worse: Tensor, strengths: Sequence[float], folds: int) -> None:
    if better.dim() != 2 or better.shape != worse.shape or not better.shape[1]:
        raise ValueError(
            f"the features have the shapes {tuple(better.shape)} and {tuple(worse.shape)}: "
            "give (n, C) for both, one row for each pair"
        )
    if len(better) < folds:
        raise ValueError(f"there are {len(better)} pairs for {folds} folds: give more pairs")
    finite = (better.isfinite() & worse.isfinite()).all(dim=1)
    if not finite.all():
        row = int((~finite).nonzero()[0])
        raise ValueError(
            f"a feature of pair {row} is not finite: look whether the model's weights are whole"
        )
    if torch.equal(better, worse):
        raise ValueError("no feature differs within a pair: give answers that differ")
    if not strengths or not all(0 < strength < math.inf for strength in strengths):
        raise ValueError(f"l2 is {list(strengths)}: give finite strengths above 0")
