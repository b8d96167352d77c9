"""The objective of RLHF on a policy that is a table, its optimum, and the reward read back.

A policy holds a log-probability for each of Y answers to each of X prompts. Nothing is sampled:
every mean is a sum over all answers, in float64.

Chapter: dpo/derivation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Toy:
    """A reference policy and a reward.

    Attributes:
        ref_logps: Log-probabilities of the reference, float64, shape (X, Y).
        reward: Reward of each answer, float64, shape (X, Y).

    Chapter: dpo/derivation.
    """

    ref_logps: Tensor
    reward: Tensor

    def __post_init__(self) -> None:
        """Refuse a reference that is no policy."""
        if self.ref_logps.shape != self.reward.shape or self.reward.ndim != 2:
            raise ValueError(
                f"ref_logps has the shape {tuple(self.ref_logps.shape)} and reward "
                f"{tuple(self.reward.shape)}: give both the shape (prompts, answers)"
            )
        total = self.ref_logps.logsumexp(dim=-1).abs().max().item()
        if not total < 1e-9:
            raise ValueError(
                "the probabilities of a row of ref_logps do not add up to 1: give it through "
                "log_softmax"
            )


def draw_toy(prompts: int = 3, answers: int = 10, *, lift: float = 0.0, seed: int = 0) -> Toy:
    """Draw a reference and a reward.

    Args:
        prompts: How many prompts, X.
        answers: How many answers each has, Y.
        lift: What each prompt's rewards have on top of those of the prompt before.
        seed: Seed of the draw.

    Returns:
        Standard normal logits of the reference, and rewards whose spread is 1.

    Chapter: dpo/derivation.
    """
    generator = torch.Generator().manual_seed(seed)
    logits, reward = torch.randn(
        2, prompts, answers, generator=generator, dtype=torch.float64
    ).unbind()
    levels = lift * torch.arange(prompts, dtype=torch.float64)
    return Toy(logits.log_softmax(dim=-1), reward + levels[:, None])


def objective(logps: Tensor, ref_logps: Tensor, reward: Tensor, beta: float) -> Tensor:
    """Return the mean reward less beta times the KL divergence from the reference.

    Rafailov et al. (2023, Eq. 3), for each prompt by itself.

    Args:
        logps: Log-probabilities of the policy, shape (X, Y).
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        reward: Reward of each answer, shape (X, Y).
        beta: Price of a nat of divergence, in units of the reward.

    Returns:
        The objective, in units of the reward, shape (X,).

    Chapter: dpo/derivation.
    """
    return (logps.exp() * (reward - beta * (logps - ref_logps))).sum(dim=-1)


def log_partition(ref_logps: Tensor, reward: Tensor, beta: float) -> Tensor:
    """Return log Z, the logarithm of the mean of exp(reward / beta) under the reference.

    Args:
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        reward: Reward of each answer, shape (X, Y).
        beta: Price of a nat of divergence.

    Returns:
        One number per prompt, in nats, shape (X,).

    Raises:
        ValueError: If beta is not a finite number above 0.

    Chapter: dpo/derivation.
    """  # noqa: DOC502
    _check_beta(beta)
    return (ref_logps + reward / beta).logsumexp(dim=-1)


def closed_form(ref_logps: Tensor, reward: Tensor, beta: float) -> Tensor:
    """Return the policy that maximizes the objective (Rafailov et al., 2023, Eq. 4).

    Args:
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        reward: Reward of each answer, shape (X, Y).
        beta: Price of a nat of divergence.

    Returns:
        Log-probabilities of the optimal policy, shape (X, Y).

    Raises:
        ValueError: If beta is not a finite number above 0.

    Chapter: dpo/derivation.
    """  # noqa: DOC502
    log_z = log_partition(ref_logps, reward, beta)
    return ref_logps + reward / beta - log_z[:, None]


def direct_optimum(ref_logps: Tensor, reward: Tensor, beta: float, steps: int = 200) -> Tensor:
    """Find the policy that maximizes the objective by climbing, with no formula for it.

    Each step multiplies the probabilities by exp(rate * slope) and normalizes them, which keeps
    them positive (exponentiated gradient, or mirror ascent). Ascent on logits would multiply
    each slope by the answer's probability: a good answer that is rare would hardly be found.

    Args:
        ref_logps: Log-probabilities of the reference, where the climb begins, shape (X, Y).
        reward: Reward of each answer, shape (X, Y).
        beta: Price of a nat of divergence.
        steps: How many steps; each removes a fifth of the distance that is left, in nats.

    Returns:
        Log-probabilities of the policy that was found, shape (X, Y).

    Raises:
        ValueError: If beta is not a finite number above 0.

    Chapter: dpo/derivation.
    """  # noqa: DOC502
    _check_beta(beta)
    logps = ref_logps
    for _ in range(steps):
        policy = logps.exp().requires_grad_()
        height = objective(policy.log(), ref_logps, reward, beta).sum()
        (slope,) = torch.autograd.grad(height, policy)
        logps = (logps + 0.2 / beta * slope).log_softmax(dim=-1)
    return logps


def implicit_reward(logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """Return the reward that a policy states: beta times its log-ratio to the reference.

    For the optimal policy this is the reward less beta log Z (Rafailov et al., 2023, Eq. 5).

    Args:
        logps: Log-probabilities of the policy, any shape.
        ref_logps: Log-probabilities of the reference, the same shape.
        beta: Price of a nat of divergence.

    Returns:
        The implicit reward, the same shape.

    Chapter: dpo/derivation.
    """
    return beta * (logps - ref_logps)


def _check_beta(beta: float) -> None:
    if not 0 < beta < math.inf:
        raise ValueError(
            f"beta is {beta}: give a finite number above 0, since at 0 nothing ties the policy "
            "to the reference"
        )
