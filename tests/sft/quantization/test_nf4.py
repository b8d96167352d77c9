"""sft.quantization.nf4: bytes by hand, error bounds, double quantization, bad input."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from posttrain.sft.quantization.codebooks import normal_float_codebook, uniform_codebook
from posttrain.sft.quantization.nf4 import (
    NF4Tensor,
    QuantizedAbsmax,
    bits_per_weight,
    cut_blocks,
    dequantize_absmax,
    dequantize_nf4,
    quantize_absmax,
    quantize_nf4,
    round_trip,
    scale_blocks,
)


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def test_quantization_by_hand() -> None:
    # Divided by 2: 1, -1, 0, 0.5. The levels around 0.5 are 0.4407 (code 12) and 0.5626 (13),
    # and their middle is 0.5017. The second block is divided by 10.
    weight = torch.tensor([[2.0, -2, 0, 1], [-10, 0, 0, 10]])
    quantized = quantize_nf4(weight, block_size=4)
    assert quantized.codes.tolist() == [0xF0, 0x7C, 0x07, 0x7F]
    assert isinstance(quantized.absmax, Tensor) and quantized.absmax.tolist() == [2, 10]
    assert quantized.shape == (2, 4) and quantized.dtype == torch.float32
    level = normal_float_codebook()[12].item()
    expected = torch.tensor([[2.0, -2, 0, 2 * level], [-10, 0, 0, 10]])
    assert torch.equal(dequantize_nf4(quantized), expected)


def test_blocks_by_hand() -> None:
    blocks, absmax = scale_blocks(cut_blocks(torch.tensor([1.0, -4, 0, 0, 0.5]), 2))
    assert_close(blocks, torch.tensor([[0.25, -1], [0, 0], [1, 0]]))
    assert absmax.tolist() == [4, 0, 0.5]


@pytest.mark.parametrize("numbers", [1, 2, 63, 64, 65, 127, 640])
@pytest.mark.parametrize("double_quant", [False, True])
def test_any_number_of_weights_comes_back(numbers: int, double_quant: bool) -> None:
    weight = random_weight(numbers)
    quantized = quantize_nf4(weight, double_quant=double_quant)
    assert len(quantized.codes) == (numbers + 1) // 2
    assert isinstance(quantized.absmax, QuantizedAbsmax) is double_quant
    assert len(quantized.absmax.codes if double_quant else quantized.absmax) == -(
        -numbers // 64
    )
    back = dequantize_nf4(quantized)
    assert back.shape == weight.shape
    # half the widest gap between two levels, 0.304, plus what the scale of a block is off by
    assert (back - weight).abs().max() <= 0.16 * weight.abs().max()


def test_the_error_is_at_most_half_a_gap_of_its_own_block() -> None:
    weight = random_weight(40, 64) * torch.logspace(-6, 6, 40)[:, None]
    back = dequantize_nf4(quantize_nf4(weight))
    error = (back - weight).abs().amax(dim=1) / weight.abs().amax(dim=1)
    widest = normal_float_codebook().diff().max() / 2
    assert (error <= widest + 1e-6).all() and (error > widest / 4).all()


def test_quantizing_again_changes_nothing() -> None:
    once = dequantize_nf4(quantize_nf4(random_weight(30, 50)))
    assert torch.equal(dequantize_nf4(quantize_nf4(once)), once)


def test_codes_do_not_depend_on_the_scale() -> None:
    weight = random_weight(8, 64)
    small, large = quantize_nf4(weight), quantize_nf4(weight * 1024)
    assert torch.equal(small.codes, large.codes)
    assert torch.equal(small.absmax * 1024, large.absmax)


@pytest.mark.parametrize("double_quant", [False, True])
def test_zeros_stay_zero_and_small_blocks_do_not_overflow(double_quant: bool) -> None:
    back = dequantize_nf4(quantize_nf4(torch.zeros(3, 64), double_quant=double_quant))
    assert torch.equal(back, torch.zeros(3, 64))
    tiny = torch.full((64,), 1e-42)  # 1 / 1e-42 is infinite in float32
    assert dequantize_nf4(quantize_nf4(tiny)).isfinite().all()


def test_the_weights_type_is_kept_and_another_can_be_asked_for() -> None:
    weight = random_weight(4, 64).bfloat16()
    quantized = quantize_nf4(weight)
    assert dequantize_nf4(quantized).dtype == torch.bfloat16
    exact = dequantize_nf4(quantized, torch.float32)
    assert torch.equal(exact.bfloat16(), dequantize_nf4(quantized))
    assert torch.equal(exact, dequantize_nf4(quantize_nf4(weight.float())))


def test_a_weight_in_any_layout_of_memory() -> None:
    weight = random_weight(48, 32)
    assert torch.equal(quantize_nf4(weight.T).codes, quantize_nf4(weight.T.contiguous()).codes)
    assert not dequantize_nf4(quantize_nf4(weight.requires_grad_())).requires_grad


def test_nf4_loses_less_than_a_uniform_grid_on_normal_weights() -> None:
    weight = random_weight(1000, 64)
    error = {
        name: (round_trip(weight, levels) - weight).square().mean().sqrt() / weight.std()
        for name, levels in (("nf4", normal_float_codebook()), ("uniform", uniform_codebook()))
    }
    assert 0.085 < error["nf4"] < 0.095 < error["uniform"] < 0.105
    assert torch.equal(
        round_trip(weight, normal_float_codebook()), dequantize_nf4(quantize_nf4(weight))
    )
    assert round_trip(weight[:3, :5], uniform_codebook(8), 4).shape == (3, 5)


def test_double_quantization_by_hand() -> None:
    # The mean is 2; the distances -1, 0, 1 are divided by 1.
    quantized = quantize_absmax(torch.tensor([1.0, 2.0, 3.0]))
    assert quantized.mean == 2 and quantized.scales.tolist() == [1]
    assert quantized.codes[0] == 0 and quantized.codes[2] == 255
    back = dequantize_absmax(quantized)
    assert_close(back, torch.tensor([2 - 0.9929688, 2, 3]), atol=4e-5, rtol=0)


@pytest.mark.parametrize("blocks", [1, 255, 256, 257, 1000])
def test_scales_come_back_within_a_level(blocks: int) -> None:
    absmax = random_weight(blocks, seed=3).abs() + 0.1
    quantized = quantize_absmax(absmax)
    assert len(quantized.codes) == blocks and len(quantized.scales) == -(-blocks // 256)
    back = dequantize_absmax(quantized)
    assert back.shape == absmax.shape
    assert (back - absmax).abs().max() <= 0.0071 * quantized.scales.max() + 1e-7
    if blocks > 1:
        assert not torch.equal(back, absmax)


def test_equal_scales_come_back_exactly() -> None:
    absmax = torch.full((300,), 0.25)
    assert torch.equal(dequantize_absmax(quantize_absmax(absmax)), absmax)


def test_bits_by_formula_and_by_counting_bytes() -> None:
    assert bits_per_weight() == 4.5
    assert bits_per_weight(double_quant=True) == pytest.approx(4.127, abs=5e-4)
    assert bits_per_weight(32) == 5
    weight = random_weight(256, 128)
    for block_size in (32, 64, 128):
        for double_quant in (False, True):
            quantized = quantize_nf4(weight, block_size, double_quant=double_quant)
            mean = 32 if double_quant else 0
            counted = (8 * quantized.nbytes - mean) / weight.numel()
            assert counted == bits_per_weight(block_size, double_quant=double_quant)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.bool])
def test_other_types_are_refused(dtype: torch.dtype) -> None:
    weight = torch.ones(64, dtype=dtype)
    message = r"weight is torch\.\w+: give float32, float16 or bfloat16"
    with pytest.raises(TypeError, match=message):
        quantize_nf4(weight)
    with pytest.raises(TypeError, match=message):
        round_trip(weight, uniform_codebook())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    weight = random_weight(3, 64)
    weight[1, 5] = weight[2, 7] = bad
    with pytest.raises(ValueError, match="NaN or infinity at 2 of 192 places"):
        quantize_nf4(weight)


def test_an_empty_weight_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(0, 4\): there is nothing to quantize"):
        quantize_nf4(torch.zeros(0, 4))


@pytest.mark.parametrize("block_size", [-2, 0, 1, 63])
def test_an_odd_block_is_refused(block_size: int) -> None:
    with pytest.raises(ValueError, match=r"block_size is -?\d+: give an even number from 2 up"):
        quantize_nf4(random_weight(64), block_size)


def test_a_quantized_weight_cannot_be_changed_by_accident() -> None:
    quantized = quantize_nf4(random_weight(64))
    assert isinstance(quantized, NF4Tensor)
    with pytest.raises(AttributeError):
        quantized.block_size = 32  # type: ignore[misc]
