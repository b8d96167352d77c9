"""The grader of the exercise about LoRA's initial values, and functions that return a pair.

Chapter: sft/lora.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.grading import Grade, difference, grade
from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear


def pairs_of(
    fn: Callable[..., Any],
    reference: Callable[..., Any],
    cases: Sequence[tuple[Any, ...]],
    names: tuple[str, str],
) -> list[tuple[Any, Any]] | Grade:
    """Call a function that is to return two things.

    Args:
        fn: What the reader wrote.
        reference: The right answer; its parameters' names appear in messages.
        cases: Arguments of each call.
        names: What the two things are called.

    Returns:
        The pair of each call, or a grade that says why there is none.

    Chapter: sft/lora.
    """
    pairs: list[Any] = []

    def call(*arguments: Any) -> int:
        pairs.append(fn(*arguments))
        return 0

    @functools.wraps(reference)  # for the names of its parameters
    def nothing(*arguments: Any) -> int:
        return 0

    for function, inputs in ((fn, ()), (call, cases)):
        result = grade(function, nothing, (), inputs)
        if not result.passed:
            return result
    for pair in pairs:
        if pair is None:
            return Grade(False, str(difference(None, 0)))
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            what = f"`{type(pair).__name__}`"
            if isinstance(pair, tuple | list):
                what += f" of length {len(pair)}"
            wanted = f"a pair is expected: ({', '.join(names)})"
            return Grade(False, f"Your function returned {what} where {wanted}.")
    return [(pair[0], pair[1]) for pair in pairs]


def _lora_init(in_features: int, out_features: int, r: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    layer = LoRALinear(nn.Linear(in_features, out_features), LoRAConfig(r=r), generator)
    return layer.lora_A.detach(), layer.lora_B.detach()


LORA_INIT = {
    "order": "You returned B first: return A, shape (r, in), then B, shape (out, r).",
    "transposed": "Both matrices are transposed: like a weight of `nn.Linear`, A has shape "
    "(r, in) and B has shape (out, r).",
    "features": "You swapped `in_features` and `out_features`: A takes in what the layer takes "
    "in, so its shape is (r, in), and B's is (out, r).",
    "empty": "Your matrices hold NaN or infinity: `torch.empty` leaves in memory what was "
    "there, so fill all of it.",
    "both zero": "A and B are both zero, and will stay zero: the gradient of A is multiplied "
    "by B, and that of B by A. Draw A at random.",
    "both random": "A and B are both random: their product is not zero, so the first step "
    "starts from a damaged model. Let B be zero.",
    "A zero": "A is zero and B is random. Here too the first step starts from the model as it "
    "was, and this can train; but the paper and PEFT draw A and set B to zero, so do as they "
    "do.",
    "rank": "Some rows of A are equal: they get equal gradients and stay equal, so the rank of "
    "the update stays below r. Draw every number of A by itself.",
    "positive": "No number of A is negative, so its rows all point in much the same direction: "
    "draw around zero, with `torch.randn` for example.",
    "not seeded": "Two calls with the same seed gave two different A: draw from a "
    "`torch.Generator` with that seed.",
    "seed ignored": "Two different seeds gave the same A: draw from a `torch.Generator` with "
    "the seed that was passed.",
}  # fmt: skip
_INIT_CASES = [(6, 10, 3, 0), (6, 10, 3, 0), (6, 10, 3, 1), (32, 24, 8, 7), (5, 4, 1, 2)]


def grade_lora_init(fn: Callable[[int, int, int, int], tuple[Tensor, Tensor]]) -> Grade:
    """Grade the initial values of an adapter.

    Any distribution around zero is accepted for A.

    Args:
        fn: Takes ``in_features``, ``out_features``, ``r`` and a seed; returns ``A``, shape
            (r, in), and ``B``, shape (out, r), both floating-point.

    Returns:
        The grade.

    Chapter: sft/lora.
    """
    with torch.random.fork_rng(devices=[]):  # the reader may call torch.manual_seed
        pairs = pairs_of(fn, _lora_init, _INIT_CASES, ("A", "B"))
    if isinstance(pairs, Grade):
        return pairs
    for pair, (inputs, outputs, r, _) in zip(pairs, _INIT_CASES, strict=True):
        problem = _wrong_matrices(pair, inputs, outputs, r)
        if problem is not None:
            return Grade(False, problem)
    wrong = _wrong_values([(A.detach().double(), B.detach().double()) for A, B in pairs])
    if wrong is not None:
        return Grade(False, LORA_INIT[wrong])
    return Grade(True, f"Your function is right on all {len(pairs)} inputs.")


def _wrong_matrices(pair: tuple[Any, Any], inputs: int, outputs: int, r: int) -> str | None:
    """Say what is wrong with the kinds and shapes of two matrices."""
    for name, matrix in zip("AB", pair, strict=True):
        if not isinstance(matrix, Tensor):
            return f"{name} is `{type(matrix).__name__}` where `torch.Tensor` is expected."
        if not matrix.is_floating_point():
            return f"{name} is `{matrix.dtype}` where `torch.float32` is expected."
    shapes = (tuple(pair[0].shape), tuple(pair[1].shape))
    known = {
        ((outputs, r), (r, inputs)): "order",
        ((inputs, r), (r, outputs)): "transposed",
        ((r, outputs), (inputs, r)): "features",
    }
    if shapes in known:
        return LORA_INIT[known[shapes]]
    for name, got, wanted in zip("AB", shapes, ((r, inputs), (outputs, r)), strict=True):
        if got != wanted:
            letters = "(r, in)" if name == "A" else "(out, r)"
            return f"{name} has shape {got} where {letters} = {wanted} is expected."
    return None


def _wrong_values(pairs: list[tuple[Tensor, Tensor]]) -> str | None:
    """Name what is wrong with the numbers, by its key in ``LORA_INIT``."""
    if not all(matrix.isfinite().all() for pair in pairs for matrix in pair):
        return "empty"
    A_drawn, B_drawn = (any(pair[i].any() for pair in pairs) for i in (0, 1))
    if B_drawn:
        return "both random" if A_drawn else "A zero"
    if not all(A.any() for A, _ in pairs):
        return "both zero"
    (first, _), (again, _), (other, _), (large, _), _ = pairs
    if not torch.equal(first, again):
        return "not seeded"
    if any(len(A.unique(dim=0)) < len(A) for A, _ in pairs):
        return "rank"
    if (large >= 0).all():
        return "positive"
    return "seed ignored" if torch.equal(first, other) else None
