"""posttrain.dpo.losses.rewards: log-ratios, implicit rewards and their metrics."""

import math

import pytest
import torch
from torch.testing import assert_close

from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.preference import dpo_loss
from posttrain.dpo.losses.rewards import (
    gradient_weight,
    implicit_reward,
    implicit_rewards,
    log_ratio,
    reward_accuracy,
)

CHOSEN, REJECTED = torch.tensor([-4.0, -9.0, -2.0]), torch.tensor([-6.0, -3.0, -2.0])
REF_CHOSEN, REF_REJECTED = torch.tensor([-5.0, -8.0, -2.0]), torch.tensor([-6.0, -4.0, -2.0])
LENGTHS = torch.tensor([2, 4, 1]), torch.tensor([3, 1, 1])


def test_the_log_ratio_is_policy_minus_reference() -> None:
    assert log_ratio(CHOSEN, REF_CHOSEN).tolist() == [1, -1, 0]
    assert_close(implicit_reward(CHOSEN, REF_CHOSEN, 0.5), torch.tensor([0.5, -0.5, 0.0]))
    with pytest.raises(
        ValueError, match="the reference's log-probabilities require a gradient"
    ):
        log_ratio(CHOSEN, REF_CHOSEN.clone().requires_grad_())


def test_a_tie_counts_as_half() -> None:
    ours = torch.tensor([1.0, 2.0, 3.0, 0.0])
    assert reward_accuracy(ours, torch.tensor([0.0, 3.0, 3.0, -1.0])).item() == 2.5 / 4
    assert reward_accuracy(ours, ours).item() == 0.5
    assert reward_accuracy(ours, ours - 1).item() == 1
    assert reward_accuracy(ours, ours + 1).item() == 0


@pytest.mark.parametrize("seed", range(20))
def test_the_weight_is_the_one_of_dpos_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    logps = (-10 * torch.rand(2, 5)).requires_grad_()
    references, beta = -10 * torch.rand(2, 5), 0.05 + torch.rand(()).item()
    loss = dpo_loss(*logps, *references, beta)
    (gradient,) = torch.autograd.grad(loss.sum(), logps)
    rewards = implicit_reward(logps, references, beta).detach()
    weight = gradient_weight(rewards[0] - rewards[1])
    assert_close(gradient, torch.stack([-beta * weight, beta * weight]))


def test_the_weight_is_a_half_at_the_start_and_large_where_wrong() -> None:
    weights = gradient_weight(torch.tensor([0.0, -5.0, 5.0]))
    assert weights[0] == 0.5
    assert_close(weights[1:], torch.tensor([1 / (1 + math.exp(-5)), 1 / (1 + math.exp(5))]))


@pytest.mark.parametrize(
    ("config", "chosen", "rejected"),
    [
        (PreferenceLossConfig(beta=0.5), [0.5, -0.5, 0], [0, 0.5, 0]),
        (PreferenceLossConfig("kto", beta=2), [2, -2, 0], [0, 2, 0]),
        (PreferenceLossConfig("robust", label_smoothing=0.2, beta=1), [1, -1, 0], [0, 1, 0]),
        (PreferenceLossConfig("ipo", ipo_aggregation="sum", beta=1), [1, -1, 0], [0, 1, 0]),
        (
            PreferenceLossConfig("ipo", ipo_aggregation="mean", beta=1),
            [0.5, -0.25, 0],
            [0, 1, 0],
        ),
        (PreferenceLossConfig("sigmoid_norm", beta=2), [1, -0.5, 0], [0, 2, 0]),
        (PreferenceLossConfig("simpo", simpo_gamma=1, beta=2), [-4, -4.5, -4], [-4, -6, -4]),
        (PreferenceLossConfig("orpo", beta=1), [-2, -2.25, -2], [-2, -3, -2]),
    ],
)
def test_rewards_are_what_the_loss_compares(
    config: PreferenceLossConfig, chosen: list[float], rejected: list[float]
) -> None:
    live = [CHOSEN.clone().requires_grad_(), REJECTED.clone().requires_grad_()]
    references = (REF_CHOSEN, REF_REJECTED) if config.needs.reference else (None, None)
    rewards = implicit_rewards(config, PairLogps(*live, *references, *LENGTHS))
    assert_close(rewards, (torch.tensor(chosen).float(), torch.tensor(rejected).float()))
    assert not any(reward.requires_grad for reward in rewards)


def test_rewards_refuse_what_does_not_fit() -> None:
    both = PairLogps(CHOSEN, REJECTED, REF_CHOSEN, REF_REJECTED, *LENGTHS)
    with pytest.raises(ValueError, match=r"^SimPO compares with no reference and one is given"):
        implicit_rewards(PreferenceLossConfig("simpo", simpo_gamma=1), both)
    with pytest.raises(ValueError, match="compares with a reference and the pairs have none"):
        implicit_rewards(PreferenceLossConfig(), PairLogps(CHOSEN, REJECTED))
