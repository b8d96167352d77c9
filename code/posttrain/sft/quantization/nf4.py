"""NF4 by hand: weights in 4 bits, a scale per block, and scales in 8 bits.

A weight is cut into blocks of 64 numbers. Each block keeps its largest magnitude, the *absmax*.
Each number is divided by it and keeps the code of the nearest of 16 levels (Dettmers et al.,
2023, arXiv:2305.14314, section 3). Bytes and numbers equal those of bitsandbytes on the CPU.

Chapter: sft/qlora.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from posttrain.sft.quantization.codebooks import (
    dynamic_codebook,
    nearest_codes,
    normal_float_codebook,
)

ABSMAX_BLOCK = 256
"""Scales that share one float32 after double quantization."""

_CELLS = 65_535 / 2  # bitsandbytes' CPU table of the 256 levels has 65,536 entries over [-1, 1]


def cut_blocks(values: Tensor, block_size: int) -> Tensor:
    """Lay numbers out as blocks, the last one filled with zeros.

    Args:
        values: Any shape.
        block_size: Numbers per block.

    Returns:
        Shape (blocks, block_size).

    Chapter: sft/qlora.
    """
    flat = values.reshape(-1)
    if missing := -flat.numel() % block_size:
        flat = torch.cat((flat, flat.new_zeros(missing)))
    return flat.view(-1, block_size)


def scale_blocks(blocks: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each block by its largest magnitude.

    Args:
        blocks: Shape (blocks, block_size), float32.

    Returns:
        The scaled blocks, from -1 to 1, and the magnitudes, shape (blocks,). A block of zeros
        stays one, and has the magnitude zero.

    Chapter: sft/qlora.
    """
    absmax = blocks.abs().amax(dim=1)
    inverse = 1 / absmax.clamp(min=torch.finfo(torch.float32).tiny)
    return blocks * inverse[:, None], absmax


@dataclass(frozen=True)
class QuantizedAbsmax:
    """Scales after double quantization.

    Attributes:
        codes: One of 256 levels for each scale, uint8, shape (blocks,).
        scales: The largest distance from the mean in each 256 scales, float32.
        mean: Mean of all scales, float32, a scalar.
    """

    codes: Tensor
    scales: Tensor
    mean: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        return self.codes.nbytes + self.scales.nbytes + self.mean.nbytes


def quantize_absmax(absmax: Tensor) -> QuantizedAbsmax:
    """Quantize the scales too: 8 bits each, and one float32 for 256 of them.

    All scales are positive and alike, so their mean is taken off first. The paper calls this
    double quantization (section 3).

    bitsandbytes' CPU kernel does not compare with all levels but reads a table of 65,536 values
    in [-1, 1]. Each value is therefore moved to the nearest of these before its level is
    chosen: else a few codes in a thousand would differ from theirs, by one level.

    Args:
        absmax: Scales, float32, shape (blocks,).

    Returns:
        The quantized scales.

    Chapter: sft/qlora.
    """
    mean = absmax.mean()
    values, scales = scale_blocks(cut_blocks(absmax - mean, ABSMAX_BLOCK))
    on_table = ((values + 1) * _CELLS + 0.5).floor() / _CELLS - 1
    codes = nearest_codes(on_table, dynamic_codebook()).view(-1)[: absmax.numel()]
    return QuantizedAbsmax(codes.clone(), scales, mean)


def dequantize_absmax(quantized: QuantizedAbsmax) -> Tensor:
    """Recover the scales of :func:`quantize_absmax`.

    Args:
        quantized: Its result.

    Returns:
        Scales, float32, shape (blocks,).

    Chapter: sft/qlora.
    """
    levels = dynamic_codebook().to(quantized.codes.device)
    blocks = cut_blocks(levels[quantized.codes.int()], ABSMAX_BLOCK)
    flat = (blocks * quantized.scales[:, None]).view(-1)[: quantized.codes.numel()]
    return flat + quantized.mean


