"""The graders of the exercises about NF4: the 16 levels, and a block of weights.

Chapter: sft/qlora.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, difference, grade, random_numbers
from posttrain.sft.exercises.lora_init import pairs_of
from posttrain.sft.quantization.codebooks import (
    NF4_TOP,
    nearest_codes,
    normal_float_codebook,
    uniform_codebook,
)


def _same(levels: Tensor, other: Tensor) -> bool:
    return difference(levels, other) is None


def _mirrored(levels: Tensor) -> bool:
    return _same(levels, -levels.flip(0))


def _even(levels: Tensor) -> bool:
    """Say whether the steps are equal on each side of zero; one step leads across."""
    gaps = levels.sort().values.diff()
    uneven = int((gaps.diff().abs() > 1e-3 * gaps.max()).sum())
    return bool(gaps.any()) and uneven <= 2


def _with_top(levels: Tensor) -> bool:
    """Say whether the levels are NF4's but for the probability where they end."""
    tops = [1 - 1 / n for n in (15, 16, 17, 30, 32, 64)] + [1 - 10.0**-n for n in range(2, 8)]
    for top in tops:
        above = torch.special.ndtri(torch.linspace(0.5, top, 9, dtype=torch.float64))
        below = -torch.special.ndtri(torch.linspace(top, 0.5, 8, dtype=torch.float64))
        if _same(levels, torch.cat((below, above[1:])) / above[-1]):
            return True
    return False


# Sentences, and the levels that each is about; the first that fits is told.
CODEBOOK: dict[str, Callable[[Tensor], bool]] = {
    "Your levels hold infinity or NaN: at probability 0 or 1 the quantile is infinite. End at "
    f"{NF4_TOP} and, below, at 1 minus that.": lambda levels: not levels.isfinite().all(),
    "Your levels are right, but not sorted: a code is a position in the sorted codebook, from "
    "-1 to 1.": lambda levels: (
        not (levels.diff() >= 0).all() and _same(levels.sort().values, normal_float_codebook())
    ),
    "You returned probabilities: the levels are the quantiles of the normal distribution at "
    "these probabilities.": lambda levels: bool((levels > 0).all()),
    "None of your levels is negative: put a minus before the quantiles of the lower "
    "side.": lambda levels: (
        bool((levels >= 0).all())
        and _same(levels.sort().values, normal_float_codebook().abs().sort().values)
    ),
    "Your levels are evenly spaced: NF4 spaces the probabilities evenly, and its levels are "
    "the quantiles of the normal distribution there.": _even,
    "Zero stands twice among your levels, which wastes a code: take 8 levels from the bottom "
    "to zero and 9 from zero to the top, and drop one of the two zeros.": lambda levels: (
        int((levels.abs() < 1e-6).sum()) == 2
    ),
    "You have 15 levels, and 4 bits name 16: your sides mirror each other around zero. Give "
    "the upper side one level more.": lambda levels: len(levels) == 15 and _mirrored(levels),
    "You dropped both zeros: keep one of them, as the 16th level.": lambda levels: (
        len(levels) == 15 and bool(levels.all())
    ),
    "Your grid is symmetric, and none of its levels is zero: padding needs an exact zero. Take "
    "8 levels from the bottom to zero, 9 from zero to the top, and drop one "
    "zero.": lambda levels: bool(levels.any()) and len(levels) == 16 and _mirrored(levels),
    "Your levels are not normalized: divide by the largest, so that they end at -1 and "
    "1.": lambda levels: _same(levels / levels.abs().max(), normal_float_codebook()),
    "Your levels are upside down: NF4 has one level more above zero than "
    "below.": lambda levels: _same(-levels.flip(0), normal_float_codebook()),
    "Your levels end at another probability: NF4's outermost quantiles are those of "
    f"{NF4_TOP} and of 1 minus that.": _with_top,
}


