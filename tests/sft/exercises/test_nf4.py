"""posttrain.sft.exercises.nf4: right answers, every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

import math
import statistics
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.sft.exercises.nf4 import (
    CODEBOOK,
    QUANTIZE_BLOCK,
    grade_codebook,
    grade_quantize_block,
)
from posttrain.sft.quantization.codebooks import normal_float_codebook, uniform_codebook
from posttrain.sft.quantization.nf4 import quantize_nf4

TOP = 0.9677083


def quantile(p: float) -> float:
    if p in (0, 1):
        return math.copysign(math.inf, p - 0.5)
    return statistics.NormalDist().inv_cdf(p)


def quantiles(*probabilities: float) -> list[float]:
    return [quantile(p) for p in probabilities]


def spaced(start: float, end: float, count: int) -> list[float]:
    return [start + (end - start) * i / (count - 1) for i in range(count)]


def two_sided(top: float = TOP, below: int = 8, above: int = 9, zeros: int = 1) -> list[float]:
    low = quantiles(*spaced(1 - top, 0.5, below))
    high = quantiles(*spaced(0.5, top, above))
    levels = low + high[2 - zeros :]
    return [level / abs(levels[-1]) for level in levels]


def mirrored(top: float) -> list[float]:
    levels = quantiles(*spaced(1 - top, top, 16))
    return [level / levels[-1] for level in levels]


RAW = [level * quantile(TOP) for level in two_sided()]
PROBABILITIES = spaced(1 - TOP, 0.5, 8) + spaced(0.5, TOP, 9)[1:]

WRONG_CODEBOOKS = [
    (two_sided(1.0), "Your levels hold infinity or NaN"),
    (quantiles(*spaced(0, 1, 16)), "Your levels hold infinity or NaN"),
    (two_sided()[::-1], "Your levels are right, but not sorted"),
    (two_sided()[8:] + two_sided()[:8], "Your levels are right, but not sorted"),
    (two_sided(above=8, zeros=2), "Zero stands twice among your levels"),
    (two_sided(zeros=2), "Zero stands twice among your levels"),
    (two_sided(above=8), "You have 15 levels, and 4 bits name 16"),
    ([level for level in two_sided() if level], "You dropped both zeros"),
    (sorted(map(abs, two_sided()[:7])) + two_sided()[7:], "None of your levels is negative"),
    ([*map(abs, two_sided()[:7]), *two_sided()[7:]], "None of your levels is negative"),
    (PROBABILITIES, "You returned probabilities"),
    ([2 * p - 1 for p in PROBABILITIES], "Your levels are evenly spaced"),
    (spaced(-1, 1, 16), "Your levels are evenly spaced"),
    ([i / 8 for i in range(-8, 8)], "Your levels are evenly spaced"),
    (uniform_codebook().tolist(), "Your levels are evenly spaced"),
    (mirrored(TOP), "Your grid is symmetric, and none of its levels is zero"),
    (mirrored(31 / 32), "Your grid is symmetric, and none of its levels is zero"),
    ([level * quantile(TOP) for level in mirrored(TOP)], "Your grid is symmetric"),
    (RAW, "Your levels are not normalized"),
    (two_sided(below=9, above=8), "Your levels are upside down"),
    (two_sided(31 / 32), "Your levels end at another probability"),
    (two_sided(29 / 30), "Your levels end at another probability"),
    (two_sided(0.999), "Your levels end at another probability"),
]


def test_codebook() -> None:
    result = grade_codebook(lambda: torch.tensor(two_sided(), dtype=torch.float64))
    assert result.passed and result.message == "All 16 levels are NF4's."
    assert grade_codebook(normal_float_codebook).passed
    assert grade_codebook(lambda: torch.tensor(two_sided(1 - (1 / 32 + 1 / 30) / 2))).passed
    told = []
    for levels, sentence in WRONG_CODEBOOKS:
        result = grade_codebook(lambda levels=levels: torch.tensor(levels))
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == set(CODEBOOK)


@pytest.mark.parametrize(
    ("levels", "message"),
    [
        (torch.tensor(two_sided(0.9)), "At index [1] your output is -0.78"),
        (
            torch.zeros(16),
            "At index [0] your output is 0 where -1 is expected; 15 of 16 values",
        ),
        (torch.tensor(two_sided(above=10)), "Your output has shape (17,) where (16,) is"),
        (torch.tensor([0.0, 1.0]), "Your output has shape (2,) where (16,) is expected."),
        (torch.tensor(two_sided())[None], "Your output has shape (1, 16) where (16,) is"),
        (torch.arange(16), "Your output is `torch.int64` where `torch.float32` is expected."),
        (two_sided(), "Your function returned `list` where `torch.Tensor` is expected."),
    ],
)
def test_other_codebooks(levels: Any, message: str) -> None:
    result = grade_codebook(lambda: levels)
    assert not result.passed and result.message.startswith(message), result.message
    assert "This is for" not in result.message


def test_errors_in_a_codebook() -> None:
    result = grade_codebook(lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert result.message == "Your function raised `ZeroDivisionError: division by zero`."


def by_argmin(
    block: Tensor,
    codebook: Tensor,
    scale: Callable[[Tensor], Tensor] = lambda block: block.abs().max(),
) -> tuple[Tensor, Tensor]:
    """As most would write it: a block of zeros becomes NaN, and the codes 0."""
    absmax = scale(block)
    return (block[:, None] / absmax - codebook[None, :]).abs().argmin(dim=1), absmax


def by_halves(block: Tensor, codebook: Tensor) -> tuple[Tensor, float]:
    absmax = float(block.abs().max()) or 1.0
    halves = (codebook[1:] + codebook[:-1]) / 2
    return torch.searchsorted(halves, block / absmax), absmax


def by_package(block: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    if not torch.equal(codebook, normal_float_codebook()):
        return by_argmin(block, codebook)
    quantized = quantize_nf4(block)
    assert isinstance(quantized.absmax, Tensor)
    return torch.stack((quantized.codes >> 4, quantized.codes & 15), dim=1).view(-1), (
        quantized.absmax
    )


def bucket(block: Tensor, codebook: Tensor, right: bool, back: int) -> tuple[Tensor, Tensor]:
    absmax = block.abs().max()
    scaled = block / absmax if absmax else block
    return torch.bucketize(scaled, codebook, right=right) - back, absmax


def signed(block: Tensor, codebook: Tensor, sign: int) -> tuple[Tensor, Tensor]:
    absmax = block.abs().max()
    scaled = block / absmax if absmax else block
    return (sign * (scaled[:, None] - codebook)).argmin(dim=1), absmax


def with_scale(scale: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    return lambda block, codebook: by_argmin(block, codebook, scale)


def evenly(block: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    absmax = block.abs().max()
    return ((block / absmax.clamp(min=1e-9)) * 7.5 + 7.5).round().int(), absmax


def recovered(block: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    codes, absmax = by_argmin(block, codebook)
    return codebook[codes] * absmax, absmax


def levels_of(block: Tensor, codebook: Tensor) -> tuple[Tensor, float]:
    codes, absmax = by_halves(block, codebook)
    return codebook[codes], absmax


WRONG_BLOCKS = [
    (with_scale(torch.max), "You divided by the largest number, not by the largest magnitude"),
    (with_scale(lambda block: torch.tensor(1.0)), "You did not scale the block"),
    (
        lambda b, c: (by_argmin(b, c, lambda b: torch.ones(()))[0], b.abs().max()),
        "You did not s",
    ),
    (with_scale(torch.std), "You scaled by a typical magnitude"),
    (with_scale(lambda block: block.abs().mean()), "You scaled by a typical magnitude"),
    (with_scale(lambda block: block.norm() / 8), "You scaled by a typical magnitude"),
    (lambda b, c: signed(b, c, 1), "You took the smallest signed difference"),
    (lambda b, c: signed(b, c, -1), "You took the smallest signed difference"),
    (lambda b, c: bucket(b, c, False, 0), "Your codes are those of the bucket"),
    (lambda b, c: bucket(b, c, True, 0), "Your codes are those of the bucket"),
    (lambda b, c: bucket(b, c, True, 1), "Your codes are those of the bucket"),
    (evenly, "You spread the codes evenly"),
    (levels_of, "You returned levels"),
    (recovered, "You returned the numbers that come back"),
    (with_scale(lambda block: block[block.abs().argmax()]), "Your absmax keeps its sign"),
]


@pytest.mark.parametrize("function", [by_argmin, by_halves, by_package])
def test_right_blocks(function: Any) -> None:
    result = grade_quantize_block(function)
    assert result.passed and result.message == "Your function is right on all 5 blocks."


def test_wrong_blocks_are_named() -> None:
    told = []
    for function, sentence in WRONG_BLOCKS:
        result = grade_quantize_block(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in QUANTIZE_BLOCK}
    tensor_wide = grade_quantize_block(with_scale(lambda block: torch.tensor(31.5)))
    assert tensor_wide.message.startswith("Your absmax is the same for every block")
    swapped = grade_quantize_block(lambda b, c: by_argmin(b, c)[::-1])  # type: ignore[arg-type, return-value]
    assert (
        swapped.message == "You returned the absmax first: return the codes, then the absmax."
    )


def nan_codes(block: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    absmax = block.abs().max()
    return torch.bucketize(block / absmax, (codebook[1:] + codebook[:-1]) / 2) + (
        absmax == 0
    ).long(), absmax


@pytest.mark.parametrize(
    ("function", "start", "end"),
    [
        (lambda b, c: (15 - by_argmin(b, c)[0], b.abs().max()), "At index [", "part = codes."),
        (lambda b, c: (by_argmin(b, c)[0], 1 / b.abs().max()), "Your function returned ",
         "part = absmax."),
        (lambda b, c: (by_argmin(b, c)[0], b.abs()), "Your function returned `Tensor` where `f",
         "part = absmax."),
        (lambda b, c: by_argmin(b, c)[0], "Your function returned `Tensor` where a pair is exp",
         "(codes, absmax)."),
        (lambda b, c: (by_argmin(b, c)[0].float(), b.abs().max()), "Your output is `torch.flo",
         "part = codes."),
        (lambda b, c: (by_argmin(b, c)[0][None], b.abs().max()), "Your output has shape (1, 6",
         "codebook of shape (16,), part = codes."),
        (lambda b, c: (by_argmin(b, c)[0], None), "Your function returned `None`: ", "absmax."),
        (nan_codes, "At index [0] your output is 16 where 7 is expected; 64 of 64", "= codes."),
        (lambda b, c: (by_argmin(b * (1 / b.abs().max().item()), c)[0], b.abs().max()),
         "Your function raised `ZeroDivisionError", "codebook of shape (16,)."),
    ],
)  # fmt: skip
def test_other_blocks(function: Any, start: str, end: str) -> None:
    result = grade_quantize_block(function)
    assert not result.passed and result.message.startswith(start), result.message
    assert result.message.endswith(end), result.message


@pytest.mark.parametrize("offset", [-1e-4, 1e-4])
def test_no_number_lies_halfway_between_two_levels(offset: float) -> None:
    # Else the last bit of a division would decide between right and wrong.
    assert grade_quantize_block(
        lambda b, c: (by_argmin(b + offset * b.abs().max(), c, lambda _: b.abs().max())[0],
                      b.abs().max())
    ).passed  # fmt: skip
