"""posttrain.dpo.exercises.loss: right answers, and every named wrong one.

The wrong answers are written here as a reader would write them, not as the grader has them.
"""

import math

import pytest
import torch
from torch import Tensor

from posttrain.dpo.exercises.loss import DPO_LOSS, grade_dpo_loss


def log_sigmoid(x: Tensor) -> Tensor:
    return -torch.logaddexp(torch.zeros_like(x), -x)


def right(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    rc, rr = rc.detach(), rr.detach()
    return -log_sigmoid(beta * (c - r - rc + rr)).mean()


def in_the_papers_order(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    rewards = beta * (c - rc.detach()), beta * (r - rr.detach())
    return torch.nn.functional.softplus(rewards[1] - rewards[0]).sum() / len(c)


def ends(end):
    return lambda c, r, rc, rr, b: end(b * (c - r - rc + rr))


WRONG = [
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (r - c - rr + rc)).mean(),
        "The sign of your mar",
    ),
    (ends(lambda x: log_sigmoid(x).mean()), "Your sign is wrong at the end"),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c - rc) - r + rr).mean(),
        "β stands on one side",
    ),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(c - rc - b * (r - rr)).mean(),
        "β stands on one side",
    ),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c - r) - rc + rr).mean(),
        "β stands at the poli",
    ),
    (lambda c, r, rc, rr, b: -log_sigmoid(c - r - rc + rr).mean(), "You forgot β"),
    (lambda c, r, rc, rr, b: -log_sigmoid(b * (c - r)).mean(), "You forgot the reference: DPO"),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c - rc - r)).mean(),
        "You forgot the reference o",
    ),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c - r + rr)).mean(),
        "You forgot the reference o",
    ),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c + rc - r - rr)).mean(),
        "Your references are a",
    ),
    (
        lambda c, r, rc, rr, b: -log_sigmoid(b * (c - rr - r + rc)).mean(),
        "Your references are a",
    ),
    (ends(lambda x: (1 / (1 + torch.exp(-x))).mean()), "You returned the sigmoid without"),
    (ends(lambda x: -torch.sigmoid(x).mean()), "You returned the sigmoid without"),
    (ends(lambda x: 1 - torch.sigmoid(x).mean()), "You returned the sigmoid without"),
    (ends(lambda x: -log_sigmoid(x)), "You returned one loss a pair"),
    (ends(lambda x: -log_sigmoid(x).sum()), "You returned the sum over the batch"),
    (ends(lambda x: -log_sigmoid(x.mean())), "You averaged the margins first"),
    (ends(lambda x: -x.sigmoid().log().mean()), "Your loss is infinite where a pair"),
    (lambda c, r, rc, rr, b: -log_sigmoid((c - r - rc + rr) / b).mean(), "You divided by β"),
]


def test_right_answers_pass() -> None:
    for function in (right, in_the_papers_order):
        result = grade_dpo_loss(function)
        assert result.passed, result.message


@pytest.mark.parametrize(("function", "sentence"), WRONG)
def test_a_wrong_answer_is_named(function, sentence: str) -> None:
    result = grade_dpo_loss(function)
    assert not result.passed and result.message.startswith(sentence), result.message


def test_every_named_mistake_is_reached() -> None:
    told = {grade_dpo_loss(function).message for function, _ in WRONG}
    assert told == {mistake.sentence for mistake in DPO_LOSS}


def not_detached(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return -log_sigmoid(beta * (c - r - rc + rr)).mean()


def one_detached(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return not_detached(c, r, rc.detach(), rr, beta)


def without_graph(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return torch.tensor(right(c, r, rc, rr, beta).item())


def as_numpy(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    margins = (beta * (c - r - rc + rr).numpy()).tolist()
    return torch.tensor([math.log1p(math.exp(-x)) for x in margins]).mean()


def half(c: Tensor, r: Tensor, rc: Tensor, rr: Tensor, beta: float) -> Tensor:
    return right(c, r.detach(), rc, rr, beta)


def test_the_gradient_is_graded_too() -> None:
    for function, sentence in (
        (not_detached, "The reference is not detached"),
        (one_detached, "The reference is not detached"),
        (without_graph, "Your value is right, and it has no gradient"),
        (as_numpy, "Your value is right, and it has no gradient"),
        (half, "Your value is right, and the gradient of `rejected` is wrong or missing"),
    ):
        result = grade_dpo_loss(function)
        assert not result.passed and result.message.startswith(sentence), result.message
