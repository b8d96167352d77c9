"""posttrain.dpo.exercises.safe_dpo: right answers, and every named wrong one.

The wrong answers are written here as a reader would write them, not as the grader has them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posttrain.dpo.exercises.safe_dpo import SAFE_DPO, grade_safe_dpo
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.safety.safe_loss import safe_dpo_loss


def right(c, r, rc, rr, c_safe, r_safe, beta, delta) -> Tensor:
    losses = []
    for x, y, rx, ry, x_safe, y_safe in zip(c, r, rc, rr, c_safe, r_safe, strict=True):
        if not x_safe and not y_safe:
            continue
        if not x_safe:
            x, y, rx, ry, x_safe, y_safe = y, x, ry, rx, y_safe, x_safe
        inside = beta * ((x - rx) - (y - ry)) - (delta if not y_safe else 0.0)
        losses.append(torch.log1p(torch.exp(-inside)))
    return torch.stack(losses).mean()


def by_sign(c, r, rc, rr, c_safe, r_safe, beta, delta) -> Tensor:
    keep = ~(~c_safe & ~r_safe)
    sign = torch.where(c_safe, 1.0, -1.0)
    inside = beta * sign * (c - r - rc + rr) - delta * (c_safe ^ r_safe)
    return torch.nn.functional.softplus(-inside[keep]).sum() / keep.sum()


def written(
    sign: Callable[..., Tensor] = lambda c, r: torch.where(c | ~r, 1.0, -1.0),
    far: Callable[..., Tensor] = lambda c, r: (c ^ r).float(),
    keep: Callable[..., Tensor] = lambda c, r: c | r,
    end: Callable[..., Tensor] = lambda x, keep: x[keep].mean(),
):
    def loss(c, r, rc, rr, c_safe, r_safe, beta, delta):
        inside = beta * sign(c_safe, r_safe) * (c - r - rc + rr)
        inside = inside - delta * far(c_safe, r_safe)
        return end(torch.logaddexp(torch.zeros_like(c), -inside), keep(c_safe, r_safe))

    return loss


def beta_inside(c, r, rc, rr, c_safe, r_safe, beta, delta) -> Tensor:
    keep = c_safe | r_safe
    sign = torch.where(c_safe, 1.0, -1.0)
    inside = beta * (sign * (c - r - rc + rr) - delta * (c_safe ^ r_safe))
    return torch.nn.functional.softplus(-inside[keep]).mean()


def by_package(c, r, rc, rr, c_safe, r_safe, beta, delta) -> Tensor:
    keep, front = c_safe | r_safe, c_safe
    chosen, ref_chosen = (torch.where(front, x, y)[keep] for x, y in ((c, r), (rc, rr)))
    rejected, ref_rejected = (torch.where(front, y, x)[keep] for x, y in ((c, r), (rc, rr)))
    pairs = PairLogps(chosen, rejected, ref_chosen, ref_rejected)
    safe = torch.ones_like(chosen, dtype=torch.bool)
    return safe_dpo_loss(pairs, safe, (c_safe & r_safe)[keep], beta, delta).mean()


PLUS = lambda c, r: torch.ones(c.shape)  # noqa: E731
WRONG = [
    (written(far=lambda c, r: -(c ^ r).float()), "The sign of Δ"),
    (written(far=PLUS), "You subtracted Δ from every pair"),
    (written(far=lambda c, r: (c == r).float()), "You subtracted Δ where both"),
    (written(far=lambda c, r: (c & ~r).float()), "You forgot Δ on the swapped"),
    (written(far=lambda c, r: (~r).float() - (~c).float()), "You added Δ on the swapped"),
    (written(far=lambda c, r: 0.0 * c), "You forgot Δ: subtract"),
    (beta_inside, "You multiplied Δ by β"),
    (written(sign=PLUS), "You did not reorder"),
    (written(sign=PLUS, far=lambda c, r: c.float() - r.float()), "You did not reorder"),
    (written(keep=lambda c, r: c), "You dropped the pairs to be swapped"),
    (written(sign=lambda c, r: torch.where(r, -1.0, 1.0)), "You swapped the pairs of which"),
    (written(sign=lambda c, r: torch.where(c != r, -1.0, 1.0)), "You swapped wherever"),
    (written(keep=lambda c, r: c == c), "You kept the pairs of two unsafe"),
    (
        written(sign=lambda c, r: torch.where(c & ~r, -1.0, 1.0), keep=lambda c, r: ~c | ~r),
        "You took h for safe",
    ),
    (written(end=lambda x, keep: (x * keep).mean()), "You divided by all pairs"),
    (written(end=lambda x, keep: x[keep].sum()), "You returned the sum"),
    (written(end=lambda x, keep: x[keep]), "You returned one loss a pair"),
]


@pytest.mark.parametrize("function", [right, by_sign, by_package, written()])
def test_right_answers_pass(function) -> None:
    result = grade_safe_dpo(function)
    assert result.passed, result.message


@pytest.mark.parametrize(("function", "sentence"), WRONG)
def test_a_wrong_answer_is_named(function, sentence: str) -> None:
    result = grade_safe_dpo(function)
    assert not result.passed and result.message.startswith(sentence), result.message


def test_every_named_mistake_is_reached() -> None:
    told = {grade_safe_dpo(function).message for function, _ in WRONG}
    assert told == {mistake.sentence for mistake in SAFE_DPO}


def test_an_unknown_mistake_is_described() -> None:
    result = grade_safe_dpo(lambda *a: right(*a) + 1)
    assert not result.passed and "0" in result.message