def grade_codebook(fn: Callable[[], Tensor]) -> Grade:
    """Grade NF4's 16 levels.

    Args:
        fn: Takes nothing; returns the levels, floating-point, shape (16,), sorted.

    Returns:
        The grade.

    Chapter: sft/qlora.
    """
    returned: list[object] = []

    def levels(*arguments: Any) -> object:
        returned.append(fn(*arguments))
        return returned[-1]

    def reference() -> Tensor:
        return normal_float_codebook()

    result = grade(fn, reference, (), ())  # whether it can be called
    if not result.passed:
        return result
    result = grade(levels, reference, (), [()])
    if result.passed:
        return Grade(True, "All 16 levels are NF4's.")
    got = returned[0] if returned else None
    if isinstance(got, Tensor) and got.is_floating_point() and got.dim() == 1 and len(got) > 8:
        for sentence, fits in CODEBOOK.items():
            if fits(got.detach().cpu()):
                return Grade(False, sentence)
    # The engine ends with the arguments, and here are none.
    return Grade(False, result.message.removesuffix(" This is for .").replace(" for .", "."))


_Pair = tuple[Any, Any]
_Quantize = Callable[[Tensor, Tensor], _Pair]


def _nearest(scaled: Tensor, codebook: Tensor) -> Tensor:
    return nearest_codes(scaled, codebook).long()


def _scaled_by(scale: Callable[[Tensor], Tensor]) -> _Quantize:
    """Quantize with another scale than the largest magnitude, and return that one."""
    return lambda block, codebook: (
        _nearest(block / scale(block), codebook),
        scale(block).item(),
    )


def _coded_by(codes: Callable[[Tensor, Tensor], Tensor]) -> _Quantize:
    """Quantize with the right scale, and other codes."""
    return lambda block, codebook: (
        codes(block / block.abs().max().clamp(min=1e-30), codebook),
        block.abs().max().item(),
    )


_quantize = _coded_by(_nearest)
_SWAPPED = "You returned the absmax first: return the codes, then the absmax."
_PER_TENSOR = (
    "Your absmax is the same for every block: each block has its own, else one outlier "
    "anywhere in the tensor spoils all blocks."
)
_WRONG: dict[str, list[_Quantize]] = {
    "You divided by the largest number, not by the largest magnitude: take the absolute "
    "values first, else a large negative number falls below the level -1.": [
        _scaled_by(lambda block: block.max()),
    ],
    "You did not scale the block: the levels lie from -1 to 1, so divide the block by its "
    "largest magnitude first.": [
        lambda block, codebook: (_nearest(block, codebook), 1.0),
        lambda block, codebook: (_nearest(block, codebook), block.abs().max().item()),
    ],
    "You scaled by a typical magnitude: larger numbers then lie beyond the levels -1 and 1. "
    "Divide by the largest magnitude.": [
        _scaled_by(lambda block: block.std()),
        _scaled_by(lambda block: block.abs().mean()),
        _scaled_by(lambda block: block.square().mean().sqrt()),
    ],
    "You took the smallest signed difference, which is that of the lowest or the highest level "
    "for every number: take the smallest absolute value.": [
        _coded_by(lambda x, levels: (x[:, None] - levels).argmin(dim=1)),
        _coded_by(lambda x, levels: (levels - x[:, None]).argmin(dim=1)),
    ],
    "Your codes are those of the bucket that a number falls into: compare with the levels on "
    "both sides and take the nearest.": [
        _coded_by(lambda x, levels: (x[:, None] > levels).sum(dim=1)),
        _coded_by(lambda x, levels: (x[:, None] >= levels).sum(dim=1)),
        _coded_by(lambda x, levels: (x[:, None] >= levels).sum(dim=1) - 1),
    ],
    "You spread the codes evenly: look for the nearest level of the codebook, whose levels "
    "need not be evenly spaced.": [
        _coded_by(lambda x, levels: ((x + 1) / 2 * (len(levels) - 1)).round().long()),
    ],
    "You returned levels: a code is the position of the level in the codebook, 0 to 15.": [
        _coded_by(lambda x, levels: levels[_nearest(x, levels)]),
    ],
    "You returned the numbers that come back: return the codes, 0 to 15, and the scale.": [
        lambda block, codebook: (
            codebook[_quantize(block, codebook)[0]] * block.abs().max(),
            block.abs().max().item(),
        ),
    ],
    "Your absmax keeps its sign: it is the largest magnitude, a positive number. A negative "
    "scale gives other codes than those of NF4.": [
        _scaled_by(lambda block: block[block.abs().argmax()]),
    ],
}
QUANTIZE_BLOCK = [Mistake(sentence, fn) for sentence, fns in _WRONG.items() for fn in fns]


