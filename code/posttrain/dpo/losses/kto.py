"""KTO: a loss on single answers, each labelled good or bad, and the KL term it compares with.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from posttrain.dpo.losses.pairs import check_logps
from posttrain.dpo.losses.rewards import log_ratio


def mismatched_rows(prompts: Sequence[Hashable]) -> list[int]:
    """Give each prompt the answer of another, each answer used once, for :func:`kl_estimate`.

    Rows are put in order of their prompts and moved on by the size of the largest group. With
    prompts that all differ, row i gets the answer of row i - 1, as in TRL. Reversing the batch
    would leave the middle row of an odd one with its own answer.

    Args:
        prompts: One a row, or anything that tells them apart; rows with the same prompt, such
            as the chosen and the rejected answer of a pair, never exchange answers.

    Returns:
        For each row, the index of the row whose answer it gets.

    Raises:
        ValueError: If there is one row, or more than half of them share a prompt.

    Chapter: dpo/losses.
    """
    if len(prompts) < 2:
        raise ValueError(
            f"KTO's KL estimate got {len(prompts)} rows: a prompt needs another one's answer, "
            "so give at least 2"
        )
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for row, prompt in enumerate(prompts):
        groups[prompt].append(row)
    shift = max(map(len, groups.values()))
    if 2 * shift > len(prompts):
        raise ValueError(
            f"{shift} of {len(prompts)} rows share a prompt, so some would keep an answer of "
            "their own: put more different prompts into a batch"
        )
    order = [row for group in groups.values() for row in group]
    found = {row: order[place - shift] for place, row in enumerate(order)}
    return [found[row] for row in range(len(prompts))]


def kl_estimate(logps: Tensor, ref_logps: Tensor) -> Tensor:
    """Estimate how far policy and reference are apart, from answers to other prompts.

    It is the mean log-ratio, at least 0, and a constant for the gradient (Ethayarajh et al.,
    2024).

    Args:
        logps: Log-probabilities of mismatched answers under the policy, in nats, shape (B,).
        ref_logps: The same under the reference, shape (B,).

    Returns:
        The estimate in nats, a scalar without gradient.

    Raises:
        ValueError: If one of the log-probabilities is NaN, infinite or above 0.

    Chapter: dpo/losses.
    """  # noqa: DOC502
    check_logps("logps", logps)
    check_logps("ref_logps", ref_logps)
    return log_ratio(logps.detach(), ref_logps.detach()).mean().clamp(min=0)


def kto_loss(
    logps: Tensor,
    ref_logps: Tensor,
    desirable: Tensor,
    kl: Tensor,
    beta: float,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Compute KTO's loss on single answers (Ethayarajh et al., 2024)::

        weight * (1 - sigma(+- beta (log-ratio - kl))),  + for desirable answers

    Args:
        logps: Log-probabilities under the policy, in nats, shape (B,).
        ref_logps: Log-probabilities under the reference, shape (B,); no gradient.
        desirable: Which answers are good, boolean, shape (B,).
        kl: What :func:`kl_estimate` gave, a scalar.
        beta: Strength of the tie to the reference.
        desirable_weight: Weight of good answers.
        undesirable_weight: Weight of bad answers.

    Returns:
        Losses, shape (B,).

    Raises:
        ValueError: If ``desirable`` is not boolean, or the KL estimate requires a gradient.

    Chapter: dpo/losses.
    """
    if desirable.dtype != torch.bool:
        raise ValueError(f"desirable is {desirable.dtype}: give a boolean tensor")
    if kl.requires_grad:
        raise ValueError("the KL estimate requires a gradient: give that of kl_estimate")
    above = beta * (log_ratio(logps, ref_logps) - kl)
    loss = torch.where(desirable, torch.sigmoid(-above), torch.sigmoid(above))
    return loss * torch.where(desirable, desirable_weight, undesirable_weight)
