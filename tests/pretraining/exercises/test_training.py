"""posttrain.pretraining.exercises.training: right answers, every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.pretraining.exercises.training import (
    LEARNING_RATE,
    MASKED_LOSS,
    grade_learning_rate,
    grade_masked_loss,
)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    logps = logits.log_softmax(dim=-1)
    picked = logps.gather(-1, labels.clamp(min=0).unsqueeze(-1)).squeeze(-1)
    return torch.where(labels == -100, 0.0, -picked)


def right_loss(logits: Tensor, labels: Tensor) -> Tensor:
    keep = labels != -100
    return token_losses(logits, labels)[keep].mean()


def row_by_row(logits: Tensor, labels: Tensor) -> Tensor:
    rows = zip(logits, labels, strict=True)
    return torch.stack([right_loss(x[None], y[None]) for x, y in rows]).mean()


def in_bits(logits: Tensor, labels: Tensor) -> Tensor:
    keep = labels != -100
    logps = logits[keep].log_softmax(dim=-1) / torch.tensor(2.0).log()
    return -logps[range(len(logps)), labels[keep]].mean()


def log_of_softmax(logits: Tensor, labels: Tensor) -> Tensor:
    keep = labels != -100
    probabilities = logits[keep].softmax(dim=-1)
    return -probabilities[range(len(probabilities)), labels[keep]].log().mean()


WRONG_LOSSES = [
    (lambda x, y: token_losses(x, y).sum() / y.numel(), "You averaged over the padding too"),
    (row_by_row, "You averaged each row, then the rows"),
    (lambda x, y: token_losses(x, y).sum(), "You returned the sum"),
    (in_bits, "Your loss is in bits"),
    (lambda x, y: right_loss(x[:, :-1, :], y[:, 1:]), "You shifted the labels"),
    (
        lambda x, y: right_loss(x, torch.where(y == -100, 0, y)),
        "You scored the masked positions",
    ),
    (lambda x, y: -right_loss(x, y), "Your loss has the wrong sign"),
    (lambda x, y: right_loss(torch.softmax(x, -1), y), "You took the softmax twice"),
    (log_of_softmax, "Your loss is infinite where a label is unlikely"),
]


def test_masked_loss() -> None:
    assert grade_masked_loss(right_loss).passed
    told = []
    for function, sentence in WRONG_LOSSES:
        result = grade_masked_loss(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in MASKED_LOSS}


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x, y: right_loss(x, y).item(), "Your function returned `float` where `torch."),
        (token_losses, "Your output has shape (2, 5) where () is expected."),
        (lambda x, y: right_loss(x, y) * torch.nan, "Your output is NaN: look for 0 / 0"),
        (lambda x, y: x.log_softmax(-1).gather(-1, y[..., None]).mean(),
         "Your function raised `RuntimeError: index -100 is out of bounds"),
        (lambda x, y: 2 * right_loss(x, y), "Your output is "),
    ],
)  # fmt: skip
def test_losses_of_another_kind(function: Any, message: str) -> None:
    assert grade_masked_loss(function).message.startswith(message)


def rate(
    step: int,
    max_steps: int,
    warmup_steps: int,
    peak: float,
    floor_ratio: float,
    wave: Callable[[float], float] = lambda p: (1 + math.cos(p * math.pi)) / 2,
) -> float:
    if step < warmup_steps:
        return (step + 1) / warmup_steps * peak
    progress = (step - warmup_steps) / (max_steps - warmup_steps)
    floor = peak * floor_ratio
    return floor + (peak - floor) * wave(progress)


def with_wave(wave: Callable[[float], float]) -> Callable[..., float]:
    return lambda s, n, w, peak, floor: rate(s, n, w, peak, floor, wave)


def from_step_0(s: int, n: int, w: int, peak: float, floor: float) -> float:
    return rate(s, n, w, peak, floor) if s < w else rate(s, n, 0, peak, floor)


def unhurried(s: int, n: int, w: int, peak: float, floor: float) -> float:
    return rate(s, n, w, peak, floor) if s < w else rate(s - w, n, 0, peak, floor)


WRONG_RATES = [
    (lambda s, n, w, peak, floor: s / w * peak if s < w else rate(s, n, w, peak, floor),
     "Your first step has rate 0"),
    (from_step_0, "Your cosine starts at step 0"),
    (unhurried, "Your cosine does not reach its end"),
    (lambda s, n, w, peak, floor: rate(s, n, w, peak, 0), "Your rate falls to 0"),
    (with_wave(lambda p: math.cos(p * math.pi)), "Your cosine is not halved"),
    (with_wave(lambda p: (1 + math.cos(p * 180)) / 2), "You gave `math.cos` degrees"),
    (with_wave(lambda p: (1 + math.cos(p)) / 2), "You forgot π"),
    (lambda s, n, w, peak, floor: rate(s, n, w, peak, 0) + (peak * floor if s >= w else 0),
     "You put the floor under the whole curve"),
    (lambda s, n, w, peak, floor: (
        rate(s, n, w, peak, 0) if s < w else max(peak * floor, rate(s, n, w, peak, 0))),
     "You cut the curve off at the floor"),
    (lambda s, n, w, peak, floor: rate(s, n, w, peak, floor / peak), "You took floor_ratio as"),
    (lambda s, n, w, peak, floor: rate(s, n, 0, peak, floor), "You forgot the warm-up"),
    (with_wave(lambda p: 1 - p), "Your rate falls along a straight line"),
]  # fmt: skip


def test_learning_rate() -> None:
    assert grade_learning_rate(rate).passed
    assert grade_learning_rate(lambda *a: torch.tensor(rate(*a))).passed
    told = []
    for function, sentence in WRONG_RATES:
        result = grade_learning_rate(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in LEARNING_RATE}


def test_rates_of_another_kind() -> None:
    nan = grade_learning_rate(lambda *arguments: math.nan)
    assert nan.message.startswith("Your function returned nan where 0.0003 is expected.")
    half = grade_learning_rate(lambda *a: rate(*a) / 2)
    assert half.message.startswith("Your function returned 0.00015 where 0.0003 is expected.")
    divided = grade_learning_rate(lambda s, n, w, peak, floor: s / w)
    assert "`ZeroDivisionError: " in divided.message and "warmup_steps = 0" in divided.message
