"""A reward model and DPO fitted to the same pairs, below the accuracy that nothing can exceed.

The answers are sequences of tokens, the features of an answer are how often each token follows
each other one, and the true reward is linear in them. A pair is the difference of two answers'
features, an answer's reward is a product with weights of shape (V * V,).

Chapter: dpo/derivation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.theory.minimize import minimize


@dataclass(frozen=True)
class World:
    """A language model that writes answers, and the reward that preferences come from.

    Attributes:
        ref_logps: Log-probability of the next token, given the token before it, float64, shape
            (V, V). The prompt is the token before the first.
        weights: Reward of each bigram, float64, shape (V * V,).
        length: Tokens of an answer.

    Chapter: dpo/derivation.
    """

    ref_logps: Tensor
    weights: Tensor
    length: int = 8


@dataclass(frozen=True)
class Comparisons:
    """Pairs of answers to the same prompt, and which was preferred.

    Attributes:
        difference: Features of the first answer less those of the second, shape (n, V * V).
        p: Probability that the first is preferred, shape (n,).
        first_wins: Whether it was, in this draw, booleans, shape (n,).

    Chapter: dpo/derivation.
    """

    difference: Tensor
    p: Tensor
    first_wins: Tensor

    @property
    def chosen_less_rejected(self) -> Tensor:
        """Features of the chosen answer less those of the rejected one, shape (n, V * V)."""
        return torch.where(self.first_wins[:, None], self.difference, -self.difference)


def draw_world(vocabulary: int = 6, spread: float = 0.4, seed: int = 0) -> World:
    """Draw a language model and a reward.

    Args:
        vocabulary: How many tokens there are, V.
        spread: Standard deviation of a bigram's reward.
        seed: Seed of the draw.

    Returns:
        The world.

    Chapter: dpo/derivation.
    """
    generator = torch.Generator().manual_seed(seed)
    logits, reward = torch.randn(
        2, vocabulary, vocabulary, generator=generator, dtype=torch.float64
    ).unbind()
    return World(logits.log_softmax(dim=-1), spread * reward.flatten())


def draw_comparisons(world: World, n: int, seed: int = 0) -> Comparisons:
    """Let the reference write two answers to each of n prompts, and draw who is preferred.

    Args:
        world: Who writes, and what is preferred.
        n: How many pairs.
        seed: Seed of the draw.

    Returns:
        The pairs.

    Chapter: dpo/derivation.
    """
    V = len(world.ref_logps)
    generator = torch.Generator().manual_seed(seed)
    token = torch.randint(V, (n,), generator=generator).repeat(2)  # both answers' prompt
    counts = torch.zeros(2 * n, V * V, dtype=torch.float64)
    for _ in range(world.length):
        following = torch.multinomial(world.ref_logps[token].exp(), 1, generator=generator)[
            :, 0
        ]
        counts[torch.arange(2 * n), V * token + following] += 1
        token = following
    difference = counts[:n] - counts[n:]
    p = torch.sigmoid(difference @ world.weights)
    wins = torch.rand(n, generator=generator, dtype=torch.float64) < p
    return Comparisons(difference, p, wins)


def fit_reward_model(pairs: Comparisons) -> Tensor:
    """Fit a linear reward model: logistic regression without a constant.

    Args:
        pairs: The pairs to fit.

    Returns:
        Reward of each bigram, shape (V * V,).

    Chapter: dpo/derivation.
    """
    features = pairs.chosen_less_rejected

    def loss(weights: Tensor) -> Tensor:
        return -F.logsigmoid(features @ weights).mean()

    return minimize(loss, torch.zeros_like(features[0]))


def fit_log_linear_dpo(pairs: Comparisons, beta: float) -> Tensor:
    """Fit the policy pi_ref(y) exp(theta . features(y)) / Z by DPO.

    Its Z is a sum over all answers that can be written. The loss needs none of it.

    Args:
        pairs: The pairs to fit.
        beta: Price of a nat of divergence.

    Returns:
        Implicit reward of each bigram, up to a constant per prompt, shape (V * V,).

    Chapter: dpo/derivation.
    """
    features = pairs.chosen_less_rejected

    def loss(theta: Tensor) -> Tensor:
        log_ratio = features @ theta
        return -F.logsigmoid(beta * log_ratio).mean()

    return beta * minimize(loss, torch.zeros_like(features[0]))


def fit_language_model_dpo(world: World, pairs: Comparisons, beta: float) -> Tensor:
    """Fit a language model by DPO: the same features, probabilities that add up at each token.

    Args:
        world: Holds the reference, where the policy starts.
        pairs: The pairs to fit.
        beta: Price of a nat of divergence.

    Returns:
        Implicit reward of each bigram, shape (V * V,).

    Chapter: dpo/derivation.
    """
    features = pairs.chosen_less_rejected

    def log_ratio(logits: Tensor) -> Tensor:
        return (logits.log_softmax(dim=-1) - world.ref_logps).flatten()

    def loss(logits: Tensor) -> Tensor:
        return -F.logsigmoid(beta * (features @ log_ratio(logits))).mean()

    return beta * log_ratio(minimize(loss, world.ref_logps))


def correct(weights: Tensor, pairs: Comparisons) -> Tensor:
    """Say for each pair whether a reward puts the preferred answer first.

    Args:
        weights: Reward of each bigram, shape (V * V,).
        pairs: Held-out pairs.

    Returns:
        1 where it does, 0 where it does not, one half where it cannot tell, shape (n,).

    Chapter: dpo/derivation.
    """
    return 0.5 + 0.5 * (pairs.chosen_less_rejected @ weights).sign()


def expected_correct(weights: Tensor, pairs: Comparisons) -> Tensor:
    """Return the same, averaged over all draws of the preferences.

    Args:
        weights: Reward of each bigram, shape (V * V,).
        pairs: Held-out pairs.

    Returns:
        Probability that the reward is right, shape (n,).

    Chapter: dpo/derivation.
    """
    says_first = 0.5 + 0.5 * (pairs.difference @ weights).sign()
    return says_first * pairs.p + (1 - says_first) * (1 - pairs.p)


def bayes_correct(pairs: Comparisons) -> Tensor:
    """Return how often the best possible guess is right, averaged over all draws.

    Args:
        pairs: Held-out pairs.

    Returns:
        The larger of p and 1 - p, shape (n,).

    Chapter: dpo/derivation.
    """
    return torch.maximum(pairs.p, 1 - pairs.p)
