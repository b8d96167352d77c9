"""The grader of the exercise about the derivation of DPO: three steps, and the first wrong one.

The reader writes three functions and hands them to the grader. It checks them in the order of
the derivation and names the first step that is wrong. See ``posttrain.core.grading``.

Chapter: dpo/derivation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.core.grading import Grade, Mistake, grade, random_numbers


def _closed_form(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    weights = ref * (reward / beta).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def _implicit_reward(policy: Tensor, ref: Tensor, beta: float) -> Tensor:
    return beta * (policy / ref).log()


def _margin(reward: Tensor, pairs: Tensor) -> Tensor:
    x, chosen, rejected = pairs.T
    return reward[x, chosen] - reward[x, rejected]


def _loss(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> Tensor:
    return -F.logsigmoid(_margin(_implicit_reward(policy, ref, beta), pairs)).mean()


def _normalized(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=-1, keepdim=True)


CLOSED_FORM = [
    Mistake(
        "You did not normalize: divide by Z, the sum over the prompt's answers, or the "
        "probabilities do not add up to 1.",
        lambda ref, reward, beta: ref * (reward / beta).exp(),
    ),
    Mistake(
        "You normalized over all prompts at once: each prompt has a Z of its own.",
        lambda ref, reward, beta: (w := ref * (reward / beta).exp()) / w.sum(),
    ),
    Mistake(
        "You normalized over the prompts: Z sums over the answers of one, the last axis.",
        lambda ref, reward, beta: (w := ref * (reward / beta).exp()) / w.sum(0, keepdim=True),
    ),
    Mistake(
        "You multiplied the reward by beta: divide. A large beta makes divergence dear and "
        "keeps the policy near the reference.",
        lambda ref, reward, beta: _normalized(ref * (reward * beta).exp()),
    ),
    Mistake(
        "You left out beta: the reward is divided by it.",
        lambda ref, reward, beta: _normalized(ref * reward.exp()),
    ),
    Mistake(
        "You left out the reference: the weights are ref * exp(reward / beta).",
        lambda ref, reward, beta: (reward / beta).softmax(dim=-1),
    ),
    Mistake(
        "Your sign is wrong: a higher reward must make an answer likelier.",
        lambda ref, reward, beta: _normalized(ref * (-reward / beta).exp()),
    ),
    Mistake(
        "You forgot the exponential: the weights are ref * exp(reward / beta).",
        lambda ref, reward, beta: _normalized(ref * reward / beta),
    ),
    Mistake(
        "You added the reference to the exponent as it is: its logarithm belongs there.",
        lambda ref, reward, beta: (ref + reward / beta).softmax(dim=-1),
    ),
    Mistake(
        "You divided log ref by beta too: only the reward is divided by it.",
        lambda ref, reward, beta: ((ref.log() + reward) / beta).softmax(dim=-1),
    ),
    Mistake(
        "You returned log-probabilities: return probabilities.",
        lambda ref, reward, beta: _closed_form(ref, reward, beta).log(),
    ),
]
IMPLICIT_REWARD = [
    Mistake(
        "Your ratio is upside down: divide the policy by the reference.",
        lambda policy, ref, beta: _implicit_reward(ref, policy, beta),
    ),
    Mistake(
        "You forgot the logarithm: the reward is beta * log(policy / ref).",
        lambda policy, ref, beta: beta * policy / ref,
    ),
    Mistake(
        "You divided by beta: solving for the reward multiplies by it.",
        lambda policy, ref, beta: (policy / ref).log() / beta,
    ),
    Mistake(
        "You left out beta: multiply the log-ratio by it.",
        lambda policy, ref, beta: (policy / ref).log(),
    ),
    Mistake(
        "You left out the reference: take the policy's log-probability less the reference's.",
        lambda policy, ref, beta: beta * policy.log(),
    ),
    Mistake(
        "You subtracted probabilities: subtract their logarithms.",
        lambda policy, ref, beta: beta * (policy - ref),
    ),
    Mistake(
        "You multiplied the policy's log-probability alone by beta: the reference's belongs "
        "inside the bracket.",
        lambda policy, ref, beta: beta * policy.log() - ref.log(),
    ),
    Mistake(
        "You took the logarithm to another base: use the natural one, `log`.",
        lambda policy, ref, beta: beta * (policy / ref).log2(),
    ),
    Mistake(
        "You took the logarithm to another base: use the natural one, `log`.",
        lambda policy, ref, beta: beta * (policy / ref).log10(),
    ),
]


def _wrong_loss(sentence: str, function: Callable[..., Tensor]) -> Mistake:
    return Mistake(sentence, lambda *arguments: function(*arguments).item())


def _wrong_margin(
    sentence: str, log_ratios: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]]
) -> Mistake:
    """Make a mistake from the rewards that the chosen and the rejected answers get."""

    def loss(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> Tensor:
        x, chosen, rejected = pairs.T
        winner, loser = log_ratios(policy, ref, beta)
        return -F.logsigmoid(winner[x, chosen] - loser[x, rejected]).mean()

    return _wrong_loss(sentence, loss)


def _dpo_margin(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> Tensor:
    return _margin(_implicit_reward(policy, ref, beta), pairs)


_ONE_SIDE = "You multiplied only one of the two log-ratios by beta: it belongs to both."
LOSS = [
    _wrong_loss(
        "Your margin has the wrong sign: it is the chosen answer's reward less the rejected "
        "one's.",
        lambda policy, ref, pairs, beta: _loss(policy, ref, pairs, -beta),
    ),
    _wrong_loss(
        "You forgot the logarithm: the loss is -log of the probability that the chosen answer "
        "wins.",
        lambda *given: -_dpo_margin(*given).sigmoid().mean(),
    ),
    _wrong_loss(
        "You returned the log-likelihood: the loss is its negative.",
        lambda *given: -_loss(*given),
    ),
    _wrong_loss(
        "You forgot the sigmoid: the loss is -log sigmoid(margin).",
        lambda *given: -_dpo_margin(*given).mean(),
    ),
    _wrong_loss(
        "You took the loss of the mean margin: take the mean of the pairs' losses.",
        lambda *given: -F.logsigmoid(_dpo_margin(*given).mean()),
    ),
    _wrong_loss(
        "You summed over the pairs: return the mean.",
        lambda *given: -F.logsigmoid(_dpo_margin(*given)).sum(),
    ),
    Mistake(
        "You returned a loss for each pair: return their mean.",
        lambda *given: -F.logsigmoid(_dpo_margin(*given)),
    ),
    _wrong_margin(
        "You left out the reference: each answer's reward is beta * log(policy / ref).",
        lambda policy, ref, beta: (beta * policy.log(), beta * policy.log()),
    ),
    _wrong_margin(
        "You took differences of probabilities: a reward is beta * log(policy / ref).",
        lambda policy, ref, beta: (beta * (policy - ref), beta * (policy - ref)),
    ),
    _wrong_loss(
        "You left out beta: it multiplies both log-ratios.",
        lambda policy, ref, pairs, beta: _loss(policy, ref, pairs, 1.0),
    ),
    _wrong_loss(
        "You divided by beta: it multiplies both log-ratios.",
        lambda policy, ref, pairs, beta: _loss(policy, ref, pairs, 1 / beta),
    ),
    _wrong_loss(
        "You applied beta twice: to the rewards, and to their difference.",
        lambda policy, ref, pairs, beta: _loss(policy, ref, pairs, beta**2),
    ),
    _wrong_margin(
        _ONE_SIDE,
        lambda policy, ref, beta: (beta * (policy / ref).log(), (policy / ref).log()),
    ),
    _wrong_margin(
        _ONE_SIDE,
        lambda policy, ref, beta: ((policy / ref).log(), beta * (policy / ref).log()),
    ),
    _wrong_margin(
        "You looked at the chosen answer alone: only in the difference of two does Z cancel.",
        lambda policy, ref, beta: (beta * (policy / ref).log(), torch.zeros_like(ref)),
    ),
    _wrong_loss(
        "You read a pair as (chosen, rejected, prompt): it is (prompt, chosen, rejected).",
        lambda policy, ref, pairs, beta: _loss(policy, ref, pairs[:, [2, 0, 1]], beta),
    ),
    _wrong_loss(
        "You ignored the prompt: each pair names its row in its first column.",
        lambda policy, ref, pairs, beta: _loss(
            policy, ref, pairs * torch.tensor([0, 1, 1]), beta
        ),
    ),
]  # fmt: skip


# name, the reader's function, the right one, known mistakes, arguments of each call
_Step = tuple[
    str, Callable[..., Any], Callable[..., Any], Sequence[Mistake], Sequence[tuple[Any, ...]]
]


def grade_derivation(
    closed_form: Callable[[Tensor, Tensor, float], Tensor],
    implicit_reward: Callable[[Tensor, Tensor, float], Tensor],
    loss: Callable[[Tensor, Tensor, Tensor, float], Tensor],
) -> Grade:
    """Grade the three steps from the objective to DPO's loss; name the first wrong one.

    Policies are probabilities here, and no logarithms.

    Args:
        closed_form: Takes ``ref`` and ``reward``, shape (X, Y), and ``beta``; returns the
            optimal policy, shape (X, Y).
        implicit_reward: Takes ``policy`` and ``ref``, shape (X, Y), and ``beta``; returns the
            reward that the policy states, shape (X, Y).
        loss: Takes ``policy`` and ``ref``, shape (X, Y), ``pairs``, rows of prompt, chosen and
            rejected answer, shape (n, 3), and ``beta``; returns the mean loss, a number.

    Returns:
        The grade.

    Chapter: dpo/derivation.
    """
    ref, reward, policy = (random_numbers(3, 3, seed=seed) for seed in range(3))
    wide_ref, wide_reward, wide_policy = (random_numbers(2, 4, seed=s) for s in (3, 4, 5))
    ref, policy, wide_ref, wide_policy = (
        logits.softmax(dim=-1) for logits in (ref, policy, wide_ref, wide_policy)
    )
    pairs = torch.tensor([[0, 1, 2], [2, 0, 1], [1, 2, 0], [1, 0, 2], [2, 1, 0]])
    wide_pairs = torch.tensor([[1, 3, 0], [0, 2, 1], [1, 2, 0]])

    def loss_value(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
        return _loss(policy, ref, pairs, beta).item()

    steps: tuple[_Step, ...] = (
        (
            "closed_form", closed_form, _closed_form, CLOSED_FORM,
            [(ref, reward, 0.5), (wide_ref, wide_reward, 2.0)],
        ),
        (
            "implicit_reward", implicit_reward, _implicit_reward, IMPLICIT_REWARD,
            [(policy, ref, 0.5), (wide_policy, wide_ref, 2.0)],
        ),
        (
            "loss", loss, loss_value, LOSS,
            [(policy, ref, pairs, 0.5), (wide_policy, wide_ref, wide_pairs, 2.0)],
        ),
    )  # fmt: skip
    for number, (name, function, right, mistakes, cases) in enumerate(steps, 1):
        found = grade(function, right, mistakes, cases)
        if not found.passed:
            return Grade(False, f"Step {number}, `{name}`: {found.message}")
    return Grade(True, "All three steps are right, from the objective to the loss.")
