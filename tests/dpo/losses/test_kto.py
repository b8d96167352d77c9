"""posttrain.dpo.losses.kto: mismatched rows, the KL estimate, and the loss."""

import random

import pytest
import torch
from torch.testing import assert_close

from posttrain.dpo.losses.kto import kl_estimate, kto_loss, mismatched_rows


@pytest.mark.parametrize("n", range(2, 12))
def test_each_prompt_gets_the_answer_of_the_row_before(n: int) -> None:
    rows = mismatched_rows(range(n))
    assert rows == [n - 1, *range(n - 1)]
    reversed_rows = list(range(n))[::-1]  # the mistake: an odd batch keeps its middle row
    assert any(row == other for row, other in enumerate(reversed_rows)) is (n % 2 == 1)


@pytest.mark.parametrize("seed", range(60))
def test_no_row_keeps_an_answer_to_its_own_prompt(seed: int) -> None:
    generator = random.Random(seed)
    prompts = [generator.choice("abcde") for _ in range(generator.randint(2, 12))]
    largest = max(map(prompts.count, prompts))
    if 2 * largest > len(prompts):
        with pytest.raises(
            ValueError, match=f"^{largest} of {len(prompts)} rows share a prompt"
        ):
            mismatched_rows(prompts)
        return
    rows = mismatched_rows(prompts)
    assert sorted(rows) == list(range(len(prompts)))
    assert all(prompts[row] != prompts[other] for row, other in enumerate(rows))


def test_the_two_answers_of_a_pair_are_not_exchanged() -> None:
    prompts = ["x", "y", "z"]
    rows = mismatched_rows([*prompts, *prompts])
    assert all(row % 3 != other % 3 for row, other in enumerate(rows))


@pytest.mark.parametrize("prompts", [[], ["x"]])
def test_a_batch_of_one_is_refused(prompts: list[str]) -> None:
    with pytest.raises(
        ValueError, match=f"^KTO's KL estimate got {len(prompts)} rows: .*at least 2"
    ):
        mismatched_rows(prompts)


def test_the_estimate_is_a_mean_that_is_not_below_0_and_has_no_gradient() -> None:
    policy = torch.tensor([-3.0, -6.0], requires_grad=True)
    kl = kl_estimate(policy, torch.tensor([-5.0, -7.0]))
    assert kl.item() == 1.5 and not kl.requires_grad
    assert kl_estimate(policy, torch.tensor([-1.0, -2.0])).item() == 0
    with pytest.raises(ValueError, match=r"^logps of row 1 is nan"):
        kl_estimate(torch.tensor([-1.0, float("nan")]), torch.tensor([-1.0, -1.0]))


def test_the_loss_by_hand() -> None:
    logps = torch.tensor([-4.0, -4.0, -9.0, -9.0], requires_grad=True)
    references, kl = torch.tensor([-6.0, -6.0, -6.0, -6.0]), torch.tensor(1.0)
    good = torch.tensor([True, False, True, False])
    losses = kto_loss(logps, references, good, kl, beta=0.5, desirable_weight=2.0)
    s = torch.sigmoid(torch.tensor([0.5 * (2 - 1), 0.5 * (-3 - 1)]))
    assert_close(losses, torch.stack([2 * (1 - s[0]), s[0], 2 * (1 - s[1]), s[1]]))
    losses.sum().backward()
    assert (logps.grad.sign() == torch.tensor([-1, 1, -1, 1])).all()
    assert_close(kto_loss(logps, references, good, kl, 0.5, 1.0, 3.0)[1], 3 * s[0])


def test_what_the_loss_refuses() -> None:
    ones = -torch.ones(2)
    with pytest.raises(ValueError, match=r"^desirable is torch\.int64: give a boolean tensor"):
        kto_loss(ones, ones, torch.tensor([1, 0]), torch.tensor(0.0), 0.1)
    live = torch.tensor(0.5, requires_grad=True)
    with pytest.raises(ValueError, match=r"^the KL estimate requires a gradient"):
        kto_loss(ones, ones, torch.tensor([True, False]), live, 0.1)
    with pytest.raises(
        ValueError, match="the reference's log-probabilities require a gradient"
    ):
        kto_loss(
            ones, ones.clone().requires_grad_(), torch.tensor([True, False]),
            torch.tensor(0.0), 0.1,
        )  # fmt: skip
