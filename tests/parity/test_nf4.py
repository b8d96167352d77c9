"""NF4: ours against bitsandbytes, from the table of levels to SmolLM2's logits."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.core.errors import AssetError
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.quantization.bnb_model import _quiet_imports, load_in_4bit
from posttrain.sft.quantization.codebooks import dynamic_codebook, normal_float_codebook
from posttrain.sft.quantization.nf4 import (
    NF4Tensor,
    QuantizedAbsmax,
    dequantize_absmax,
    dequantize_nf4,
    quantize_absmax,
    quantize_nf4,
)
from posttrain.sft.quantization.nf4_linear import NF4Linear, model_bytes, quantize_model

with _quiet_imports():
    import bitsandbytes as bnb
    from bitsandbytes import functional as bnb_f

pytestmark = pytest.mark.parity

FLOATS = [torch.float32, torch.float16, torch.bfloat16]


def random_weight(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.05


def theirs(weight: Tensor, block_size: int = 64, nested: bool = False) -> tuple[Tensor, Any]:
    return bnb_f.quantize_4bit(
        weight, blocksize=block_size, quant_type="nf4", compress_statistics=nested
    )


def check_equal(ours: NF4Tensor, codes: Tensor, state: Any) -> None:
    """Compare every byte."""
    assert torch.equal(ours.codes, codes.view(-1))
    if isinstance(ours.absmax, QuantizedAbsmax):
        assert torch.equal(ours.absmax.codes, state.absmax)
        assert torch.equal(ours.absmax.scales, state.state2.absmax)
        assert torch.equal(ours.absmax.mean, state.offset)
    else:
        assert torch.equal(ours.absmax, state.absmax)


def test_the_levels_are_bit_for_bit_theirs() -> None:
    assert torch.equal(normal_float_codebook(), bnb_f.get_4bit_type("nf4", device="cpu"))
    table = bnb_f.create_normal_map()  # 15 levels and 241 zeros
    assert torch.equal(normal_float_codebook(), table.unique())
    assert torch.equal(dynamic_codebook(), bnb_f.create_dynamic_map())


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("block_size", [32, 64, 256])
@pytest.mark.parametrize("nested", [False, True])
def test_bytes_and_values_are_theirs(dtype: torch.dtype, block_size: int, nested: bool) -> None:
    weight = random_weight(300, 514).to(dtype)  # the last block is a part of one
    codes, state = theirs(weight, block_size, nested)
    ours = quantize_nf4(weight, block_size, double_quant=nested)
    check_equal(ours, codes, state)
    assert torch.equal(dequantize_nf4(ours), bnb_f.dequantize_4bit(codes, state))


@pytest.mark.parametrize("numbers", [1, 7, 64, 65, 129])
def test_odd_sizes_are_filled_up_as_theirs(numbers: int) -> None:
    weight = random_weight(numbers)
    check_equal(quantize_nf4(weight), *theirs(weight))


def test_zeros_are_theirs() -> None:
    weight = random_weight(6, 64)
    weight[1::2] = 0
    codes, state = theirs(weight)
    ours = quantize_nf4(weight)
    check_equal(ours, codes, state)
    assert torch.equal(dequantize_nf4(ours), bnb_f.dequantize_4bit(codes, state))


def test_ties_and_their_neighbors_are_theirs() -> None:
    levels = normal_float_codebook()
    halfway = (levels[1:] + levels[:-1]) / 2
    one = torch.ones(15)
    near = [halfway, torch.nextafter(halfway, one), torch.nextafter(halfway, -one)]
    block = torch.cat([torch.ones(3), *near, levels])  # 64 numbers with the scale 1
    check_equal(quantize_nf4(block), *theirs(block))
    # With other scales the last bit decides, and so does how one divides.
    weight = block * (random_weight(500, 1).abs() + 0.01)
    check_equal(quantize_nf4(weight), *theirs(weight))


def test_scales_of_a_million_blocks_are_theirs() -> None:
    absmax = random_weight(1_000_000).abs() + 0.05
    codes, state = bnb_f.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
    ours = quantize_absmax(absmax)
    assert torch.equal(ours.codes, codes) and torch.equal(ours.scales, state.absmax)
    expected = bnb_f.dequantize_blockwise(codes, state) + absmax.mean()
    assert torch.equal(dequantize_absmax(ours), expected)


def test_scales_that_are_all_alike_differ_in_a_code_that_is_multiplied_by_zero() -> None:
    weight = torch.full((4, 64), 0.5)
    codes, state = theirs(weight, nested=True)
    ours = quantize_nf4(weight, double_quant=True)
    assert isinstance(ours.absmax, QuantizedAbsmax)
    assert ours.absmax.scales.item() == state.state2.absmax.item() == 0
    assert not torch.equal(ours.absmax.codes, state.absmax)
    assert torch.equal(dequantize_nf4(ours), bnb_f.dequantize_4bit(codes, state))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("nested", [False, True])
def test_the_layer_and_its_gradient_are_theirs(
    dtype: torch.dtype, bias: bool, nested: bool
) -> None:
    torch.manual_seed(0)
    linear = nn.Linear(192, 96, bias=bias).to(dtype)
    layer = bnb.nn.Linear4bit(
        192, 96, bias=bias, quant_type="nf4", compress_statistics=nested, compute_dtype=dtype
    )
    layer.load_state_dict(linear.state_dict())
    layer = layer.to("cpu", dtype)  # moving it quantizes it
    ours = NF4Linear.from_linear(linear, double_quant=nested)
    check_equal(ours.quantized, layer.weight, layer.weight.quant_state)

    x = torch.randn(2, 7, 192).to(dtype).requires_grad_()
    scale = torch.randn(2, 7, 96).to(dtype)
    results = [(y := module(x), *torch.autograd.grad((y * scale).sum(), x)) for module in
               (ours, layer)]  # fmt: skip
    # The dense weights are equal; bfloat16 keeps 8 bits, and sums may run in another order.
    tolerance = 1e-5 if dtype == torch.float32 else 2**-7
    assert_close(results[0], results[1], atol=tolerance, rtol=tolerance)


@pytest.mark.slow
def test_smollm2_in_4_bits_is_theirs(capfd: pytest.CaptureFixture[str]) -> None:
    try:
        model = load_in_4bit("smollm2-135m-instruct", dtype=torch.float32)
    except AssetError as error:
        pytest.skip(str(error))
    assert capfd.readouterr() == ("", "")
    ours = quantize_model(load_pretrained("smollm2-135m-instruct"))
    layers = {n: m for n, m in ours.named_modules() if isinstance(m, NF4Linear)}
    assert len(layers) == 210
    for name, layer in layers.items():
        weight = model.get_submodule(f"model.{name}").weight
        check_equal(layer.quantized, weight.data, weight.quant_state)
    angles = model_bytes(model.model.rotary_emb)  # which ours computes when it needs them
    assert model_bytes(model) - angles == model_bytes(ours)

    ids = torch.tensor([[504, 3575, 282, 4649, 314]])  # "The capital of France is"
    with torch.no_grad():
        # 30 layers of float32 rounding, on logits as large as 20
        assert_close(ours(ids), model(ids).logits, atol=1e-4, rtol=0)
