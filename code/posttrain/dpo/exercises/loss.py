"""The grader of the exercise about DPO's loss.

The reader writes a function and hands it to its grader, which names the mistake that it
recognizes. See ``posttrain.core.grading``.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.dpo.losses.preference import dpo_loss

_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def _mean_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> Tensor:
    return dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta).mean()


def _of_logits(
    logits: _Loss, loss: Callable[[Tensor], Tensor] = lambda x: -F.logsigmoid(x).mean()
) -> _Loss:
    """Make the loss that takes something else for ``beta * margin``, or ends otherwise."""
    return lambda c, r, rc, rr, beta: loss(logits(c, r, rc, rr, beta))


def _right(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return beta * ((c - rc) - (r - rr))


_FORGOTTEN = (
    "You forgot the reference: DPO compares log-ratios, so subtract what the reference gives "
    "to the same answer."
)
_ONE_SIDE = (
    "β stands on one side only: it scales both log-ratios, so multiply their difference by it."
)
_NO_LOG = (
    "You returned the sigmoid without its logarithm: the loss is -log σ(β · margin), which "
    "`F.logsigmoid` computes without underflow."
)
_SIGN = (
    "The sign of your margin is wrong: it is the chosen answer's log-ratio minus the rejected "
    "one's. As it stands, training would make the rejected answers likelier."
)
_CROSSED = (
    "Your references are added, or exchanged, which is the same: from each answer's "
    "log-probability subtract what the reference gives to that answer."
)
DPO_LOSS = [
    Mistake(_SIGN, _of_logits(lambda *a: -_right(*a))),
    Mistake(
        "Your sign is wrong at the end: the loss is -log σ, and the log of a probability is "
        "below 0.",
        _of_logits(_right, lambda x: F.logsigmoid(x).mean()),
    ),
    Mistake(_ONE_SIDE, _of_logits(lambda c, r, rc, rr, beta: beta * (c - rc) - (r - rr))),
    Mistake(_ONE_SIDE, _of_logits(lambda c, r, rc, rr, beta: (c - rc) - beta * (r - rr))),
    Mistake(
        "β stands at the policy only: it scales the whole margin, the reference's part too.",
        _of_logits(lambda c, r, rc, rr, beta: beta * (c - r) - (rc - rr)),
    ),
    Mistake(
        "You forgot β: multiply the margin by it before the sigmoid.",
        _of_logits(lambda c, r, rc, rr, beta: (c - rc) - (r - rr)),
    ),
    Mistake(_FORGOTTEN, _of_logits(lambda c, r, rc, rr, beta: beta * (c - r))),
    Mistake(
        "You forgot the reference of one side: both log-probabilities are compared with it.",
        _of_logits(lambda c, r, rc, rr, beta: beta * ((c - rc) - r)),
    ),
    Mistake(
        "You forgot the reference of one side: both log-probabilities are compared with it.",
        _of_logits(lambda c, r, rc, rr, beta: beta * (c - (r - rr))),
    ),
    Mistake(_CROSSED, _of_logits(lambda c, r, rc, rr, beta: beta * ((c - rr) - (r - rc)))),
    Mistake(_NO_LOG, _of_logits(_right, lambda x: -torch.sigmoid(x).mean())),
    Mistake(_NO_LOG, _of_logits(_right, lambda x: torch.sigmoid(x).mean())),
    Mistake(_NO_LOG, _of_logits(_right, lambda x: torch.sigmoid(-x).mean())),
    Mistake(
        "You returned one loss a pair: return their mean, one number for the batch.",
        _of_logits(_right, lambda x: -F.logsigmoid(x)),
    ),
    Mistake(
        "You returned the sum over the batch: take the mean, so that the step does not grow "
        "with the batch.",
        _of_logits(_right, lambda x: -F.logsigmoid(x).sum()),
    ),
    Mistake(
        "You averaged the margins first: the loss is the mean of -log σ, not -log σ of the "
        "mean.",
        _of_logits(_right, lambda x: -F.logsigmoid(x.mean())),
    ),
    Mistake(
        "Your loss is infinite where a pair is far the wrong way round: σ is 0 in float32 "
        "there, before the log. `F.logsigmoid` takes both in one.",
        _of_logits(_right, lambda x: -torch.log(torch.sigmoid(x)).mean()),
    ),
    Mistake(
        "You divided by β: it multiplies the margin.",
        _of_logits(lambda c, r, rc, rr, beta: ((c - rc) - (r - rr)) / beta),
    ),
]


def grade_dpo_loss(fn: _Loss) -> Grade:
    """Grade the mean DPO loss of a batch, its value first and then its gradient.

    Args:
        fn: Takes the log-probabilities of the chosen and of the rejected answers under the
            policy, then under the reference, in nats, float32, shape (B,) each, and ``beta``;
            returns the mean loss, a scalar tensor. The gradient flows into the policy's
            log-probabilities and not into the reference's.

    Returns:
        The grade.

    Chapter: dpo/losses.
    """
    cases = []
    for seed, (B, beta) in enumerate([(4, 0.1), (1, 0.5), (3, 2.0), (2, 0.05), (5, 0.3)]):
        logps = -20 - 5 * random_numbers(2, B, seed=seed).abs()
        references = logps + 3 * random_numbers(2, B, seed=100 + seed)
        references = references.clamp(max=-0.5)
        cases.append((*logps, *references, beta))
    extreme = torch.tensor([-900.0, -10.0]), torch.tensor([-10.0, -900.0])
    cases.append((*extreme, torch.tensor([-20.0, -20.0]), torch.tensor([-20.0, -20.0]), 0.5))
    result = grade(fn, _mean_loss, DPO_LOSS, cases)
    if not result.passed:
        return result
    return _gradient_mistake(fn, cases[0]) or result


def _gradient_mistake(
    fn: _Loss, case: tuple[Tensor, Tensor, Tensor, Tensor, float]
) -> Grade | None:
    """Look at the gradient of a function whose values are right."""
    chosen, rejected, *references = (values.clone().requires_grad_() for values in case[:4])
    logps, beta = [chosen, rejected, *references], case[4]
    try:
        loss = fn(chosen, rejected, references[0], references[1], beta)
        found = torch.autograd.grad(loss, logps, allow_unused=True)
    except Exception:
        return Grade(
            False,
            "Your value is right, and it has no gradient, so nothing would be trained: leave "
            "`.item()`, `.numpy()`, `torch.tensor()` and `torch.no_grad()` out.",
        )
    if any(gradient is not None and gradient.any() for gradient in found[2:]):
        return Grade(
            False,
            "The reference is not detached: your value is right, and a gradient flows into the "
            "reference's log-probabilities. Use `.detach()` on both of them.",
        )
    right = _mean_loss(chosen, rejected, case[2], case[3], beta)
    wanted = torch.autograd.grad(right, logps[:2])
    for name, own, other in zip(("chosen", "rejected"), found, wanted, strict=False):
        if own is None or not torch.allclose(own, other, rtol=1e-4, atol=1e-6):
            return Grade(
                False,
                f"Your value is right, and the gradient of `{name}` is wrong or missing: leave "
                "the policy's log-probabilities in the graph.",
            )
    return None
