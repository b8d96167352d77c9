"""The linear reward: the optimum by hand, held-out pairs, and what must not change it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.judging.preference_head import HeldOut, check_tie_band, fit_head

TRUTH = torch.tensor([2.0, -1.0, 0.0, 0.5], dtype=torch.float64)


def draw(seed: int, n: int = 200) -> tuple[Tensor, Tensor]:
    """Pairs whose better answer was drawn with the Bradley-Terry probability under TRUTH."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(2, n, 4, generator=generator, dtype=torch.float64)
    p = torch.sigmoid((a - b) @ TRUTH)
    wins = torch.rand(n, generator=generator, dtype=torch.float64) < p
    return torch.where(wins[:, None], a, b), torch.where(wins[:, None], b, a)


@pytest.mark.parametrize("seed", range(20))
def test_it_finds_the_reward_that_made_the_verdicts(seed: int):
    better, worse = draw(seed, 400)
    head = fit_head(better, worse)
    a, b = draw(seed + 1000)
    right = (head.rewards(a) > head.rewards(b)).double().mean()
    best = ((a - b) @ TRUTH > 0).double().mean()
    assert right > best - 0.06
    assert torch.corrcoef(torch.stack([head.weights / head.scale, TRUTH]))[0, 1] > 0.95
    assert abs(head.chosen.accuracy - best) < 0.12


@pytest.mark.parametrize("l2", [1.0, 10.0])
def test_the_gradient_is_zero_at_the_optimum(l2: float):
    better, worse = draw(0)
    head = fit_head(better, worse, l2)
    difference = (better - worse) / head.scale
    pull = torch.sigmoid(-(difference @ head.weights)) @ difference
    torch.testing.assert_close(pull, l2 * head.weights, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        head.scale, torch.cat([better, worse]).std(dim=0, correction=0), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(
        head.rewards(torch.cat([better, worse])).mean(), TRUTH.new_zeros(()), rtol=0, atol=1e-9
    )


def test_a_flipped_sign_is_seen():
    better, worse = draw(1)
    right, wrong = fit_head(better, worse, 1.0), fit_head(worse, better, 1.0)
    torch.testing.assert_close(wrong.weights, -right.weights, rtol=1e-6, atol=1e-8)
    assert right.weights[0] > 0.5 and right.weights[1] < -0.2
    assert right.chosen.accuracy > 0.75


@pytest.mark.parametrize("seed", range(20))
def test_order_scale_and_origin_play_no_part(seed: int):
    better, worse = draw(seed, 60)
    generator = torch.Generator().manual_seed(seed)
    head = fit_head(better, worse, 3.0)
    order = torch.randperm(60, generator=generator)
    again = fit_head(better[order], worse[order], 3.0)
    torch.testing.assert_close(again.weights, head.weights, rtol=0, atol=1e-7)
    factor = 10 ** torch.empty(4, dtype=torch.float64).uniform_(-2, 2, generator=generator)
    shifted = fit_head(factor * better + 7, factor * worse + 7, 3.0)
    torch.testing.assert_close(
        shifted.rewards(factor * better + 7), head.rewards(better), rtol=0, atol=1e-5
    )


def test_held_out_margins_are_those_of_the_other_folds():
    better, worse = draw(2, 30)
    found = fit_head(better, worse, (1.0, 30.0), folds=3)
    assert [one.l2 for one in found.held_out] == [1.0, 30.0]
    for one in found.held_out:
        for fold in range(3):
            inside = torch.arange(30) % 3 != fold
            part = fit_head(better[inside], worse[inside], one.l2)
            margins = part.rewards(better[~inside]) - part.rewards(worse[~inside])
            torch.testing.assert_close(one.margins[~inside], margins, rtol=0, atol=1e-8)
            whole = fit_head(better, worse, one.l2)  # a head that has seen the pair is another
            seen = whole.rewards(better[~inside]) - whole.rewards(worse[~inside])
            assert (seen - margins).abs().max() > 1e-4


def test_the_strength_with_the_lowest_held_out_loss_is_taken():
    better, worse = draw(3, 60)
    strengths = (0.01, 1.0, 10.0, 1000.0)
    head = fit_head(better, worse, strengths)
    losses = {one.l2: one.loss for one in head.held_out}
    assert head.l2 == min(losses, key=lambda l2: losses[l2]) and head.chosen.l2 == head.l2
    assert losses[head.l2] < losses[1000.0]
    sizes = [float(fit_head(better, worse, l2).weights.norm()) for l2 in strengths]
    assert sizes == sorted(sizes, reverse=True)


def test_what_held_out_margins_say():
    found = HeldOut(1.0, torch.tensor([2.0, -1.0, 0.0, 3.0], dtype=torch.float64))
    assert found.accuracy == (1 + 0 + 0.5 + 1) / 4
    assert found.loss == pytest.approx(float(F.softplus(-found.margins).mean()))


def test_a_feature_that_is_always_the_same_gets_no_weight():
    better, worse = draw(4, 60)
    one = torch.ones(60, 1, dtype=torch.float64)
    head = fit_head(torch.cat([better, one], 1), torch.cat([worse, one], 1), 1.0)
    assert head.weights[-1] == 0 and head.scale[-1] == 1
    torch.testing.assert_close(head.weights[:-1], fit_head(better, worse, 1.0).weights)


def test_float32_features_are_fitted_in_float64():
    better, worse = draw(5, 60)
    head = fit_head(better.float(), worse.float().requires_grad_(), 1.0)
    assert head.weights.dtype == torch.float64 and not head.weights.requires_grad
    torch.testing.assert_close(
        head.weights, fit_head(better, worse, 1.0).weights, atol=1e-5, rtol=0
    )


BETTER, WORSE = draw(6, 10)


@pytest.mark.parametrize(
    ("better", "worse", "options", "message"),
    [
        (BETTER, WORSE[:9], {}, r"the shapes \(10, 4\) and \(9, 4\): give \(n, C\)"),
        (BETTER[0], WORSE[0], {}, r"the shapes \(4,\) and \(4,\)"),
        (BETTER[:, :0], WORSE[:, :0], {}, r"the shapes \(10, 0\)"),
        (BETTER[:0], WORSE[:0], {}, r"there are 0 pairs for 5 folds: give more pairs"),
        (BETTER[:4], WORSE[:4], {}, r"there are 4 pairs for 5 folds"),
        (BETTER.index_fill(0, torch.tensor(3), torch.nan), WORSE, {},
         r"a feature of pair 3 is not finite"),
        (BETTER, WORSE.index_fill(0, torch.tensor(7), torch.inf), {}, r"pair 7 is not finite"),
        (BETTER, BETTER, {}, r"no feature differs within a pair"),
        (BETTER, WORSE, {"l2": 0}, r"l2 is \[0\]: give finite strengths above 0"),
        (BETTER, WORSE, {"l2": ()}, r"l2 is \[\]: give finite"),
        (BETTER, WORSE, {"l2": (1.0, float("nan"))}, r"give finite strengths above 0"),
        (BETTER, WORSE, {"folds": 1}, r"folds is 1: give a whole number from 2 up"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted(better: Any, worse: Any, options: Any, message: str):
    with pytest.raises(ValueError, match=message):
        fit_head(better, worse, **options)


@pytest.mark.parametrize("band", [-0.1, float("nan"), float("inf")])
def test_a_band_that_is_none(band: float):
    check_tie_band(0.0)
    with pytest.raises(
        ValueError, match=r"tie_band is .*: give a finite number of nats, from 0"
    ):
        check_tie_band(band)
