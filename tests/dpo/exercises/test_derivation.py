"""posttrain.dpo.exercises.derivation: the right steps, and every named wrong one.

The wrong answers are written here as a reader would write them, not as the grader has them.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.dpo.exercises import derivation
from posttrain.dpo.exercises.derivation import CLOSED_FORM, IMPLICIT_REWARD, LOSS
from posttrain.dpo.theory import bradley_terry, discrete


def closed_form(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    return torch.softmax(torch.log(ref) + reward / beta, dim=1)


def implicit_reward(policy: Tensor, ref: Tensor, beta: float) -> Tensor:
    return beta * (torch.log(policy) - torch.log(ref))


def margins(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> list[float]:
    reward = implicit_reward(policy, ref, beta).tolist()
    return [reward[x][w] - reward[x][l] for x, w, l in pairs.tolist()]  # noqa: E741


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def loss(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
    return mean([-math.log(sigmoid(m)) for m in margins(policy, ref, pairs, beta)])


def one_sided(policy: Tensor, ref: Tensor, pairs: Tensor, left: float, right: float) -> float:
    rows = pairs.tolist()
    r = (policy / ref).log().tolist()
    return mean([-math.log(sigmoid(left * r[x][w] - right * r[x][v])) for x, w, v in rows])


def swapped(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
    reward = implicit_reward(policy, ref, beta)
    return mean([-math.log(sigmoid(reward[x, w] - reward[x, v])) for w, v, x in pairs.tolist()])


def first_row(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
    reward = implicit_reward(policy, ref, beta)[0]
    return mean([-math.log(sigmoid(reward[w] - reward[v])) for _, w, v in pairs.tolist()])


def without_reference(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
    return loss(policy, torch.ones_like(ref), pairs, beta)


def of_probabilities(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> Tensor:
    x, w, v = pairs.unbind(1)
    gap = beta * ((policy[x, w] - policy[x, v]) - (ref[x, w] - ref[x, v]))
    return torch.nn.functional.softplus(-gap).mean()


def chosen_only(policy: Tensor, ref: Tensor, pairs: Tensor, beta: float) -> float:
    reward = implicit_reward(policy, ref, beta)
    return mean([-math.log(sigmoid(reward[x, w])) for x, w, _ in pairs.tolist()])


def all_prompts(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    weights = torch.exp(ref.log() + reward / beta)
    return weights / weights.sum()


def no_exponential(ref: Tensor, reward: Tensor, beta: float) -> Tensor:
    weights = ref * reward / beta
    return weights / weights.sum(dim=1)[:, None]


WRONG_FORMS: list[tuple[Callable[..., Any], str]] = [
    (lambda p, r, b: p * torch.exp(r / b), "You did not normalize"),
    (all_prompts, "You normalized over all prompts"),
    (lambda p, r, b: torch.softmax(p.log() + r / b, dim=0), "You normalized over the prompts"),
    (lambda p, r, b: closed_form(p, r, 1 / b), "You multiplied the reward by beta"),
    (lambda p, r, b: closed_form(p, r, 1.0), "You left out beta"),
    (lambda p, r, b: torch.softmax(r / b, dim=-1), "You left out the reference"),
    (lambda p, r, b: closed_form(p, r, -b), "Your sign is wrong"),
    (no_exponential, "You forgot the exponential"),
    (lambda p, r, b: torch.softmax(p + r / b, dim=1), "You added the reference to the exp"),
    (lambda p, r, b: torch.softmax((p.log() + r) / b, dim=1), "You divided log ref by beta"),
    (lambda p, r, b: torch.log_softmax(p.log() + r / b, dim=1), "You returned log-prob"),
]  # fmt: skip
WRONG_REWARDS: list[tuple[Callable[..., Any], str]] = [
    (lambda q, p, b: -implicit_reward(q, p, b), "Your ratio is upside down"),
    (lambda q, p, b: q / p * b, "You forgot the logarithm"),
    (lambda q, p, b: implicit_reward(q, p, 1 / b), "You divided by beta"),
    (lambda q, p, b: implicit_reward(q, p, 1), "You left out beta"),
    (lambda q, p, b: b * torch.log(q), "You left out the reference"),
    (lambda q, p, b: b * q - b * p, "You subtracted probabilities"),
    (lambda q, p, b: b * torch.log(q) - torch.log(p), "You multiplied the policy's"),
    (lambda q, p, b: implicit_reward(q, p, b) / math.log(2), "You took the logarithm to"),
    (lambda q, p, b: implicit_reward(q, p, b) / math.log(10), "You took the logarithm to"),
]
WRONG_LOSSES: list[tuple[Callable[..., Any], str]] = [
    (lambda q, p, s, b: loss(q, p, s[:, [0, 2, 1]], b), "Your margin has the wrong sign"),
    (lambda q, p, s, b: mean([-sigmoid(m) for m in margins(q, p, s, b)]), "You forgot the log"),
    (lambda q, p, s, b: -loss(q, p, s, b), "You returned the log-likelihood"),
    (lambda q, p, s, b: mean([-m for m in margins(q, p, s, b)]), "You forgot the sigmoid"),
    (lambda q, p, s, b: -math.log(sigmoid(mean(margins(q, p, s, b)))), "You took the loss of"),
    (lambda q, p, s, b: len(s) * loss(q, p, s, b), "You summed over the pairs"),
    (lambda q, p, s, b: -torch.tensor(margins(q, p, s, b)).sigmoid().log(), "You returned a l"),
    (without_reference, "You left out the reference"),
    (of_probabilities, "You took differences of probabilities"),
    (lambda q, p, s, b: loss(q, p, s, 1), "You left out beta"),
    (lambda q, p, s, b: loss(q, p, s, 1 / b), "You divided by beta"),
    (lambda q, p, s, b: loss(q, p, s, b * b), "You applied beta twice"),
    (lambda q, p, s, b: one_sided(q, p, s, b, 1), "You multiplied only one"),
    (lambda q, p, s, b: one_sided(q, p, s, 1, b), "You multiplied only one"),
    (chosen_only, "You looked at the chosen answer alone"),
    (swapped, "You read a pair as (chosen, rejected, prompt)"),
    (first_row, "You ignored the prompt"),
]
RIGHT = (closed_form, implicit_reward, loss)


def test_the_right_steps() -> None:
    assert derivation.grade_derivation(*RIGHT).passed
    tensors = (derivation._closed_form, derivation._implicit_reward, derivation._loss)
    assert derivation.grade_derivation(*tensors).passed


@pytest.mark.parametrize(
    ("step", "name", "wrong", "mistakes"),
    [
        (0, "closed_form", WRONG_FORMS, CLOSED_FORM),
        (1, "implicit_reward", WRONG_REWARDS, IMPLICIT_REWARD),
        (2, "loss", WRONG_LOSSES, LOSS),
    ],
)
def test_each_named_mistake(step: int, name: str, wrong: Any, mistakes: Any) -> None:
    told = set()
    for function, sentence in wrong:
        steps = [*RIGHT[:step], function, *RIGHT[step + 1 :]]
        result = derivation.grade_derivation(*steps)
        beginning = f"Step {step + 1}, `{name}`: "
        assert not result.passed and result.message.startswith(beginning + sentence), result
        told.add(result.message.removeprefix(beginning))
    assert told == {mistake.sentence for mistake in mistakes}


def test_the_first_wrong_step_is_named() -> None:
    steps = WRONG_FORMS[0][0], WRONG_REWARDS[0][0], WRONG_LOSSES[0][0]
    assert derivation.grade_derivation(*steps).message.startswith("Step 1, ")
    assert derivation.grade_derivation(RIGHT[0], *steps[1:]).message.startswith("Step 2, ")


def test_an_unknown_mistake_is_shown_by_its_numbers() -> None:
    result = derivation.grade_derivation(*RIGHT[:2], lambda *given: 3 * loss(*given))
    assert result.message.startswith("Step 3, `loss`: Your function returned ")


@pytest.mark.parametrize("step", range(3))
def test_junk_gets_a_kind_sentence(step: int) -> None:
    def raises(*arguments: object) -> object:
        raise RuntimeError("my own words")

    for junk, sentence in (
        (raises, "Your function raised `RuntimeError: my own words`"),
        (lambda *arguments: None, "Your function returned `None`"),
        (lambda *arguments: "text", "Your function returned `str` where "),
        (lambda a: 0, "Your function must take "),
        (None, "You handed over `NoneType`: hand over the function itself"),
    ):
        steps: Any = [*RIGHT[:step], junk, *RIGHT[step + 1 :]]
        assert sentence in derivation.grade_derivation(*steps).message


def test_the_graders_steps_are_those_of_the_package() -> None:
    toy = discrete.draw_toy(seed=4)
    ref, policy = toy.ref_logps.exp(), discrete.draw_toy(seed=5).ref_logps.exp()
    pairs = bradley_terry.draw_pairs(toy.reward, 30, seed=0)
    form = derivation._closed_form(ref, toy.reward, 0.7)
    wanted = discrete.closed_form(toy.ref_logps, toy.reward, 0.7).exp()
    assert (form - wanted).abs().max() < 1e-12
    found = derivation._loss(policy, ref, pairs, 0.7)
    other = bradley_terry.dpo_loss(policy.log(), ref.log(), pairs, 0.7)
    assert (found - other).abs() < 1e-12
