"""Policy against reference: log-ratios, the rewards that they imply, and what a run logs.

Chapter: dpo/losses.
"""

from __future__ import annotations

import torch
from torch import Tensor

from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.pairs import PairLogps


def log_ratio(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Compare policy and reference on answers: ``log pi(y|x) - log pi_ref(y|x)``.

    Args:
        logps: Log-probabilities under the policy, in nats, shape (B,).
        ref_logps: Log-probabilities under the reference, shape (B,).

    Returns:
        Log-ratios, shape (B,).

    Raises:
        ValueError: If those of the reference require a gradient. They are numbers to compare
            with; a reference that shares weights with the policy would be trained against it.

    Chapter: dpo/losses.
    """
    if ref_logps.requires_grad:
        raise ValueError(
            "the reference's log-probabilities require a gradient: compute them under "
            "torch.no_grad(), or detach them"
        )
    return logps - ref_logps


def implicit_reward(logps: Tensor, ref_logps: Tensor, beta: float) -> Tensor:
    """Compute the reward that a policy implies (Rafailov et al., 2023, Eq. 5)::

        r(x, y) = beta log(pi(y|x) / pi_ref(y|x)) + beta log Z(x)

    The last term is the same for all answers to a prompt, cancels in each comparison, and is
    left out.

    Args:
        logps: Log-probabilities under the policy, in nats, shape (B,).
        ref_logps: Log-probabilities under the reference, shape (B,); no gradient.
        beta: Strength of the tie to the reference.

    Returns:
        Rewards, shape (B,).

    Chapter: dpo/losses.
    """
    return beta * log_ratio(logps, ref_logps)


def implicit_rewards(config: PreferenceLossConfig, pairs: PairLogps) -> tuple[Tensor, Tensor]:
    """Compute the rewards whose difference a loss looks at, for its metrics.

    Args:
        config: The loss. Without a reference the log-probability itself takes the log-ratio's
            place. Where the loss divides by lengths, so do the rewards; TRL logs them without.
        pairs: Log-probabilities of the batch.

    Returns:
        Rewards of the chosen and of the rejected answers, without gradient, shape (B,) each.

    Raises:
        ValueError: If ``pairs`` lacks what the loss needs, or has a reference that it ignores.

    Chapter: dpo/losses.
    """  # noqa: DOC502
    refuse_reference(config, pairs)
    chosen, rejected = pairs.chosen.detach(), pairs.rejected.detach()
    if config.needs.reference:
        ref_chosen, ref_rejected = pairs.reference
        chosen, rejected = log_ratio(chosen, ref_chosen), log_ratio(rejected, ref_rejected)
    if config.needs_lengths:
        chosen_lengths, rejected_lengths = pairs.lengths
        chosen, rejected = chosen / chosen_lengths, rejected / rejected_lengths
    return config.beta * chosen, config.beta * rejected


def gradient_weight(reward_margin: Tensor) -> Tensor:
    """Weigh the pairs as DPO's gradient does: ``sigma(r(rejected) - r(chosen))``.

    It is near 1 where the implicit reward has the pair the wrong way round, 1/2 at the start,
    and near 0 where the pair is learned (Rafailov et al., 2023, Section 4).

    Args:
        reward_margin: Reward of the chosen answer minus the rejected one's, ``beta`` included,
            shape (B,).

    Returns:
        Weights between 0 and 1, shape (B,).

    Chapter: dpo/losses.
    """
    return torch.sigmoid(-reward_margin)


def reward_accuracy(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """Compute the share of pairs that the rewards order as the labels do.

    A tie counts as half. At step 0 policy and reference are the same and all pairs are ties:
    the accuracy is then 1/2, that of a guess. TRL counts a tie as wrong and starts at 0.

    Args:
        chosen_rewards: Rewards of the chosen answers, shape (B,).
        rejected_rewards: Rewards of the rejected answers, shape (B,).

    Returns:
        The share, a float32 scalar.

    Chapter: dpo/losses.
    """
    return ((chosen_rewards - rejected_rewards).sign() + 1).float().mean() / 2


def refuse_reference(config: PreferenceLossConfig, pairs: PairLogps) -> None:
    """Refuse pairs with a reference that the loss would ignore.

    Args:
        config: The loss.
        pairs: Log-probabilities of the batch.

    Raises:
        ValueError: If they have one.

    Chapter: dpo/losses.
    """
    if not config.needs.reference and pairs.ref_chosen is not None:
        raise ValueError(
            f"{config.needs.name} compares with no reference and one is given: leave out "
            "ref_chosen and ref_rejected"
        )
