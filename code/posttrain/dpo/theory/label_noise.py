"""What flipped labels do to a policy, and which loss undoes it.

A pair is the difference of two answers' features and the policy is log-linear, as in
`posttrain.dpo.theory.reward_model`. Training is gradient descent for a fixed number of steps:
the loss of robust DPO need not have a minimum on finite data.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from posttrain.dpo.theory.reward_model import Comparisons, World


def flip_labels(pairs: Comparisons, share: float, seed: int = 0) -> Comparisons:
    """Exchange the chosen and the rejected answer of some pairs.

    Args:
        pairs: The pairs.
        share: Probability that a pair is flipped, each by itself.
        seed: Seed of the draw; not that of the pairs.

    Returns:
        The pairs with new labels. The true probabilities are those of before.

    Raises:
        ValueError: If the share is no probability.

    Chapter: dpo/losses.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"the share of flipped pairs is {share}: give a number from 0 to 1")
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(len(pairs.p), generator=generator, dtype=torch.float64)
    return replace(pairs, first_wins=pairs.first_wins ^ (drawn < share))


def train_log_linear(
    loss: Callable[[Tensor], Tensor],
    pairs: Comparisons,
    *,
    learning_rate: float = 0.5,
    steps: int = 100,
) -> Tensor:
    """Train a log-linear policy with any loss of the margin, from the reference on.

    Args:
        loss: Takes margins with a beta of 1, shape (n,), and returns losses, shape (n,).
        pairs: The pairs to train on, all of them in each step.
        learning_rate: Of gradient descent on the mean loss.
        steps: How many steps.

    Returns:
        Implicit reward of each bigram, up to a constant per prompt, shape (V * V,).

    Chapter: dpo/losses.
    """
    features = pairs.chosen_less_rejected
    weights = torch.zeros_like(features[0])
    for _ in range(steps):
        margins = (features @ weights).requires_grad_()
        (slopes,) = torch.autograd.grad(loss(margins).mean(), margins)
        weights = weights - learning_rate * (slopes @ features)
    return weights


def true_accuracy(weights: Tensor, world: World, pairs: Comparisons) -> float:
    """Return the share of pairs that a reward orders as the true reward does.

    Args:
        weights: Reward of each bigram, shape (V * V,).
        world: Holds the true reward.
        pairs: Held-out pairs; their labels are not read.

    Returns:
        The share. A pair of which one of the two cannot tell counts as half.

    Chapter: dpo/losses.
    """
    said, true = (pairs.difference @ w for w in (weights, world.weights))
    return (0.5 + 0.5 * said.sign() * true.sign()).mean().item()


def margin_scale(weights: Tensor, world: World, pairs: Comparisons) -> float:
    """Return how large margins are beside the true differences of reward.

    Args:
        weights: Reward of each bigram, shape (V * V,).
        world: Holds the true reward.
        pairs: Held-out pairs; their labels are not read.

    Returns:
        The slope of the line through the origin that fits best: 1 where the margins are right,
        below it where the reward is learned too timidly.

    Chapter: dpo/losses.
    """
    said, true = (pairs.difference @ w for w in (weights, world.weights))
    return ((said @ true) / (true @ true)).item()
