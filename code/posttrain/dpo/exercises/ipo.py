"""The grader of the exercise about IPO's loss.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.dpo.losses.preference import ipo_loss

_Loss = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, float], Tensor]


def _mean_loss(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    chosen_lengths: Tensor,
    rejected_lengths: Tensor,
    beta: float,
) -> Tensor:
    n, m = chosen_lengths, rejected_lengths
    return ipo_loss(chosen / n, rejected / m, ref_chosen / n, ref_rejected / m, beta).mean()


def _margin(
    c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, n: Tensor, m: Tensor, beta: float
) -> Tensor:
    return (c - rc) / n - (r - rr) / m


def _sums(
    c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, n: Tensor, m: Tensor, beta: float
) -> Tensor:
    return (c - rc) - (r - rr)


def _with(
    target: Callable[[float], float],
    margin: _Loss = _margin,
    end: Callable[[Tensor], Tensor] = lambda x: (x**2).mean(),
) -> _Loss:
    """Make the loss with another target, another margin or another end."""
    return lambda *a: end(margin(*a) - target(a[6]))


def _half(beta: float) -> float:
    return 1 / (2 * beta)


_SCALE = "Your target has the wrong scale: the margin is drawn to 1 / (2β), not to {}."
_SUM = (
    "You compared sums over tokens: here an answer counts by its average token, so divide each "
    "log-ratio by that answer's length. On sums the same β asks more of a short answer."
)
_SHARED = "You divided both sides by one length: each log-ratio is divided by its own answer's."
IPO_LOSS = [
    Mistake(_SCALE.format("1 / β"), _with(lambda beta: 1 / beta)),
    Mistake(_SCALE.format("β / 2"), _with(lambda beta: beta / 2)),
    Mistake(_SCALE.format("β"), _with(lambda beta: beta)),
    Mistake(_SCALE.format("1 / 2"), _with(lambda beta: 0.5)),
    Mistake(
        "You multiplied the margin by β and drew it to 1 / 2: that is β² times the loss, so "
        "the step shrinks with β. The margin stays as it is and its target is 1 / (2β).",
        lambda *a: ((a[6] * _margin(*a) - 0.5) ** 2).mean(),
    ),
    Mistake(
        "You multiplied the margin by β, as in DPO: IPO's β stands in the target alone.",
        lambda *a: ((a[6] * _margin(*a) - _half(a[6])) ** 2).mean(),
    ),
    Mistake(_SUM, _with(_half, _sums)),
    Mistake(_SUM, _with(lambda beta: 1 / beta, _sums)),
    Mistake(_SHARED, _with(_half, lambda *a: _sums(*a) / a[4])),
    Mistake(_SHARED, _with(_half, lambda *a: _sums(*a) / a[5])),
    Mistake(_SHARED, _with(_half, lambda *a: _sums(*a) / (a[4] + a[5]))),
    Mistake(
        "You divided the policy by the length and not the reference: the whole log-ratio is "
        "divided.",
        _with(_half, lambda c, r, rc, rr, n, m, beta: (c / n - rc) - (r / m - rr)),
    ),
    Mistake(
        "You forgot the reference: IPO compares log-ratios.",
        _with(_half, lambda c, r, rc, rr, n, m, beta: c / n - r / m),
    ),
    Mistake(
        "The sign of your margin or of its target is wrong: the chosen answer's log-ratio "
        "minus the rejected one's is drawn to +1 / (2β).",
        _with(_half, lambda *a: -_margin(*a)),
    ),
    Mistake(
        "You did not square: a margin above its target costs as much as one below.",
        _with(_half, end=lambda x: x.mean()),
    ),
    Mistake(
        "You took the absolute value: IPO squares the distance to the target.",
        _with(_half, end=lambda x: x.abs().mean()),
    ),
    Mistake(
        "You returned one loss a pair: return their mean, one number for the batch.",
        _with(_half, end=lambda x: x**2),
    ),
    Mistake(
        "You returned the sum over the batch: take the mean.",
        _with(_half, end=lambda x: (x**2).sum()),
    ),
    Mistake(
        "You averaged the margins first: take the mean of the squares, not the square of the "
        "mean.",
        _with(_half, end=lambda x: x.mean() ** 2),
    ),
]


def grade_ipo(fn: _Loss) -> Grade:
    """Grade the mean IPO loss of a batch, on the log-ratio of the average token.

    Args:
        fn: Takes the log-probabilities of the chosen and of the rejected answers under the
            policy, then under the reference: sums over tokens in nats, float32, shape (B,)
            each; then the lengths of the chosen and of the rejected answers in tokens, int64,
            shape (B,); and ``beta``. Returns the mean loss, a scalar tensor.

    Returns:
        The grade.

    Chapter: dpo/losses.
    """
    cases = []
    lengths = [
        [[3, 8, 5], [6, 2, 9]],
        [[4], [7]],
        [[10, 2], [3, 12]],
        [[5, 6, 7, 2], [9, 4, 2, 3]],
    ]
    for seed, (rows, beta) in enumerate(zip(lengths, (0.1, 0.5, 2.0, 0.25), strict=True)):
        n = torch.tensor(rows)
        logps = -n * (0.5 + random_numbers(*n.shape, seed=seed).abs())
        references = -n * (0.5 + random_numbers(*n.shape, seed=100 + seed).abs())
        cases.append((*logps, *references, *n, beta))
    return grade(fn, _mean_loss, IPO_LOSS, cases)
