"""posttrain.dpo.theory.discrete: the optimum by formula and by climbing, the reward back."""

import math

import pytest
import torch
from torch import Tensor

from posttrain.dpo.theory.discrete import (
    Toy,
    closed_form,
    direct_optimum,
    draw_toy,
    implicit_reward,
    log_partition,
    objective,
)

CASES = [(seed, beta) for seed in range(8) for beta in (0.2, 0.7, 1.0, 4.0)]


def random_policy(like: Tensor, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(like.shape, generator=generator, dtype=like.dtype).log_softmax(dim=-1)


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_climbing_ends_at_the_closed_form(seed: int, beta: float) -> None:
    toy = draw_toy(prompts=3, answers=4 + seed, lift=seed, seed=seed)
    formula = closed_form(toy.ref_logps, toy.reward, beta)
    climbed = direct_optimum(toy.ref_logps, toy.reward, beta)
    assert (formula.exp() - climbed.exp()).abs().max() < 1e-9
    assert formula.logsumexp(dim=-1).abs().max() < 1e-12


@pytest.mark.parametrize(
    "wrong",
    [
        lambda ref, reward, beta: (ref - reward / beta).log_softmax(-1),
        lambda ref, reward, beta: (ref + reward * beta).log_softmax(-1),
        lambda ref, reward, beta: (reward / beta).log_softmax(-1),
        lambda ref, reward, beta: ref + reward / beta,
    ],
)
def test_no_wrong_formula_would_pass(wrong) -> None:
    toy = draw_toy(seed=1)
    climbed = direct_optimum(toy.ref_logps, toy.reward, 0.5)
    assert (wrong(toy.ref_logps, toy.reward, 0.5).exp() - climbed.exp()).abs().max() > 0.05


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_every_policy_falls_short_by_beta_times_its_divergence(seed: int, beta: float) -> None:
    toy = draw_toy(seed=seed)
    policy = random_policy(toy.reward, seed + 100)
    optimum = closed_form(toy.ref_logps, toy.reward, beta)
    divergence = (policy.exp() * (policy - optimum)).sum(dim=-1)
    best = beta * log_partition(toy.ref_logps, toy.reward, beta)
    height = objective(policy, toy.ref_logps, toy.reward, beta)
    assert (best - beta * divergence - height).abs().max() < 1e-12
    assert (divergence > 0).all()


def test_by_hand() -> None:
    ref = torch.tensor([[0.8, 0.2]], dtype=torch.float64)
    reward = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    beta = 1 / math.log(4)  # exp(1 / beta) = 4: weights 0.8 * 1 and 0.2 * 4
    assert closed_form(ref.log(), reward, beta).exp().tolist() == [pytest.approx([0.5, 0.5])]
    assert log_partition(ref.log(), reward, beta).item() == pytest.approx(math.log(1.6))
    even = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    divergence = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)
    assert objective(even.log(), ref.log(), reward, 3.0).item() == pytest.approx(
        0.5 - 3 * divergence
    )


@pytest.mark.parametrize(("seed", "beta"), CASES)
def test_the_optimum_states_the_reward_up_to_a_constant_per_prompt(
    seed: int, beta: float
) -> None:
    toy = draw_toy(lift=2.0, seed=seed)
    optimum = closed_form(toy.ref_logps, toy.reward, beta)
    rest = toy.reward - implicit_reward(optimum, toy.ref_logps, beta)
    assert (rest - rest[:, :1]).abs().max() < 1e-9
    log_z = log_partition(toy.ref_logps, toy.reward, beta)
    assert (rest[:, 0] - beta * log_z).abs().max() < 1e-9
    assert (rest[1:, 0] - rest[:-1, 0]).abs().min() > 0.1  # and it differs between prompts


def test_a_large_beta_keeps_the_reference_and_a_small_one_finds_the_best() -> None:
    toy = draw_toy(seed=3)
    tied = closed_form(toy.ref_logps, toy.reward, 1e6)
    assert (tied.exp() - toy.ref_logps.exp()).abs().max() < 1e-5
    free = closed_form(toy.ref_logps, toy.reward, 1e-3)
    assert torch.equal(free.argmax(dim=-1), toy.reward.argmax(dim=-1))
    assert free.exp().amax(dim=-1).min() > 0.99


@pytest.mark.parametrize("beta", [0.0, -1.0, math.inf, math.nan])
def test_a_beta_that_ties_nothing_is_refused(beta: float) -> None:
    toy = draw_toy()
    for function in (closed_form, direct_optimum, log_partition):
        with pytest.raises(ValueError, match=f"^beta is {beta}: give a finite number above 0"):
            function(toy.ref_logps, toy.reward, beta)


def test_a_toy_that_is_none_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"ref_logps has the shape \(2, 3\) and reward \(3, 2\)"
    ):
        Toy(torch.zeros(2, 3), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="do not add up to 1: give it through log_softmax"):
        Toy(torch.zeros(2, 3), torch.zeros(2, 3))


def test_draws_repeat_and_differ() -> None:
    one, same, other = draw_toy(seed=1), draw_toy(seed=1), draw_toy(seed=2)
    assert torch.equal(one.reward, same.reward) and not torch.equal(one.reward, other.reward)
    assert torch.equal(draw_toy(lift=3.0, seed=1).reward[2], one.reward[2] + 6)
