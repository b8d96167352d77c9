"""The graders of the exercises about training: the loss and the learning rate.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.core.training.optimization import TrainingConfig, learning_rate_at
from posttrain.pretraining.model.gpt import next_token_loss


def _token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the loss of each position, 0 where the label is -100; shape (B, T)."""
    return F.cross_entropy(logits.transpose(1, 2), labels, reduction="none")


def _mean(losses: Tensor, labels: Tensor) -> Tensor:
    return losses.sum() / (labels != -100).sum()


MASKED_LOSS = [
    Mistake(
        "You averaged over the padding too: divide by the number of labels that are not -100.",
        lambda logits, labels: _token_losses(logits, labels).mean(),
    ),
    Mistake(
        "You averaged each row, then the rows: a token in a short row counts for more than one "
        "in a long row. Divide the sum over all rows by the number of labels in all rows.",
        lambda logits, labels: (
            _token_losses(logits, labels).sum(dim=1) / (labels != -100).sum(dim=1)
        ).mean(),
    ),
    Mistake(
        "You returned the sum: divide it by the number of labels that are not -100.",
        lambda logits, labels: _token_losses(logits, labels).sum(),
    ),
    Mistake(
        "Your loss is in bits: take the natural logarithm, not the one to base 2.",
        lambda logits, labels: next_token_loss(logits, labels) / math.log(2),
    ),
    Mistake(
        "You shifted the labels: they are shifted already, so position t of the logits is "
        "scored against position t of the labels.",
        lambda logits, labels: next_token_loss(logits[:, :-1], labels[:, 1:]),
    ),
    Mistake(
        "You scored the masked positions as if their label were token 0: leave them out.",
        lambda logits, labels: next_token_loss(logits, labels.clamp(min=0)),
    ),
    Mistake(
        "Your loss has the wrong sign: it is the negative log-likelihood.",
        lambda logits, labels: -next_token_loss(logits, labels),
    ),
    Mistake(
        "You took the softmax twice: `cross_entropy` takes logits.",
        lambda logits, labels: next_token_loss(logits.softmax(dim=-1), labels),
    ),
    Mistake(
        "Your loss is infinite where a label is unlikely, since its probability rounds to 0: "
        "take `log_softmax` of the logits, not the log of the softmax.",
        lambda logits, labels: _mean(
            F.nll_loss(logits.softmax(dim=-1).log().mT, labels, reduction="none"), labels
        ),
    ),
]


def grade_masked_loss(fn: Callable[[Tensor, Tensor], Tensor]) -> Grade:
    """Grade the mean loss of the labels that are not masked.

    Args:
        fn: Takes logits, shape (B, T, V), and labels, shape (B, T), already shifted and -100
            where nothing is to be learned; returns the mean loss in nats, a scalar tensor.

    Returns:
        The grade.

    Chapter: pretraining/training_dynamics.
    """
    ragged = torch.tensor([[3, 1, -100, -100, -100], [0, 6, 2, 5, -100]])
    full = torch.tensor([[4, 0, 2], [1, 1, 3]])
    gaps = torch.tensor([[-100, 2, -100, 7, 1, -100], [-100, -100, 8, 8, 0, 3]])
    cases = [
        (random_numbers(2, 5, 7, seed=1), ragged),
        (random_numbers(2, 3, 5, seed=2), full),
        (2 * random_numbers(2, 6, 9, seed=3), gaps),
        (300 * random_numbers(2, 5, 7, seed=4), ragged),
    ]

    def reference(logits: Tensor, labels: Tensor) -> Tensor:
        return next_token_loss(logits, labels)

    return grade(fn, reference, MASKED_LOSS, cases)


def _learning_rate(
    step: int, max_steps: int, warmup_steps: int, peak: float, floor_ratio: float
) -> float:
    config = TrainingConfig(
        max_steps, peak, warmup_steps=warmup_steps, min_lr_ratio=floor_ratio
    )
    return learning_rate_at(step, config)