@dataclass(frozen=True)
class NF4Tensor:
    """A weight in 4 bits.

    Attributes:
        codes: Two codes a byte, uint8, shape (ceil(numbers / 2),): the first of each pair in
            the upper four bits, as in bitsandbytes.
        absmax: Scale of each block: float32, shape (blocks,), or quantized again.
        shape: Of the weight.
        block_size: Numbers per block.
        dtype: Of the weight.
    """

    codes: Tensor
    absmax: Tensor | QuantizedAbsmax
    shape: tuple[int, ...]
    block_size: int
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of memory, scales included."""
        return self.codes.nbytes + self.absmax.nbytes


def quantize_nf4(
    weight: Tensor, block_size: int = 64, *, double_quant: bool = False
) -> NF4Tensor:
    """Quantize a weight to NF4.

    Args:
        weight: Any shape; float32, float16 or bfloat16.
        block_size: Numbers that share a scale; even.
        double_quant: Quantize the scales as well.

    Returns:
        The quantized weight.

    Raises:
        TypeError: If the weight is of another type.
        ValueError: If it is empty or holds NaN or infinity, or the block size is odd.

    Chapter: sft/qlora.
    """  # noqa: DOC502, DOC503
    codes, absmax = _codes_and_absmax(weight, normal_float_codebook(), block_size)
    codes = codes.view(-1)[: weight.numel() + weight.numel() % 2]
    return NF4Tensor(
        codes=(codes[0::2] << 4) | codes[1::2],
        absmax=quantize_absmax(absmax) if double_quant else absmax,
        shape=tuple(weight.shape),
        block_size=block_size,
        dtype=weight.dtype,
    )


def dequantize_nf4(quantized: NF4Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Recover a dense weight: level times scale, in float32, rounded once to ``dtype``.

    One look-up gives the two levels of a whole byte.

    Args:
        quantized: Result of :func:`quantize_nf4`.
        dtype: Type of the result; that of the original weight where it is left out.

    Returns:
        The weight in its original shape.

    Chapter: sft/qlora.
    """
    absmax = quantized.absmax
    if isinstance(absmax, QuantizedAbsmax):
        absmax = dequantize_absmax(absmax)
    levels = _byte_table(quantized.codes.device).index_select(0, quantized.codes.int())
    blocks = cut_blocks(levels.view(torch.float32), quantized.block_size)
    flat = blocks.mul_(absmax[:, None]).view(-1)[: torch.Size(quantized.shape).numel()]
    return flat.view(quantized.shape).to(dtype or quantized.dtype)


def round_trip(weight: Tensor, codebook: Tensor, block_size: int = 64) -> Tensor:
    """Quantize a weight with any codebook and recover it, to see what is lost.

    Args:
        weight: Any shape; float32, float16 or bfloat16.
        codebook: Sorted levels in [-1, 1], at most 256.
        block_size: Numbers that share a scale; even.

    Returns:
        The weight that would be computed with, float32.

    Raises:
        TypeError: If the weight is of another type.
        ValueError: If it is empty or holds NaN or infinity, or the block size is odd.

    Chapter: sft/qlora.
    """  # noqa: DOC502, DOC503
    codes, absmax = _codes_and_absmax(weight, codebook, block_size)
    blocks = codebook.to(weight.device)[codes.int()] * absmax[:, None]
    return blocks.view(-1)[: weight.numel()].view(weight.shape)


def bits_per_weight(block_size: int = 64, *, double_quant: bool = False) -> float:
    """Count the bits that a weight takes, its share of the scales included.

    Args:
        block_size: Numbers per block.
        double_quant: Whether scales take 8 bits and a float32 for 256, or 32 bits.

    Returns:
        Bits: 4.5 for blocks of 64, and 4.127 with double quantization. The one float32 that
        holds the mean of all scales is left out.

    Chapter: sft/qlora.
    """
    scale_bits = 8 + 32 / ABSMAX_BLOCK if double_quant else 32
    return 4 + scale_bits / block_size


def _codes_and_absmax(
    weight: Tensor, codebook: Tensor, block_size: int
) -> tuple[Tensor, Tensor]:
    """Return codes, uint8, shape (blocks, block_size), and scales, float32, shape (blocks,)."""
    if weight.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"weight is {weight.dtype}: give float32, float16 or bfloat16")
    if not weight.numel():
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}: there is nothing to quantize"
        )
    if block_size < 2 or block_size % 2:
        raise ValueError(
            f"block_size is {block_size}: give an even number from 2 up, since a byte holds "
            "two codes"
        )
    blocks, absmax = scale_blocks(cut_blocks(weight.detach().float(), block_size))
    if not absmax.isfinite().all():
        count = int((~weight.isfinite()).sum())
        raise ValueError(
            f"weight holds NaN or infinity at {count} of {weight.numel()} places: each would "
            f"spoil its whole block of {block_size}; find out where they come from"
        )
    return nearest_codes(blocks, codebook), absmax


@cache
def _byte_table(device: torch.device) -> Tensor:
    """Return both levels of each of the 256 bytes, two float32 seen as one float64."""
    levels = normal_float_codebook()
    byte = torch.arange(256, device="cpu")
    pairs = torch.stack((levels[byte >> 4], levels[byte & 15]), dim=1)
    return pairs.view(torch.float64).view(-1).to(device)
