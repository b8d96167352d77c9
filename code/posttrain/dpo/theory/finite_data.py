"""What training on a single pair does in the end, with DPO's loss and with IPO's.

The policy is log-linear: the reference times exp(theta . features(y)), normalized. With one
feature per answer it is a table; with shared features, moving one answer moves others.

Chapter: dpo/derivation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Descent:
    """A training run on one pair: answer 0 is chosen, answer 1 rejected.

    Attributes:
        steps: The steps that were looked at, K of them, evenly spaced on a logarithmic axis.
        log_ratio: Log-ratio of the chosen answer less that of the rejected one, in nats, at
            each of them. DPO's margin is beta times this.
        logps: Log-probability of each answer at each of them, float64, shape (K, Y).

    Chapter: dpo/derivation.
    """

    steps: Sequence[int]
    log_ratio: Sequence[float]
    logps: Tensor


def slope_of_loss(loss: Literal["dpo", "ipo"], log_ratio: float, beta: float) -> float:
    """Return the derivative of a pair's loss with respect to its log-ratio.

    DPO's loss is -log sigma(beta h). IPO's is (h - 1 / (2 beta))^2 (Azar et al., 2024, Eq. 17,
    where beta is called tau).

    Args:
        loss: "dpo" or "ipo".
        log_ratio: The difference h of the two log-ratios, in nats.
        beta: Price of a nat of divergence.

    Returns:
        The slope, per nat.

    Raises:
        ValueError: If the loss is neither of the two.

    Chapter: dpo/derivation.
    """
    if loss == "dpo":
        return -beta / (1 + math.exp(beta * log_ratio))
    if loss == "ipo":
        return 2 * (log_ratio - 1 / (2 * beta))
    raise ValueError(f"unknown loss {loss!r}: use 'dpo' or 'ipo'")


def train_on_pair(
    loss: Literal["dpo", "ipo"],
    ref_logps: Tensor,
    features: Tensor,
    *,
    beta: float,
    learning_rate: float = 0.1,
    steps: int = 100_000,
) -> Descent:
    """Repeat one pair by gradient descent. Every step moves along one and the same direction.

    Args:
        loss: "dpo" or "ipo".
        ref_logps: Log-probabilities of the reference, float64, shape (Y,).
        features: Features of each answer, float64, shape (Y, d).
        beta: Price of a nat of divergence.
        learning_rate: Of gradient descent on theta.
        steps: How many steps.

    Returns:
        The run.

    Raises:
        ValueError: If the chosen and the rejected answer have the same features, or the loss
            is unknown.

    Chapter: dpo/derivation.
    """  # noqa: DOC502, DOC503
    direction = features[0] - features[1]
    length = float(direction @ direction)  # by how much the log-ratio moves per unit of theta
    if not length > 0:
        raise ValueError(
            "the two answers of the pair have the same features, so no step can tell them "
            "apart: give features that differ"
        )
    looked_at = {
        steps,
        *(round(10 ** (k / 10)) for k in range(int(10 * math.log10(steps)) + 1)),
    }
    along, ratios, policies = 0.0, {}, {}
    for step in range(1, steps + 1):
        along -= learning_rate * slope_of_loss(loss, along * length, beta)
        if step in looked_at:
            ratios[step] = along * length
            moved = ref_logps + along * (features @ direction)
            policies[step] = moved.log_softmax(dim=-1)
    return Descent(list(ratios), list(ratios.values()), torch.stack(list(policies.values())))


def first_change(ref_logps: Tensor, features: Tensor) -> Tensor:
    """Return how the first step on a pair moves each answer's log-probability, up to scale.

    Args:
        ref_logps: Log-probabilities of the reference, shape (Y,).
        features: Features of each answer, shape (Y, d); answer 0 is chosen, 1 rejected.

    Returns:
        The product of the step's direction with each answer's features, less its mean under
        the policy, shape (Y,).

    Chapter: dpo/derivation.
    """
    mean = ref_logps.exp() @ features
    return (features - mean) @ (features[0] - features[1])
