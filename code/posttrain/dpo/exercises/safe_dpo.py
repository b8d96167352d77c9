"""The grader of the exercise about SafeDPO's loss.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.dpo.losses.preference import margin

_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float, float], Tensor]
_Rule = Callable[[Tensor, Tensor], Tensor]


def _mean_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_safe: Tensor,
    rejected_safe: Tensor,
    beta: float,
    delta: float,
) -> Tensor:
    swap, keep = ~chosen_safe & rejected_safe, chosen_safe | rejected_safe
    of_pair = margin(chosen, rejected, ref_chosen, ref_rejected)
    reward = beta * torch.where(swap, -of_pair, of_pair)
    apart = (chosen_safe != rejected_safe).to(reward.dtype)
    return -F.logsigmoid(reward - delta * apart)[keep].mean()


def _unlike(c_safe: Tensor, r_safe: Tensor) -> Tensor:
    return c_safe != r_safe


def _right_swap(c_safe: Tensor, r_safe: Tensor) -> Tensor:
    return ~c_safe & r_safe


def _right_keep(c_safe: Tensor, r_safe: Tensor) -> Tensor:
    return c_safe | r_safe


def _loss(
    swap: _Rule = _right_swap,
    keep: _Rule = _right_keep,
    apart: Callable[[Tensor, Tensor, float, float], Tensor] = lambda c, r, beta, delta: (
        delta * _unlike(c, r)
    ),
    end: Callable[[Tensor, Tensor], Tensor] = lambda losses, keep: losses[keep].mean(),
) -> _Loss:
    """Make the loss with another rule for the swap, the drop, the distance or the mean."""

    def loss(
        c: Tensor, r: Tensor, rc: Tensor, rr: Tensor,
        c_safe: Tensor, r_safe: Tensor, beta: float, delta: float,
    ) -> Tensor:  # fmt: skip
        of_pair = margin(c, r, rc, rr)
        reward = beta * torch.where(swap(c_safe, r_safe), -of_pair, of_pair)
        losses = -F.logsigmoid(reward - apart(c_safe, r_safe, beta, delta))
        return end(losses, keep(c_safe, r_safe))

    return loss


def _never(c_safe: Tensor, r_safe: Tensor) -> Tensor:
    return torch.zeros_like(c_safe)


def _always(c_safe: Tensor, r_safe: Tensor) -> Tensor:
    return torch.ones_like(c_safe)


_NO_REORDER = (
    "You did not reorder: where the chosen answer is unsafe and the rejected one is safe, the "
    "two are exchanged. As it stands, training makes unsafe answers likelier."
)
SAFE_DPO = [
    Mistake(
        "The sign of Δ is wrong: it is subtracted inside of σ, so that a pair of unlike safety "
        "has to be further apart before its loss is small.",
        _loss(apart=lambda c, r, beta, delta: -delta * _unlike(c, r)),
    ),
    Mistake(
        "You subtracted Δ from every pair: where both answers are safe there is nothing to "
        "keep apart.",
        _loss(apart=lambda c, r, beta, delta: torch.full(c.shape, delta)),
    ),
    Mistake(
        "You subtracted Δ where both answers are safe: it belongs to the pairs of which one "
        "answer is unsafe.",
        _loss(apart=lambda c, r, beta, delta: delta * (c == r)),
    ),
    Mistake(
        "You forgot Δ on the swapped pairs: they too are a safe answer against an unsafe one.",
        _loss(apart=lambda c, r, beta, delta: delta * (c & ~r)),
    ),
    Mistake(
        "You added Δ on the swapped pairs: take the labels after the exchange, since the "
        "rejected answer is the unsafe one then.",
        _loss(apart=lambda c, r, beta, delta: delta * (c.float() - r.float())),
    ),
    Mistake(
        "You forgot Δ: subtract it from the pairs of unlike safety.",
        _loss(apart=lambda c, r, beta, delta: torch.zeros(c.shape)),
    ),
    Mistake(
        "You multiplied Δ by β: the distance stands beside β · margin, not inside of it.",
        _loss(apart=lambda c, r, beta, delta: beta * delta * _unlike(c, r)),
    ),
    Mistake(_NO_REORDER, _loss(swap=_never)),
    Mistake(
        _NO_REORDER,
        _loss(swap=_never, apart=lambda c, r, beta, delta: delta * (c.float() - r.float())),
    ),
    Mistake(
        "You dropped the pairs to be swapped: an unsafe chosen answer with a safe rejected one "
        "is exchanged, and teaches the most.",
        _loss(keep=lambda c, r: c),
    ),
    Mistake(
        "You swapped the pairs of which both answers are safe: their order is that of "
        "helpfulness, and stays.",
        _loss(swap=lambda c, r: r),
    ),
    Mistake(
        "You swapped wherever the labels differ: a safe chosen answer is already in front.",
        _loss(swap=_unlike),
    ),
    Mistake(
        "You kept the pairs of two unsafe answers: the best policy gives neither of them, so "
        "they are dropped.",
        _loss(keep=_always),
    ),
    Mistake(
        "You took h for safe: in the paper h is 1 for an unsafe answer, so all of your labels "
        "are turned around.",
        _loss(swap=lambda c, r: c & ~r, keep=lambda c, r: ~(c & r)),
    ),
    Mistake(
        "You divided by all pairs: the mean is over those that are kept.",
        _loss(end=lambda losses, keep: (losses * keep).sum() / len(losses)),
    ),
    Mistake(
        "You returned the sum: take the mean over the pairs that are kept.",
        _loss(end=lambda losses, keep: losses[keep].sum()),
    ),
    Mistake(
        "You returned one loss a pair: return their mean, one number for the batch.",
        _loss(end=lambda losses, keep: losses[keep]),
    ),
]


def grade_safe_dpo(fn: _Loss) -> Grade:
    """Grade the mean SafeDPO loss of a batch, with the reordering inside of it.

    Args:
        fn: Takes the log-probabilities of the chosen and of the rejected answers under the
            policy, then under the reference, in nats, float32, shape (B,) each; then whether
            each chosen and whether each rejected answer is safe, bool, shape (B,); then
            ``beta`` and ``delta``. The pairs are in the order of helpfulness. Returns the mean
            loss over the pairs that are kept, a scalar tensor.

    Returns:
        The grade.

    Chapter: dpo/preference_data.
    """
    labels = [
        ([1, 1, 0, 0], [1, 0, 1, 0]),
        ([1, 0, 1, 0, 1], [1, 1, 0, 0, 1]),
        ([0, 1, 0], [0, 1, 1]),
        ([1, 0, 0, 1, 1, 0], [0, 1, 0, 1, 0, 1]),
    ]
    cases = []
    for seed, (rows, beta, delta) in enumerate(
        zip(labels, (0.1, 0.5, 0.2, 0.05), (1.0, 2.0, 0.5, 3.0), strict=True)
    ):
        safe = torch.tensor(rows, dtype=torch.bool)
        logps = -20 - 5 * random_numbers(*safe.shape, seed=seed).abs()
        references = (logps + 3 * random_numbers(*safe.shape, seed=100 + seed)).clamp(max=-0.5)
        cases.append((*logps, *references, *safe, beta, delta))
    return grade(fn, _mean_loss, SAFE_DPO, cases)
