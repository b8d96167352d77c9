"""posttrain.dpo.exercises.ipo: right answers, and every named wrong one."""

import pytest
import torch
from torch import Tensor

from posttrain.dpo.exercises.ipo import IPO_LOSS, grade_ipo


def right(c, r, rc, rr, n, m, beta) -> Tensor:
    rows = [
        ((c[i] - rc[i]) / n[i] - (r[i] - rr[i]) / m[i] - 0.5 / beta) ** 2 for i in range(len(c))
    ]
    return torch.stack(rows).mean()


def means(c, r, rc, rr, n, m) -> Tensor:
    return (c - rc) / n - (r - rr) / m


def target(value):
    return lambda c, r, rc, rr, n, m, b: (means(c, r, rc, rr, n, m) - value(b)).pow(2).mean()


def ends(end):
    return lambda c, r, rc, rr, n, m, b: end(means(c, r, rc, rr, n, m) - 0.5 / b)


def margins(margin):
    return lambda *a: (margin(*a[:6]) - 1 / a[6] / 2).pow(2).mean()


WRONG = [
    (
        target(lambda b: 1 / b),
        "Your target has the wrong scale: the margin is drawn to 1 / (2β), not to 1 / β",
    ),
    (
        target(lambda b: b / 2),
        "Your target has the wrong scale: the margin is drawn to 1 / (2β), not to β / 2",
    ),
    (
        target(lambda b: b),
        "Your target has the wrong scale: the margin is drawn to 1 / (2β), not to β.",
    ),
    (
        target(lambda b: 1 / 2),
        "Your target has the wrong scale: the margin is drawn to 1 / (2β), not to 1 / 2",
    ),
    (target(lambda b: -1 / (2 * b)), "The sign of your margin"),
    (
        lambda *a: (a[6] * means(*a[:6]) - 1 / 2).pow(2).mean(),
        "You multiplied the margin by β and drew",
    ),
    (
        lambda *a: (a[6] * means(*a[:6]) - 0.5 / a[6]).pow(2).mean(),
        "You multiplied the margin by β, as in",
    ),
    (margins(lambda c, r, rc, rr, n, m: c - rc - r + rr), "You compared sums over tokens"),
    (
        lambda c, r, rc, rr, n, m, b: (c - rc - r + rr - 1 / b).pow(2).mean(),
        "You compared sums over tok",
    ),
    (
        margins(lambda c, r, rc, rr, n, m: (c - rc - r + rr) / n),
        "You divided both sides by one",
    ),
    (
        margins(lambda c, r, rc, rr, n, m: (c - rc - r + rr) / m),
        "You divided both sides by one",
    ),
    (
        margins(lambda c, r, rc, rr, n, m: (c - rc - r + rr) / (n + m)),
        "You divided both sides by o",
    ),
    (
        margins(lambda c, r, rc, rr, n, m: c / n - rc - r / m + rr),
        "You divided the policy by the l",
    ),
    (margins(lambda c, r, rc, rr, n, m: c / n - r / m), "You forgot the reference"),
    (margins(lambda c, r, rc, rr, n, m: -means(c, r, rc, rr, n, m)), "The sign of your margin"),
    (ends(lambda x: x.mean()), "You did not square"),
    (ends(lambda x: x.abs().mean()), "You took the absolute value"),
    (ends(lambda x: x * x), "You returned one loss a pair"),
    (ends(lambda x: (x * x).sum()), "You returned the sum over the batch"),
    (ends(lambda x: x.mean().pow(2)), "You averaged the margins first"),
]


def test_right_answers_pass() -> None:
    assert grade_ipo(right).passed
    assert grade_ipo(ends(lambda x: x.square().mean())).passed


@pytest.mark.parametrize(("function", "sentence"), WRONG)
def test_a_wrong_answer_is_named(function, sentence: str) -> None:
    result = grade_ipo(function)
    assert not result.passed and result.message.startswith(sentence), result.message


def test_every_named_mistake_is_reached() -> None:
    told = {grade_ipo(function).message for function, _ in WRONG}
    assert told == {mistake.sentence for mistake in IPO_LOSS}
