"""The levels that few bits can name: NF4's 16, an even grid, and 256 for the scales.

A codebook is a sorted float32 vector in [-1, 1]. A code is a position in it.

Chapter: sft/qlora.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

NF4_TOP = 0.9677083
"""The share of a normal distribution below NF4's largest level, as bitsandbytes has it.

It cannot be 1, whose quantile is infinite. If 16 levels own equal shares and each stands in
the middle of its own, 1/32 lies beyond the last; with 15 levels it is 1/30. The mean of the two
gives this value: 1 - (1/32 + 1/30) / 2 = 0.96770833..., cut to seven digits.
"""


@cache
def normal_float_codebook() -> Tensor:
    """Compute NF4's 16 levels from quantiles of the normal distribution.

    Trained weights are close to normal. Levels at evenly spaced *probabilities*, not values,
    are used about equally often (Dettmers et al., 2023, arXiv:2305.14314, section 3). Sixteen
    levels that mirror each other would leave out zero, which padding needs exactly. So each
    side has its own spacing: 8 levels from the bottom to zero, 9 from zero to the top, and one
    of the two zeros is dropped. Divided by the largest, they span [-1, 1].

    The probabilities are rounded to float32 before the quantiles are taken, as in
    bitsandbytes: so its table, and every threshold between two levels, is met bit by bit.

    Returns:
        The levels, float32, shape (16,), sorted. Do not change them in place: they are shared.

    Chapter: sft/qlora.
    """
    negative, positive = _evenly(NF4_TOP, 0.5, 8).double(), _evenly(0.5, NF4_TOP, 9).double()
    below = -torch.special.ndtri(negative)[:-1]  # 7 levels, rising to the zero of the others
    above = torch.special.ndtri(positive)  # 9 levels, rising from zero
    levels = torch.cat((below, above)).float()
    return levels / levels.max()


def uniform_codebook(bits: int = 4) -> Tensor:
    """Spread as many levels evenly, to compare with: what plain integers do.

    As with NF4, zero is a level and one more lies above it than below.

    Args:
        bits: 2 to 8.

    Returns:
        The levels, float32, shape (2 ** bits,), sorted, from -1 to 1.

    Raises:
        ValueError: If ``bits`` is not 2 to 8.

    Chapter: sft/qlora.
    """
    if bits not in range(2, 9):
        raise ValueError(f"bits is {bits!r}: give a whole number from 2 to 8")
    half = 2 ** (bits - 1)
    return torch.cat((_evenly(-1, 0, half), _evenly(0, 1, half + 1)[1:]))


@cache
def dynamic_codebook() -> Tensor:
    """Compute the 256 levels that bitsandbytes gives the scales of blocks.

    A dynamic data type trades digits for range (Dettmers, 2015, arXiv:1511.04561): of values
    between 0.1 and 1 it tells 64 apart, of those ten times smaller 32, and so on down to
    1e-6. Each level is the middle of its cell. Zero and one complete the 256.

    Returns:
        The levels, float32, shape (256,), sorted, from -0.993 to 1. They are shared.

    Chapter: sft/qlora.
    """
    levels = [_evenly(0, 1, 2)]
    for digits in range(7):
        edges = _evenly(0.1, 1, 2**digits + 1)
        middles = 10.0 ** (digits - 6) * (edges[:-1] + edges[1:]) / 2
        levels += [middles, -middles]
    return torch.cat(levels).sort().values


def _evenly(start: float, end: float, count: int) -> Tensor:
    """Space numbers evenly, in float32 on the CPU whatever torch's defaults are just now."""
    return torch.linspace(start, end, count, dtype=torch.float32, device="cpu")


def nearest_codes(values: Tensor, codebook: Tensor) -> Tensor:
    """Find the level nearest to each value; halfway between two, the lower one.

    Args:
        values: Any shape, floating-point.
        codebook: Sorted levels.

    Returns:
        Positions in the codebook: how many of the thresholds halfway between two levels each
        value exceeds; uint8, in the shape of ``values``.

    Chapter: sft/qlora.
    """
    halfway = ((codebook[:-1] + codebook[1:]) / 2).to(values.device)
    if len(codebook) > 16:
        return torch.bucketize(values, halfway, out_int32=True).to(torch.uint8)
    codes = torch.zeros_like(values, dtype=torch.uint8)
    for threshold in halfway:  # several times as fast as bucketize, which branches
        codes += values > threshold
    return codes
