"""posttrain.dpo.theory.bradley_terry: likelihood, DPO's loss and gradient, and its minimum."""

import math

import pytest
import torch
from torch import Tensor

from posttrain.dpo.theory.bradley_terry import (
    bradley_terry_nll,
    dpo_gradient,
    dpo_loss,
    dpo_minimizer,
    draw_pairs,
    expected_dpo_loss,
    preference,
)
from posttrain.dpo.theory.discrete import closed_form, draw_toy

CASES = [(seed, beta) for seed in range(7) for beta in (0.2, 0.5, 2.0)]


def random_logits(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 10, generator=generator, dtype=torch.float64)


def test_preferences_by_hand() -> None:
    p = preference(torch.tensor([[0.0, math.log(3)]], dtype=torch.float64))
    assert p[0].tolist() == [pytest.approx([0.5, 0.25]), pytest.approx([0.75, 0.5])]


def test_pairs_follow_the_preferences() -> None:
    reward = torch.tensor([[0.0, math.log(3), 0.5], [1.0, 0.0, -1.0]], dtype=torch.float64)
    pairs = draw_pairs(reward, 40_000, seed=0)
    assert (pairs[:, 1] != pairs[:, 2]).all()
    ours = pairs[(pairs[:, 0] == 0) & (pairs[:, 1:].sum(dim=1) == 1)]  # answers 0 and 1
    assert (ours[:, 1] == 1).double().mean().item() == pytest.approx(0.75, abs=0.02)
    shown = torch.bincount(3 * pairs[:, 0] + pairs[:, 1:].sum(dim=1) - 1) / len(pairs)
    assert shown.tolist() == pytest.approx([1 / 6] * 6, abs=0.01)
    assert torch.equal(pairs, draw_pairs(reward, 40_000, seed=0))


def test_the_likelihood_of_three_pairs_by_hand() -> None:
    reward = torch.tensor([[0.0, math.log(3)], [2.0, 2.0]], dtype=torch.float64)
    pairs = torch.tensor([[0, 1, 0], [0, 0, 1], [1, 0, 1]])
    wanted = -(math.log(0.75) + math.log(0.25) + math.log(0.5)) / 3
    assert bradley_terry_nll(reward, pairs).item() == pytest.approx(wanted)


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_the_loss_is_that_of_its_formula(seed: int, beta: float) -> None:
    toy, logps = draw_toy(seed=seed), random_logits(seed).log_softmax(dim=-1)
    pairs = draw_pairs(toy.reward, 12, seed=seed)
    total = 0.0
    for x, w, l in pairs.tolist():  # noqa: E741
        ratio = (logps[x, w] - toy.ref_logps[x, w]) - (logps[x, l] - toy.ref_logps[x, l])
        total += math.log1p(math.exp(-beta * ratio.item()))
    assert dpo_loss(logps, toy.ref_logps, pairs, beta).item() == pytest.approx(total / 12)
    at_reference = dpo_loss(toy.ref_logps, toy.ref_logps, pairs, beta)
    assert at_reference.item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_the_gradient_by_hand_is_that_of_autograd(seed: int, beta: float) -> None:
    toy, logits = draw_toy(seed=seed), random_logits(seed).requires_grad_()
    pairs = draw_pairs(toy.reward, 5 + seed, seed=seed)
    loss = dpo_loss(logits.log_softmax(dim=-1), toy.ref_logps, pairs, beta)
    (wanted,) = torch.autograd.grad(loss, logits)
    found = dpo_gradient(logits.detach().log_softmax(dim=-1), toy.ref_logps, pairs, beta)
    assert (found - wanted).abs().max() < 1e-12
    for wrong in (-found, 2 * found, found / beta * 0.9, found.roll(1)):
        assert (wrong - wanted).abs().max() > 1e-4


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_infinite_data_lead_to_the_closed_form(seed: int, beta: float) -> None:
    toy = draw_toy(seed=seed)
    wanted = closed_form(toy.ref_logps, toy.reward, beta)
    preferred = preference(toy.reward)
    weights = (toy.ref_logps[:, :, None] + toy.ref_logps[:, None, :]).exp()
    for shown in (None, weights):
        found = dpo_minimizer(toy.ref_logps, preferred, beta, shown)
        assert (found.exp() - wanted.exp()).abs().max() < 1e-4


def test_the_loss_of_drawn_pairs_tends_to_the_expected_one() -> None:
    toy, logps = draw_toy(seed=5), random_logits(5).log_softmax(dim=-1)
    pairs = draw_pairs(toy.reward, 200_000, seed=5)
    drawn = dpo_loss(logps, toy.ref_logps, pairs, 0.5).item()
    exact = expected_dpo_loss(logps, toy.ref_logps, preference(toy.reward), 0.5).item()
    assert drawn == pytest.approx(exact, abs=0.005)


def test_a_reward_shifted_per_prompt_changes_nothing() -> None:
    toy, lifted = draw_toy(seed=2), draw_toy(lift=5.0, seed=2)
    assert (preference(toy.reward) - preference(lifted.reward)).abs().max() < 1e-12
    one, other = (closed_form(t.ref_logps, t.reward, 0.5) for t in (toy, lifted))
    assert (one - other).abs().max() < 1e-9
