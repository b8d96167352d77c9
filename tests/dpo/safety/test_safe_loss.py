"""posttrain.dpo.safety.safe_loss: the order of pairs, the margin, and planted mistakes."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posttrain.dpo.data.pair_formats import answer_text, make_pair
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.preference import dpo_loss
from posttrain.dpo.safety.safe_loss import (
    DROPPED,
    KEPT_APART,
    KEPT_SAFE,
    SWAPPED,
    SafetyPair,
    reorder,
    safe_dpo_loss,
    safety_labels,
)


def pair(chosen_safe: bool, rejected_safe: bool, number: int = 0) -> SafetyPair:
    row = make_pair(f"Question {number}?", f"first {number}", f"second {number}")
    return SafetyPair(row, chosen_safe, rejected_safe, "drawn")


def texts(given: SafetyPair) -> tuple[str, str]:
    return answer_text(given.pair, "chosen"), answer_text(given.pair, "rejected")


@pytest.mark.parametrize(
    ("labels", "order", "reason"),
    [
        ((True, True), ("first 0", "second 0"), KEPT_SAFE),
        ((True, False), ("first 0", "second 0"), KEPT_APART),
        ((False, True), ("second 0", "first 0"), SWAPPED),
        ((False, False), None, DROPPED),
    ],
)
def test_each_kind_of_pair(
    labels: tuple[bool, bool], order: tuple[str, str] | None, reason: str
) -> None:
    given = pair(*labels)
    result = reorder([given])
    assert [texts(found) for found in result.pairs] == ([order] if order else [])
    assert {r for r, count in result.counts.items() if count} == {reason}
    assert set(result.counts) == {KEPT_SAFE, KEPT_APART, SWAPPED, DROPPED}
    assert reason in repr(result)
    assert texts(given) == ("first 0", "second 0")  # what was given stays as it is


def test_drawn_pairs_end_in_order_and_nothing_is_lost() -> None:
    generator = random.Random(0)
    for _ in range(30):
        n = generator.randint(1, 40)
        given = [pair(generator.random() < 0.5, generator.random() < 0.5, k) for k in range(n)]
        result = reorder(given)
        assert result.counts.total() == n
        assert len(result.pairs) == n - result.counts[DROPPED]
        assert all(found.chosen_safe and found.kind == "drawn" for found in result.pairs)
        assert reorder(result.pairs).pairs == result.pairs  # a second time changes nothing
        by_prompt = {found.pair["prompt"][0]["content"]: found for found in result.pairs}
        for k, before in enumerate(given):
            after = by_prompt.get(f"Question {k}?")
            assert (after is None) == (not before.chosen_safe and not before.rejected_safe)
            assert after is None or (texts(after) != texts(before)) == (not before.chosen_safe)


def test_labels_are_truth_values() -> None:
    with pytest.raises(ValueError, match=r"chosen_safe is 0.2: give True or False"):
        SafetyPair(make_pair("Q?", "a", "b"), 0.2, True)  # type: ignore[arg-type]


def drawn(seed: int, size: int) -> tuple[list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logps = [-40 * torch.rand(size, generator=generator, dtype=torch.float64) for _ in range(4)]
    return logps, torch.rand(size, generator=generator) < 0.5


def by_hand(logps: list[Tensor], safe: Tensor, beta: float, delta: float) -> list[float]:
    losses = []
    for c, r, rc, rr, is_safe in zip(*[x.tolist() for x in (*logps, safe)], strict=True):
        reward = beta * ((c - rc) - (r - rr)) - (0.0 if is_safe else delta)
        losses.append(math.log1p(math.exp(-abs(reward))) + max(0.0, -reward))
    return losses


CASES = [(seed, 1 + seed % 6, (0.05, 0.1, 0.5, 2.0)[seed % 4], (0, 1, 5, 10)[seed // 4 % 4])
         for seed in range(40)]  # fmt: skip


@pytest.mark.parametrize(("seed", "size", "beta", "delta"), CASES)
def test_value_and_gradient(seed: int, size: int, beta: float, delta: float) -> None:
    logps, safe = drawn(seed, size)
    chosen, rejected = (logps[i].clone().requires_grad_() for i in (0, 1))
    sure = torch.ones(size, dtype=torch.bool)
    losses = safe_dpo_loss(PairLogps(chosen, rejected, *logps[2:]), sure, safe, beta, delta)
    wanted = torch.tensor(by_hand(logps, safe, beta, delta), dtype=torch.float64)
    torch.testing.assert_close(losses, wanted, rtol=1e-10, atol=1e-12)
    # the slope is -beta sigma(-reward), and sigma(-reward) is 1 - exp(-loss)
    losses.sum().backward()
    assert chosen.grad is not None and rejected.grad is not None
    torch.testing.assert_close(chosen.grad, -beta * -torch.expm1(-wanted))
    torch.testing.assert_close(rejected.grad, -chosen.grad)


def test_gradcheck() -> None:
    logps, safe = drawn(3, 5)
    sure = torch.ones(5, dtype=torch.bool)

    def loss(chosen: Tensor, rejected: Tensor) -> Tensor:
        return safe_dpo_loss(PairLogps(chosen, rejected, *logps[2:]), sure, safe, 0.3, 1.5)

    assert torch.autograd.gradcheck(loss, [x.requires_grad_() for x in logps[:2]])


def test_delta_of_0_is_dpo_on_the_reordered_pairs() -> None:
    for seed in range(20):
        logps, first_safe = drawn(seed, 6)
        _, second_safe = drawn(100 + seed, 6)
        given = [
            pair(bool(a), bool(b), k)
            for k, (a, b) in enumerate(zip(first_safe, second_safe, strict=True))
        ]
        result = reorder(given)
        of_text = {f"first {k}": (logps[0][k], logps[2][k]) for k in range(6)}
        of_text |= {f"second {k}": (logps[1][k], logps[3][k]) for k in range(6)}
        sides = [[of_text[texts(x)[side]] for x in result.pairs] for side in (0, 1)]
        if not result.pairs:
            continue
        c, rc, r, rr = (torch.stack([x[i] for x in side]) for side in sides for i in (0, 1))
        found = safe_dpo_loss(
            PairLogps(c, r, rc, rr), *safety_labels(result.pairs), beta=0.2, delta=0.0
        )
        torch.testing.assert_close(found, dpo_loss(c, r, rc, rr, 0.2))


Wrong = Callable[[list[Tensor], Tensor, float, float], Tensor]


def reward(x: list[Tensor], beta: float) -> Tensor:
    return beta * ((x[0] - x[2]) - (x[1] - x[3]))


MUTANTS: dict[str, Wrong] = {
    "margin added": lambda x, safe, b, d: reward(x, b) + (~safe) * d,
    "margin for equal labels": lambda x, safe, b, d: reward(x, b) - d,
    "margin where both are safe": lambda x, safe, b, d: reward(x, b) - safe * d,
    "margin scaled by beta": lambda x, safe, b, d: reward(x, b) - b * (~safe) * d,
    "no margin": lambda x, safe, b, d: reward(x, b),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_differ(name: str) -> None:
    logps, _ = drawn(8, 4)
    safe = torch.tensor([True, False, True, False])
    sure = torch.ones(4, dtype=torch.bool)
    right = safe_dpo_loss(PairLogps(*logps), sure, safe, 0.1, 2.0)
    wrong = -torch.nn.functional.logsigmoid(MUTANTS[name](logps, safe, 0.1, 2.0))
    assert (right - wrong).abs().max() > 0.01


def test_delta_pushes_only_unlike_pairs() -> None:
    logps, _ = drawn(2, 2)
    labels = torch.tensor([True, True]), torch.tensor([True, False])
    none = safe_dpo_loss(PairLogps(*logps), *labels, 0.1, 0.0)
    some = safe_dpo_loss(PairLogps(*logps), *labels, 0.1, 5.0)
    assert some[0] == none[0] and some[1] > none[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": 0.0}, "beta is 0.0: give a number above 0"),
        ({"beta": math.nan}, "beta is nan"),
        ({"delta": -1.0}, "delta is -1.0: give a number of 0 or more"),
        ({"delta": math.inf}, "delta is inf"),
        ({"rejected_safe": torch.ones(3)}, r"rejected_safe is torch.float32 of shape \(3,\)"),
        ({"chosen_safe": torch.ones(2, dtype=torch.bool)}, r"chosen_safe .* shape \(2,\)"),
        ({"chosen_safe": torch.tensor([True, False, True])}, "row 1 is unsafe .* call reorder"),
        ({"pairs": PairLogps(-torch.ones(3), -torch.ones(3))}, "have none: give ref_chosen"),
    ],
)
def test_bad_arguments(change: dict[str, object], message: str) -> None:
    sure = torch.ones(3, dtype=torch.bool)
    arguments = {
        "pairs": PairLogps(*[-torch.ones(3)] * 4),
        "chosen_safe": sure, "rejected_safe": sure, "beta": 0.1, "delta": 1.0,
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        safe_dpo_loss(**arguments)  # type: ignore[arg-type]
