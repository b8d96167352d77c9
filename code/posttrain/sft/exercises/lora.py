"""The graders of the exercises about LoRA: the forward pass and the merge.

Chapter: sft/lora.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers

_Cases = Sequence[tuple[Any, ...]]


def _square_first(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    mistakes: Sequence[Mistake],
    square: _Cases,
    others: _Cases,
    later: Sequence[Mistake] = (),
) -> Grade:
    """Grade on square matrices first: there no wrong product fails on its shapes.

    ``later`` holds the mistakes that square matrices cannot show.
    """
    result = grade(function, reference, mistakes, square)
    if result.passed:
        result = grade(function, reference, later, others)
    if not result.passed:
        return result
    return Grade(True, f"Your function is right on all {len(square) + len(others)} inputs.")


def _update(x: Tensor, A: Tensor, B: Tensor) -> Tensor:
    return x @ A.T @ B.T


def _lora(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    return x @ W.T + scaling * _update(x, A, B)


_PRODUCT = "You multiplied the update into the output: add it to what the frozen weight gives."
_TRANSPOSE = (
    "You multiplied by W as it is stored: its shape is (out, in) and a row of x is one token, "
    "so the frozen output is x @ W.T, as in `nn.Linear`."
)
_COLUMN = (
    "You multiplied x from the left, as the paper does with a column: here each row of x is "
    "one token, so multiply by the transposed matrices from the right."
)
_FEATURES = (
    "You divided α by a number of features: r is the short side of A and of B, and comes as an "
    "argument."
)
LORA_FORWARD = [
    Mistake(
        "You scaled the update by α, not by α / r: divide `lora_alpha` by `r`.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha),
    ),
    Mistake(
        "You forgot the scale: multiply the update by α / r.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, 1.0),
    ),
    Mistake(
        "Your scale is upside down: it is α / r, not r / α.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, r / alpha),
    ),
    Mistake(
        "You divided α by √r: that is rsLoRA. LoRA divides by r.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha / r**0.5),
    ),
    Mistake(
        "You divided with `//`, which drops the fraction: divide `lora_alpha` with `/`.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha // r),
    ),
    Mistake(
        "You divided by r and left α out: the scale is α / r.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, 1 / r),
    ),
    Mistake(
        "You multiplied α by r: the scale is α / r.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha * r),
    ),
    Mistake(
        "You scaled twice: multiply the update by α / r once, not at A and at B.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, (alpha / r) ** 2),
    ),
    Mistake(
        "You scaled the frozen output too: α / r belongs to the update alone.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, 1.0) * (alpha / r),
    ),
    Mistake(
        "You returned the update alone: the frozen weight's output, x @ W.T, is missing.",
        lambda x, W, A, B, r, alpha: alpha / r * _update(x, A, B),
    ),
    Mistake(
        "You returned the frozen output alone: the update is missing.",
        lambda x, W, A, B, r, alpha: x @ W.T,
    ),
    Mistake(
        "You subtracted the update: add it.",
        lambda x, W, A, B, r, alpha: _lora(x, W, A, B, -alpha / r),
    ),
    Mistake(
        "You gave A the frozen weight's output: A reads x, as W does.",
        lambda x, W, A, B, r, alpha: _lora(x @ W.T, torch.eye(len(W)), A, B, alpha / r),
    ),
    Mistake(_PRODUCT, lambda x, W, A, B, r, alpha: x @ W.T * (alpha / r * _update(x, A, B))),
    Mistake(_PRODUCT, lambda x, W, A, B, r, alpha: x @ W.T * _update(x, A, B)),
    Mistake(
        _PRODUCT, lambda x, W, A, B, r, alpha: x @ W.T * (1 + alpha / r * _update(x, A, B))
    ),
    Mistake(
        "You swapped A and B: A comes first and brings x down to r channels, then B brings "
        "them up again.",
        lambda x, W, A, B, r, alpha: x @ W.T + alpha / r * (x @ B.T @ A.T),
    ),
    Mistake(
        "You multiplied by A and B as they are stored: their shapes are (r, in) and (out, r), "
        "so rows of x take x @ A.T @ B.T.",
        lambda x, W, A, B, r, alpha: x @ W.T + alpha / r * (x @ A @ B),
    ),
    Mistake(
        "Your update is transposed: B A has the shape of W, (out, in), so like W it must be "
        "transposed to multiply a row of x from the right.",
        lambda x, W, A, B, r, alpha: x @ W.T + alpha / r * (x @ B @ A),
    ),
    Mistake(
        _TRANSPOSE, lambda x, W, A, B, r, alpha: x @ W + alpha / r * _update(x, A, B)
    ),
    Mistake(_TRANSPOSE, lambda x, W, A, B, r, alpha: x @ W + alpha / r * (x @ A @ B)),
    Mistake(_TRANSPOSE, lambda x, W, A, B, r, alpha: x @ (W + alpha / r * B @ A)),
    Mistake(_COLUMN, lambda x, W, A, B, r, alpha: W @ x + alpha / r * (B @ A @ x)),
    Mistake(_COLUMN, lambda x, W, A, B, r, alpha: (W + alpha / r * B @ A) @ x.mT),
]  # fmt: skip
NOT_THE_RANK = [
    Mistake(_FEATURES, lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha / A.shape[1])),
    Mistake(_FEATURES, lambda x, W, A, B, r, alpha: _lora(x, W, A, B, alpha / B.shape[0])),
]  # fmt: skip


def _adapter(out: int, r: int, inputs: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Draw W, A and B."""
    return (
        random_numbers(out, inputs, seed=seed),
        random_numbers(r, inputs, seed=seed + 1),
        random_numbers(out, r, seed=seed + 2),
    )


