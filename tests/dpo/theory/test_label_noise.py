"""posttrain.dpo.theory.label_noise: flipped labels, and three losses trained on them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.theory.label_noise import (
    flip_labels,
    margin_scale,
    train_log_linear,
    true_accuracy,
)
from posttrain.dpo.theory.reward_model import (
    Comparisons,
    World,
    draw_comparisons,
    draw_world,
    fit_reward_model,
)


@pytest.fixture(scope="module")
def world() -> World:
    return draw_world(vocabulary=4, seed=1)


def plain(margins: Tensor) -> Tensor:
    return -F.logsigmoid(margins)


def tilted(tilt: float) -> Callable[[Tensor], Tensor]:
    return lambda margins: plain(margins) + tilt * margins


@pytest.mark.parametrize("share", [0.1, 0.3, 0.8])
def test_the_share_is_flipped(world: World, share: float) -> None:
    pairs = draw_comparisons(world, 20_000, seed=0)
    flipped = flip_labels(pairs, share, seed=500)
    changed = flipped.first_wins != pairs.first_wins
    assert changed.double().mean().item() == pytest.approx(share, abs=0.015)
    for half in (pairs.first_wins, ~pairs.first_wins, pairs.p > 0.5):  # whatever the label
        assert changed[half].double().mean().item() == pytest.approx(share, abs=0.02)
    assert torch.equal(flipped.p, pairs.p) and torch.equal(flipped.difference, pairs.difference)
    again = flip_labels(pairs, share, seed=500)
    assert torch.equal(again.first_wins, flipped.first_wins)


def test_none_and_all(world: World) -> None:
    pairs = draw_comparisons(world, 50, seed=0)
    assert torch.equal(flip_labels(pairs, 0.0).first_wins, pairs.first_wins)
    assert torch.equal(flip_labels(pairs, 1.0).first_wins, ~pairs.first_wins)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_no_share_is_refused(world: World, share: float) -> None:
    with pytest.raises(ValueError, match=r"share of flipped pairs is .*: give a number from 0"):
        flip_labels(draw_comparisons(world, 2), share)


def test_many_steps_end_at_the_reward_model(world: World) -> None:
    pairs = draw_comparisons(world, 500, seed=3)
    trained = train_log_linear(plain, pairs, learning_rate=1.0, steps=1500)
    wanted = fit_reward_model(pairs)
    assert (pairs.difference @ (trained - wanted)).abs().max() < 1e-3


def test_the_first_step_is_that_of_the_mean_pair(world: World) -> None:
    pairs = draw_comparisons(world, 40, seed=4)
    step = train_log_linear(tilted(0.2), pairs, learning_rate=2.0, steps=1)
    torch.testing.assert_close(step, 2.0 * (0.5 - 0.2) * pairs.chosen_less_rejected.mean(dim=0))


def test_the_robust_tilt_gives_the_margins_back(world: World) -> None:
    """Flips at 30 % shrink the margins of the plain loss; its correction keeps their size."""
    held_out = draw_comparisons(world, 1000, seed=1)
    flipped = flip_labels(draw_comparisons(world, 20_000, seed=0), 0.3, seed=500)
    scales = {
        name: margin_scale(train_log_linear(loss, flipped, steps=300), world, held_out)
        for name, loss in {
            "plain": plain,
            "conservative": tilted(0.3),
            "robust": tilted(-0.3 / 0.4),
        }.items()
    }
    assert scales["robust"] == pytest.approx(1, abs=0.15)
    assert scales["conservative"] < 0.25 < scales["plain"] < 0.5


def test_accuracy_and_scale_of_known_rewards(world: World) -> None:
    pairs = draw_comparisons(world, 200, seed=2)
    assert true_accuracy(world.weights, world, pairs) > 0.95  # ties of equal answers count half
    assert true_accuracy(0 * world.weights, world, pairs) == 0.5
    opposite = true_accuracy(-world.weights, world, pairs)
    assert opposite == pytest.approx(1 - true_accuracy(world.weights, world, pairs))
    assert margin_scale(3 * world.weights, world, pairs) == pytest.approx(3)
    unlabelled = Comparisons(pairs.difference, pairs.p, ~pairs.first_wins)
    assert true_accuracy(world.weights, world, unlabelled) == 1 - opposite
