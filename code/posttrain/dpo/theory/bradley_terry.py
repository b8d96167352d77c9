"""Preferences between two answers, their likelihood, and DPO on a policy that is a table.

A pair is a row (prompt, chosen, rejected) of whole numbers. Policies are log-probabilities of
shape (X, Y), for X prompts and Y answers, as in `posttrain.dpo.theory.discrete`.

Chapter: dpo/derivation.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.theory.discrete import implicit_reward
from posttrain.dpo.theory.minimize import minimize


def preference(reward: Tensor) -> Tensor:
    """Return the probability that one answer is preferred to another (Bradley & Terry, 1952).

    Args:
        reward: Reward of each answer, shape (X, Y).

    Returns:
        At [x, i, j] the probability that answer i of prompt x is preferred to answer j, shape
        (X, Y, Y).

    Chapter: dpo/derivation.
    """
    return torch.sigmoid(reward[:, :, None] - reward[:, None, :])


def draw_pairs(reward: Tensor, n: int, seed: int = 0) -> Tensor:
    """Draw pairs of different answers, and who is preferred in each.

    Args:
        reward: Reward of each answer, shape (X, Y).
        n: How many pairs.
        seed: Seed of the draw.

    Returns:
        Prompt, chosen and rejected answer of each pair, int64, shape (n, 3).

    Chapter: dpo/derivation.
    """
    prompts, answers = reward.shape
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(prompts, (n,), generator=generator)
    first = torch.randint(answers, (n,), generator=generator)
    second = (first + torch.randint(1, answers, (n,), generator=generator)) % answers
    p = preference(reward)[x, first, second]
    wins = torch.rand(n, generator=generator, dtype=torch.float64) < p
    chosen, rejected = torch.where(wins, first, second), torch.where(wins, second, first)
    return torch.stack([x, chosen, rejected], dim=1)


def bradley_terry_nll(reward: Tensor, pairs: Tensor) -> Tensor:
    """Return the mean negative log-likelihood of the pairs (Rafailov et al., 2023, Eq. 2).

    Args:
        reward: Reward of each answer, shape (X, Y).
        pairs: Prompt, chosen and rejected answer, shape (n, 3).

    Returns:
        A scalar, in nats per pair.

    Chapter: dpo/derivation.
    """
    x, chosen, rejected = pairs.T
    return -F.logsigmoid(reward[x, chosen] - reward[x, rejected]).mean()


def dpo_loss(logps: Tensor, ref_logps: Tensor, pairs: Tensor, beta: float) -> Tensor:
    """Return DPO's loss: the same likelihood, with the implicit reward put in.

    Rafailov et al. (2023, Eq. 7).

    Args:
        logps: Log-probabilities of the policy, shape (X, Y).
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        pairs: Prompt, chosen and rejected answer, shape (n, 3).
        beta: Price of a nat of divergence.

    Returns:
        A scalar, in nats per pair.

    Chapter: dpo/derivation.
    """
    return bradley_terry_nll(implicit_reward(logps, ref_logps, beta), pairs)


def dpo_gradient(logps: Tensor, ref_logps: Tensor, pairs: Tensor, beta: float) -> Tensor:
    """Return the gradient of DPO's loss with respect to the policy's logits, by hand.

    Rafailov et al. (2023, Section 4 and Appendix A.4). The gradient of log pi(y) with respect
    to the logits is one at y less the probabilities. In the difference of two answers the
    probabilities cancel, so only the two logits of each pair move.

    Args:
        logps: Log-probabilities of the policy, shape (X, Y).
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        pairs: Prompt, chosen and rejected answer, shape (n, 3).
        beta: Price of a nat of divergence.

    Returns:
        The gradient of the mean loss, shape (X, Y).

    Chapter: dpo/derivation.
    """
    x, chosen, rejected = pairs.T
    reward = implicit_reward(logps, ref_logps, beta)
    margin = reward[x, chosen] - reward[x, rejected]
    weight = beta * torch.sigmoid(-margin) / len(pairs)

    gradient = torch.zeros_like(logps)
    gradient.index_put_((x, chosen), -weight, accumulate=True)
    gradient.index_put_((x, rejected), weight, accumulate=True)
    return gradient


def expected_dpo_loss(
    logps: Tensor,
    ref_logps: Tensor,
    preferred: Tensor,
    beta: float,
    shown: Tensor | None = None,
) -> Tensor:
    """Return DPO's loss on infinitely many pairs: each pair counts with its probability.

    Args:
        logps: Log-probabilities of the policy, shape (X, Y).
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        preferred: Probability that i is preferred to j, at [x, i, j], shape (X, Y, Y).
        beta: Price of a nat of divergence.
        shown: How often the two answers are shown together, symmetric, shape (X, Y, Y); by
            default all pairs are shown equally often.

    Returns:
        A scalar, in nats per pair.

    Chapter: dpo/derivation.
    """
    reward = implicit_reward(logps, ref_logps, beta)
    margin = reward[:, :, None] - reward[:, None, :]  # (X, Y, Y)
    weight = preferred if shown is None else preferred * shown
    weight = weight * (
        1 - torch.eye(logps.shape[-1], dtype=logps.dtype)
    )  # no answer meets itself
    return -(weight * F.logsigmoid(margin)).sum() / weight.sum()


def dpo_minimizer(
    ref_logps: Tensor, preferred: Tensor, beta: float, shown: Tensor | None = None
) -> Tensor:
    """Train a table by DPO on infinitely many pairs, from the reference to the end.

    Args:
        ref_logps: Log-probabilities of the reference, shape (X, Y).
        preferred: Probability that i is preferred to j, at [x, i, j], shape (X, Y, Y).
        beta: Price of a nat of divergence.
        shown: How often the two answers are shown together; see `expected_dpo_loss`.

    Returns:
        Log-probabilities of the trained policy, shape (X, Y).

    Chapter: dpo/derivation.
    """

    def loss(logits: Tensor) -> Tensor:
        logps = logits.log_softmax(dim=-1)
        return expected_dpo_loss(logps, ref_logps, preferred, beta, shown)

    return minimize(loss, ref_logps).log_softmax(dim=-1)
