"""Losses on pairs of answers, each as its equation has it.

The arguments are log-probabilities of whole answers: sums over tokens, in nats, shape (B,), as
:func:`posttrain.dpo.losses.logprobs.sequence_logps` gives them. Lengths are numbers of tokens,
shape (B,). The reference has no gradient. A loss keeps the shape (B,): a step takes the mean.
Values are checked in :class:`posttrain.dpo.losses.pairs.PairLogps`, not here.

Chapter: dpo/losses.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.kto import kto_loss
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.rewards import log_ratio, refuse_reference

_NEAREST_0 = -torch.finfo(torch.float32).eps  # at 0, a probability of 1, the odds are infinite


def margin(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor
) -> Tensor:
    """Take the chosen answer's log-ratio minus the rejected one's, shape (B,).

    Chapter: dpo/losses.
    """
    return log_ratio(chosen, ref_chosen) - log_ratio(rejected, ref_rejected)


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Compute ``-log sigma(beta margin)`` (Rafailov et al., 2023, Eq. 7).

    Chapter: dpo/losses.
    """
    return -F.logsigmoid(beta * margin(chosen, rejected, ref_chosen, ref_rejected))


def conservative_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """Mix DPO's loss with that of the swapped pair (Mitchell, 2023, Eq. 3).

    The smallest loss is no longer at an infinite margin: a pair that may be flipped is learned
    up to ``log((1 - s) / s) / beta``, with ``s`` the label smoothing.

    Chapter: dpo/losses.
    """
    clean = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    flipped = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta)
    return (1 - label_smoothing) * clean + label_smoothing * flipped


def robust_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
    label_smoothing: float,
) -> Tensor:
    """Correct DPO's loss for a known share of flipped pairs (Chowdhury et al., 2024).

    Its mean over flipped and unflipped labels is DPO's loss on the true ones. Single losses can
    be below 0.

    Chapter: dpo/losses.
    """
    clean = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta)
    flipped = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta)
    return ((1 - label_smoothing) * clean - label_smoothing * flipped) / (
        1 - 2 * label_smoothing
    )


def ipo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    """Compute ``(margin - 1 / (2 beta))^2`` (Azar et al., 2024, Eq. 17, with tau for beta).

    Given sums, the margin is that of whole answers; given means over tokens, that of the
    average token.

    Chapter: dpo/losses.
    """
    return (margin(chosen, rejected, ref_chosen, ref_rejected) - 1 / (2 * beta)) ** 2


def length_normalized_dpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    beta: float,
) -> Tensor:
    """Compute DPO's loss on log-ratios of the average token (Lambert et al., 2024, Eq. 6).

    Chapter: dpo/losses.
    """
    per_token = log_ratio(chosen, ref_chosen) / chosen_lengths
    per_token = per_token - log_ratio(rejected, ref_rejected) / rejected_lengths
    return -F.logsigmoid(beta * per_token)


def simpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    beta: float,
    simpo_gamma: float,
) -> Tensor:
    """Compute SimPO's loss, without a reference (Meng et al., 2024, Eq. 6)::

        -log sigma(beta (mean chosen - mean rejected) - gamma)

    Chapter: dpo/losses.
    """
    per_token = chosen / chosen_lengths - rejected / rejected_lengths
    return -F.logsigmoid(beta * per_token - simpo_gamma)


def log_odds(mean_logps: Tensor) -> Tensor:
    """Compute ``log(p / (1 - p))`` of the average token (Hong et al., 2024, Eq. 4).

    A log-probability that is rounded to 0 has infinite odds: it is taken as the nearest
    float32 below 0, without gradient.

    Chapter: dpo/losses.
    """
    logps = mean_logps.clamp(max=_NEAREST_0)
    return logps - torch.log(-torch.expm1(logps))


def orpo_loss(
    chosen: Tensor,
    rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    beta: float,
) -> Tensor:
    """Compute ORPO's loss, fine-tuning plus the odds ratio (Hong et al., 2024, Eq. 6 and 7)::

        -mean chosen - beta log sigma(log_odds(mean chosen) - log_odds(mean rejected))

    The first term is over the answer's tokens, as in the paper; TRL's counts the prompt's too.

    Chapter: dpo/losses.
    """
    mean_chosen, mean_rejected = chosen / chosen_lengths, rejected / rejected_lengths
    ratio = log_odds(mean_chosen) - log_odds(mean_rejected)
    return -mean_chosen - beta * F.logsigmoid(ratio)


def preference_loss(
    config: PreferenceLossConfig, pairs: PairLogps, kl: Tensor | None = None
) -> Tensor:
    """Compute the configured loss of each pair.

    KTO takes single answers. A pair is two of them, and its loss is their mean, so that the
    mean over pairs is the mean over answers.

    Args:
        config: Which loss, with its settings.
        pairs: Log-probabilities of the batch.
        kl: For KTO, what :func:`posttrain.dpo.losses.kto.kl_estimate` gave for mismatched
            answers; a scalar.

    Returns:
        Losses, shape (B,).

    Raises:
        ValueError: If something that the loss needs is missing, or given and ignored.

    Chapter: dpo/losses.
    """
    refuse_reference(config, pairs)
    if (kl is None) == (config.loss_type == "kto"):
        what = "and none is given: give" if kl is None else "and one is given: leave out"
        takes = "takes a KL estimate" if kl is None else "takes no KL estimate"
        raise ValueError(f"{config.needs.name} {takes} {what} kl")
    policy, beta = (pairs.chosen, pairs.rejected), config.beta
    if config.loss_type == "orpo":
        return orpo_loss(*policy, *pairs.lengths, beta)
    if config.loss_type == "simpo":
        return simpo_loss(*policy, *pairs.lengths, beta, config.simpo_gamma or 0.0)
    logps = (*policy, *pairs.reference)
    if config.loss_type == "sigmoid_norm":
        return length_normalized_dpo_loss(*logps, *pairs.lengths, beta)
    if config.loss_type == "ipo":
        return ipo_loss(*(_per_token(pairs) if config.needs_lengths else logps), beta)
    if config.loss_type == "robust":
        return robust_dpo_loss(*logps, beta, config.label_smoothing)
    if kl is not None:
        return _kto_of_pairs(config, pairs, kl)
    if config.label_smoothing:
        return conservative_dpo_loss(*logps, beta, config.label_smoothing)
    return dpo_loss(*logps, beta)


def _per_token(pairs: PairLogps) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    (ref_chosen, ref_rejected), (n_chosen, n_rejected) = pairs.reference, pairs.lengths
    return (
        pairs.chosen / n_chosen, pairs.rejected / n_rejected,
        ref_chosen / n_chosen, ref_rejected / n_rejected,
    )  # fmt: skip


def _kto_of_pairs(config: PreferenceLossConfig, pairs: PairLogps, kl: Tensor) -> Tensor:
    """Take the mean of the two answers of each pair, the first good and the second bad."""
    weights = (config.beta, config.desirable_weight, config.undesirable_weight)
    good = torch.ones_like(pairs.chosen, dtype=torch.bool)
    ref_chosen, ref_rejected = pairs.reference
    chosen = kto_loss(pairs.chosen, ref_chosen, good, kl, *weights)
    return (chosen + kto_loss(pairs.rejected, ref_rejected, ~good, kl, *weights)) / 2