def _then(shape: Callable[[float, float], float]) -> Callable[..., float]:
    """Make a schedule: the right warm-up, then ``peak * shape(progress, floor_ratio)``."""

    def rate(
        step: int, max_steps: int, warmup_steps: int, peak: float, floor_ratio: float
    ) -> float:
        if step < warmup_steps:
            return peak * (step + 1) / warmup_steps
        return peak * shape((step - warmup_steps) / (max_steps - warmup_steps), floor_ratio)

    return rate


def _half_wave(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _between(floor: float, share: float) -> float:
    return floor + (1 - floor) * share


LEARNING_RATE = [
    Mistake(
        "Your first step has rate 0 and changes nothing: step 0 is the first of the warm-up, "
        "so it has the rate peak / warmup_steps.",
        lambda s, n, w, peak, floor: (
            peak * s / w if s < w else _learning_rate(s, n, w, peak, floor)
        ),
    ),
    Mistake(
        "Your cosine starts at step 0: it starts where the warm-up ends, so measure progress "
        "from there.",
        lambda s, n, w, peak, floor: (
            peak * ((s + 1) / w if s < w else _between(floor, _half_wave(s / n)))
        ),
    ),
    Mistake(
        "Your cosine does not reach its end: after the warm-up only max_steps - warmup_steps "
        "are left to divide by.",
        lambda s, n, w, peak, floor: (
            peak * ((s + 1) / w if s < w else _between(floor, _half_wave((s - w) / n)))
        ),
    ),
    Mistake(
        "Your rate falls to 0: it should fall to floor_ratio times the peak.",
        _then(lambda progress, floor: _half_wave(progress)),
    ),
    Mistake(
        "Your cosine is not halved: it runs from 1 to -1, so add 1 and divide by 2.",
        _then(lambda progress, floor: _between(floor, math.cos(math.pi * progress))),
    ),
    Mistake(
        "You gave `math.cos` degrees: half a wave is π, not 180.",
        _then(lambda progress, floor: _between(floor, 0.5 * (1 + math.cos(180 * progress)))),
    ),
    Mistake(
        "You forgot π: half a wave of the cosine is π long.",
        _then(lambda progress, floor: _between(floor, 0.5 * (1 + math.cos(progress)))),
    ),
    Mistake(
        "You put the floor under the whole curve, which now starts above the peak: squeeze the "
        "cosine into what is left, 1 - floor_ratio.",
        _then(lambda progress, floor: floor + _half_wave(progress)),
    ),
    Mistake(
        "You cut the curve off at the floor: squeeze the cosine between the floor and the "
        "peak, so that it arrives there at the last step.",
        _then(lambda progress, floor: max(floor, _half_wave(progress))),
    ),
    Mistake(
        "You took floor_ratio as a rate: it is a share of the peak.",
        lambda s, n, w, peak, floor: (
            peak * (s + 1) / w
            if s < w
            else floor + (peak - floor) * _half_wave((s - w) / (n - w))
        ),
    ),
    Mistake(
        "You forgot the warm-up: over the first warmup_steps the rate rises to its peak.",
        lambda s, n, w, peak, floor: peak * _between(floor, _half_wave(s / n)),
    ),
    Mistake(
        "Your rate falls along a straight line: let it follow half a cosine.",
        _then(lambda progress, floor: _between(floor, 1 - progress)),
    ),
]


def grade_learning_rate(fn: Callable[[int, int, int, float, float], float]) -> Grade:
    """Grade a linear warm-up followed by half a cosine.

    Args:
        fn: Takes the step, from 0, ``max_steps``, ``warmup_steps``, the peak rate and
            ``floor_ratio``, the final rate as a share of the peak; returns the step's rate.

    Returns:
        The grade.

    Chapter: pretraining/training_dynamics.
    """
    cases = [
        (step, max_steps, warmup_steps, peak, floor_ratio)
        for max_steps, warmup_steps, peak, floor_ratio in (
            (100, 10, 3e-3, 0.1),
            (50, 0, 1e-2, 0.2),
            (40, 20, 0.5, 0.05),
        )
        for step in sorted({0, 1, warmup_steps, warmup_steps + 1, 30, max_steps - 1, max_steps})
    ]
    return grade(fn, _learning_rate, LEARNING_RATE, cases)