def grade_lora_forward(
    fn: Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor],
) -> Grade:
    """Grade the forward pass of a linear layer with an adapter.

    Args:
        fn: Takes ``x``, shape (..., in), the frozen ``W``, shape (out, in), ``A``, shape
            (r, in), ``B``, shape (out, r), ``r`` and ``lora_alpha``; returns the output, shape
            (..., out).

    Returns:
        The grade.

    Chapter: sft/lora.
    """

    def reference(
        x: Tensor, W: Tensor, A: Tensor, B: Tensor, r: int, lora_alpha: float
    ) -> Tensor:
        return _lora(x, W, A, B, lora_alpha / r)

    def case(*x: int, out: int, r: int, alpha: float, seed: int) -> tuple[Any, ...]:
        inputs = random_numbers(*x, seed=seed)
        return (inputs, *_adapter(out, r, x[-1], seed + 1), r, alpha)

    square = [
        case(4, 4, out=4, r=4, alpha=16, seed=1),
        case(3, 3, out=3, r=3, alpha=1, seed=2),
        case(2, 2, out=2, r=2, alpha=6, seed=3),
    ]
    x, W, A, B, r, alpha = case(4, 6, out=9, r=4, alpha=16, seed=4)
    others = [
        case(5, 6, out=8, r=2, alpha=16, seed=5),
        case(2, 3, 6, out=4, r=3, alpha=1, seed=6),
        case(1, 10, out=3, r=1, alpha=4, seed=7),
        (x, W, A, torch.zeros_like(B), r, alpha),  # an adapter that was not trained yet
    ]
    return _square_first(fn, reference, LORA_FORWARD, square, others, NOT_THE_RANK)


_TWICE = (
    "You merged twice: where `merged` is true, W holds the update already, so return W as it "
    "is."
)


def _merges(
    sentence: str, add: Callable[[Tensor, Tensor, Tensor, float], Tensor]
) -> list[Mistake]:
    """Make two mistakes: with a look at ``merged``, and without one."""
    return [
        Mistake(sentence, lambda W, A, B, s, merged: W if merged else add(W, A, B, s)),
        Mistake(sentence, lambda W, A, B, s, merged: add(W, A, B, s)),
    ]


_TURNED = "Your update is transposed: it is B A, shape (out, in) as W has it."
MERGE = [
    Mistake(_TWICE, lambda W, A, B, s, merged: W + s * B @ A),
    Mistake(
        "You look at `merged` the wrong way round: add the update where it is false.",
        lambda W, A, B, s, merged: W + s * B @ A if merged else W,
    ),
    Mistake(
        "You took the update out again where `merged` is true: that is unmerging. A second "
        "merge leaves W as it is.",
        lambda W, A, B, s, merged: W - s * B @ A if merged else W + s * B @ A,
    ),
    Mistake(
        "You never add the update: where `merged` is false, return W plus the scaled B A.",
        lambda W, A, B, s, merged: W,
    ),
    *_merges(
        "You forgot the scale: the update is `scaling` times B A.",
        lambda W, A, B, s: W + B @ A,
    ),
    *_merges(
        "`scaling` is α / r already: do not divide it by r again.",
        lambda W, A, B, s: W + s / len(A) * B @ A,
    ),
    *_merges(
        "You scaled twice: multiply B A by `scaling` once.",
        lambda W, A, B, s: W + s**2 * B @ A,
    ),
    *_merges(_TURNED, lambda W, A, B, s: W + s * (B @ A).T),
    *_merges("You multiplied A B: the update is B A.", lambda W, A, B, s: W + s * A @ B),
    *_merges(
        "You returned the update alone: add it to W.",
        lambda W, A, B, s: s * B @ A,
    ),
    *_merges(
        "You subtracted the update: that is how to unmerge. Add it.",
        lambda W, A, B, s: W - s * B @ A,
    ),
    *_merges(
        "You scaled W too: `scaling` belongs to the update alone.",
        lambda W, A, B, s: s * (W + B @ A),
    ),
]  # fmt: skip


def grade_merge(fn: Callable[[Tensor, Tensor, Tensor, float, bool], Tensor]) -> Grade:
    """Grade a merge that may be called twice.

    Args:
        fn: Takes the weight ``W``, shape (out, in), ``A``, shape (r, in), ``B``, shape
            (out, r), the scale of the update and whether ``W`` holds the update already;
            returns the weight after a call to merge, shape (out, in).

    Returns:
        The grade.

    Chapter: sft/lora.
    """

    def reference(W: Tensor, A: Tensor, B: Tensor, scaling: float, merged: bool) -> Tensor:
        return W if merged else W + scaling * B @ A

    def calls(out: int, r: int, inputs: int, scaling: float, seed: int) -> _Cases:
        W, A, B = _adapter(out, r, inputs, seed)
        return [(W, A, B, scaling, False), (W + scaling * B @ A, A, B, scaling, True)]

    square = [*calls(3, 3, 3, 2.0, seed=1), *calls(4, 4, 4, 0.5, seed=2)]
    others = [*calls(5, 2, 7, 4.0, seed=3), *calls(6, 1, 4, 0.25, seed=4)]
    return _square_first(fn, reference, MERGE, square, others)