def _part_of(quantize: _Quantize) -> Callable[[Tensor, Tensor, str], Any]:
    """Make a function that returns the codes or the absmax.

    A block of zeros has no right scale: any will do, if the codes then give zeros back.
    """

    def part_of(block: Tensor, codebook: Tensor, part: str) -> Any:
        codes, absmax = quantize(block, codebook)
        if part == "absmax":
            return absmax if block.any() or not _is_finite(absmax) else 0.0
        if not block.any() and _gives_zeros(codes, absmax, codebook):
            return _quantize(block, codebook)[0]
        return codes

    return part_of


def _is_finite(number: Any) -> bool:
    try:
        return math.isfinite(number)
    except (TypeError, ValueError, RuntimeError):
        return False


def _gives_zeros(codes: Any, absmax: Any, codebook: Tensor) -> bool:
    if not isinstance(codes, Tensor) or codes.is_floating_point() or codes.shape != (64,):
        return False
    in_range = bool(((codes >= 0) & (codes < len(codebook))).all())
    return in_range and _is_finite(absmax) and not (codebook[codes.long()] * absmax).any()


def _one_scale(pairs: list[_Pair]) -> bool:
    """Say whether blocks that differ got the same scale, other than 1."""
    scales = {float(absmax) if _is_finite(absmax) else None for _, absmax in pairs}
    return len(scales) == 1 and not scales & {1.0, None}


def grade_quantize_block(fn: Callable[[Tensor, Tensor], tuple[Tensor, float]]) -> Grade:
    """Grade the quantization of one block.

    Among the blocks is one of zeros, where any code and scale are right that give zeros back.

    Args:
        fn: Takes a block, float32, shape (64,), and a sorted codebook from -1 to 1, shape
            (16,); returns the codes, int64, shape (64,), and the block's absmax.

    Returns:
        The grade.

    Chapter: sft/qlora.
    """
    random = [random_numbers(64, seed=seed) for seed in range(4)]
    outlier = random[3].clone()
    outlier[5] = -30.0
    nf4, even = normal_float_codebook().clone(), uniform_codebook()
    blocks = [
        (0.05 * random[0].abs() - 0.1, nf4),  # hardly a positive number
        (3 * random[1], nf4),
        (random[2], even),
        (outlier, nf4),
        (torch.zeros(64), nf4),
    ]

    def reference(block: Tensor, codebook: Tensor) -> _Pair:
        return _quantize(block, codebook)

    def reference_part(block: Tensor, codebook: Tensor, part: str) -> Any:
        return _part_of(_quantize)(block, codebook, part)

    pairs = pairs_of(fn, reference, blocks, ("codes", "absmax"))
    if isinstance(pairs, Grade):
        return pairs
    if all(
        _is_finite(first) and getattr(second, "shape", 0) == (64,) for first, second in pairs
    ):
        return Grade(False, _SWAPPED)
    if _one_scale(pairs):
        return Grade(False, _PER_TENSOR)
    cases = [(*block, part) for block in blocks for part in ("codes", "absmax")]
    known = [Mistake(m.sentence, _part_of(m.function)) for m in QUANTIZE_BLOCK]
    result = grade(_part_of(fn), reference_part, known, cases)
    if not result.passed:
        return result
    return Grade(True, f"Your function is right on all {len(blocks)} blocks.")
