"""posttrain.sft.exercises.lora: right answers, every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.adapters.merge import merge_lora
from posttrain.sft.exercises.lora import (
    LORA_FORWARD,
    MERGE,
    NOT_THE_RANK,
    grade_lora_forward,
    grade_merge,
)


def with_scale(scale: Callable[[int, float], float]) -> Callable[..., Tensor]:
    return lambda x, W, A, B, r, a: F.linear(x, W) + F.linear(F.linear(x, A), B) * scale(r, a)


right = with_scale(lambda r, a: a / r)


def alone(x: Tensor, W: Tensor, A: Tensor, B: Tensor, r: int, a: float) -> Tensor:
    return right(x, torch.zeros_like(W), A, B, r, a)


def unscaled(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return F.linear(F.linear(x, A), B)


WRONG_FORWARD = [
    (with_scale(lambda r, a: a), "You scaled the update by α, not by α / r"),
    (with_scale(lambda r, a: 1), "You forgot the scale"),
    (with_scale(lambda r, a: r / a), "Your scale is upside down"),
    (with_scale(lambda r, a: a / math.sqrt(r)), "You divided α by √r"),
    (with_scale(lambda r, a: a // r), "You divided with `//`"),
    (with_scale(lambda r, a: 1 / r), "You divided by r and left α out"),
    (with_scale(lambda r, a: r * a), "You multiplied α by r"),
    (with_scale(lambda r, a: a / r * a / r), "You scaled twice"),
    (with_scale(lambda r, a: -a / r), "You subtracted the update"),
    (lambda x, W, *ab: F.linear(x, W), "You returned the frozen output alone"),
    (lambda x, W, *ab: right(F.linear(x, W), torch.eye(len(W)), *ab), "You gave A the frozen"),
    (lambda x, W, A, B, r, a: a / r * F.linear(x, W + B @ A), "You scaled the frozen output"),
    (alone, "You returned the update alone"),
    (lambda x, W, *ab: F.linear(x, W) * alone(x, W, *ab), "You multiplied the update into"),
    (lambda x, W, A, B, r, a: F.linear(x, W) * unscaled(x, A, B), "You multiplied the update"),
    (lambda x, W, *ab: F.linear(x, W) * (alone(x, W, *ab) + 1), "You multiplied the update"),
    (lambda x, W, A, B, r, a: right(x, W, B, A, r, a), "You swapped A and B: A comes first"),
    (lambda x, W, A, B, r, a: F.linear(x, W) + (x @ A) @ B * a / r, "You multiplied by A and"),
    (lambda x, W, A, B, r, a: F.linear(x, W) + x @ (B @ A) * a / r, "Your update is transpos"),
    (lambda x, W, A, B, r, a: x @ W + unscaled(x, A, B) * a / r, "You multiplied by W as"),
    (lambda x, W, A, B, r, a: x @ W + ((x @ A) @ B) * (a / r), "You multiplied by W as"),
    (lambda x, W, A, B, r, a: torch.matmul(x, W + B @ A * a / r), "You multiplied by W as"),
    (lambda x, W, A, B, r, a: (W + B @ A * a / r) @ x, "You multiplied x from the left"),
    (lambda x, W, A, B, r, a: right(x, W, A, B, r, a).mT, "You multiplied x from the left"),
    (lambda x, W, A, B, r, a: right(x, W, A, B, x.shape[-1], a), "You divided α by a number"),
    (lambda x, W, A, B, r, a: right(x, W, A, B, W.shape[0], a), "You divided α by a number"),
]  # fmt: skip


def by_package(x: Tensor, W: Tensor, A: Tensor, B: Tensor, r: int, alpha: float) -> Tensor:
    linear = nn.Linear(W.shape[1], W.shape[0], bias=False)
    linear.weight = nn.Parameter(W)
    layer = LoRALinear(linear, LoRAConfig(r=r, lora_alpha=alpha))
    layer.lora_A.data, layer.lora_B.data = A, B
    return layer(x)


@pytest.mark.parametrize(
    "function", [right, by_package, lambda x, W, A, B, r, a: F.linear(x, W + a / r * (B @ A))]
)
def test_right_forward_passes(function: Any) -> None:
    result = grade_lora_forward(function)
    assert result.passed and result.message == "Your function is right on all 7 inputs."


def test_wrong_forward_passes_are_named() -> None:
    told = []
    for function, sentence in WRONG_FORWARD:
        result = grade_lora_forward(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in (*LORA_FORWARD, *NOT_THE_RANK)}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (with_scale(lambda r, a: a / r + 1), "At index [0, 0] your output is "),
        (with_scale(lambda r, a: math.nan), "At index [0, 0] your output is NaN"),
        (
            lambda x, W, A, B, r, a: right(x, W, A, B, r, a)[None],
            "Your output has shape (1, 4, ",
        ),
        (
            lambda x, W, A, B, r, a: torch.mm(x, W.T) + unscaled(x, A, B) * (a / r),
            "Your function rais",
        ),
    ],
)
def test_other_forward_passes(function: Any, message: str) -> None:
    result = grade_lora_forward(function)
    assert not result.passed and result.message.startswith(message), result.message
    assert "W of shape (" in result.message and "lora_alpha = " in result.message


def added(update: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    return lambda W, A, B, s, merged: W.clone() if merged else W + update(A, B, s)


def always(update: Callable[[Tensor, Tensor, float], Tensor]) -> Callable[..., Tensor]:
    return lambda W, A, B, s, merged: W + update(A, B, s)


def product(A: Tensor, B: Tensor, s: float) -> Tensor:
    return torch.einsum("or,ri->oi", B, A) * s


def only(W: Tensor, A: Tensor, B: Tensor, s: float, merged: bool) -> Tensor:
    return product(A, B, s)


WRONG_MERGES = [
    (always(product), "You merged twice: where `merged` is true, W holds the update already"),
    (lambda W, A, B, s, merged: added(product)(W, A, B, s, not merged), "You look at `merged`"),
    (
        lambda W, A, B, s, merged: W + product(A, B, -s if merged else s),
        "You took the update out",
    ),
    (lambda W, A, B, s, merged: W, "You never add the update"),
    (added(lambda A, B, s: B @ A), "You forgot the scale"),
    (always(lambda A, B, s: B @ A), "You forgot the scale"),
    (added(lambda A, B, s: product(A, B, s / A.shape[0])), "`scaling` is α / r already"),
    (always(lambda A, B, s: product(A, B, s / B.shape[1])), "`scaling` is α / r already"),
    (added(lambda A, B, s: (B * s) @ (A * s)), "You scaled twice"),
    (always(lambda A, B, s: (B * s) @ (A * s)), "You scaled twice"),
    (added(lambda A, B, s: A.mT @ B.mT * s), "Your update is transposed"),
    (always(lambda A, B, s: A.mT @ B.mT * s), "Your update is transposed"),
    (added(lambda A, B, s: torch.matmul(A, B) * s), "You multiplied A B"),
    (
        lambda W, A, B, s, merged: W if merged else only(W, A, B, s, merged),
        "You returned the upd",
    ),
    (only, "You returned the update alone"),
    (added(lambda A, B, s: product(A, B, -s)), "You subtracted the update"),
    (lambda W, A, B, s, merged: W if merged else W * s + product(A, B, s), "You scaled W too"),
]


def merge_of_package(W: Tensor, A: Tensor, B: Tensor, scaling: float, merged: bool) -> Tensor:
    if merged:
        return W
    r = len(A)
    model = nn.Sequential(nn.Linear(W.shape[1], W.shape[0], bias=False))
    layer = LoRALinear(model[0], LoRAConfig(r=r, lora_alpha=scaling * r))
    model[0].weight.data, layer.lora_A.data, layer.lora_B.data = W, A, B
    model[0] = layer
    merge_lora(model)
    return layer.base.weight


def in_place(W: Tensor, A: Tensor, B: Tensor, scaling: float, merged: bool) -> Tensor:
    if not merged:
        W += product(A, B, scaling)
    return W


@pytest.mark.parametrize("function", [added(product), in_place, merge_of_package])
def test_right_merges(function: Any) -> None:
    result = grade_merge(function)
    assert result.passed and result.message == "Your function is right on all 8 inputs."


def test_wrong_merges_are_named() -> None:
    told = []
    for function, sentence in WRONG_MERGES:
        result = grade_merge(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in MERGE}


def test_other_merges() -> None:
    double = grade_merge(added(lambda A, B, s: product(A, B, 2 * s)))
    assert double.message.startswith("At index [0, 0] your output is ")
    assert double.message.endswith("scaling = 2.0, merged = False.")
    square = grade_merge(lambda W, A, B, s, merged: added(product)(W, A, B, s, merged)[:3])
    assert square.message.startswith("Your output has shape (3, 4) where (4, 4) is expected.")
    only_small = grade_merge(  # right where W is square
        lambda W, A, B, s, merged: added(product)(W, A, B, s, merged and len(W) == len(W.T))
    )
    assert only_small.message.startswith("At index [0, 0] your output is ")
    assert only_small.message.endswith("scaling = 4.0, merged = True.")
