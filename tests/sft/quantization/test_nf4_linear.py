"""sft.quantization.nf4_linear: values, gradients, what is kept in memory, bad input."""

import copy
import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.merge import merged_state
from posttrain.sft.quantization import nf4_linear
from posttrain.sft.quantization.nf4 import bits_per_weight, quantize_nf4
from posttrain.sft.quantization.nf4_linear import NF4Linear, model_bytes, quantize_model

CONFIG = GPTConfig(
    vocab_size=31, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
    initializer_range=0.1,
)  # fmt: skip


def small_model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG)


def small_layer(bias: bool = False, **settings: Any) -> tuple[nn.Linear, NF4Linear]:
    torch.manual_seed(0)
    linear = nn.Linear(96, 40, bias=bias)
    return linear, NF4Linear.from_linear(linear, **settings)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_forward_is_a_linear_layer_of_the_dequantized_weight(
    bias: bool, dtype: torch.dtype
) -> None:
    linear, layer = small_layer(bias)
    x = torch.randn(2, 5, 96).to(dtype)
    y = layer(x)
    assert y.shape == (2, 5, 40) and y.dtype == dtype
    expected = F.linear(x, layer.dequantize(dtype))
    if bias:
        assert linear.bias is not None
        expected = expected + linear.bias.to(dtype)
    assert torch.equal(y, expected)
    near = F.cosine_similarity(y.float(), linear(x.float()), dim=-1)
    assert (near > 0.98).all() and (near < 1).all()


def test_dequantize_gives_the_weight_for_merging() -> None:
    linear, layer = small_layer()
    weight = layer.dequantize()
    assert weight.shape == linear.weight.shape == (layer.out_features, layer.in_features)
    assert weight.dtype == linear.weight.dtype and not weight.requires_grad
    bf16 = NF4Linear.from_linear(linear.bfloat16())
    assert bf16.dequantize().dtype == torch.bfloat16
    assert bf16.dequantize(torch.float32).dtype == torch.float32


def test_the_gradient_of_the_input_is_right() -> None:
    _, layer = small_layer(bias=True)
    x = torch.randn(3, 96, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(layer, (x,))
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    dense = layer.dequantize(torch.float64)
    assert_close(gradient, dense.sum(dim=0).expand(3, -1))
    assert all(not parameter.requires_grad for parameter in layer.parameters())


def bytes_kept(forward: Any, x: Tensor) -> int:
    """What autograd keeps for the backward pass."""
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        forward(x)
    return sum(tensor.nbytes for tensor in kept)


def test_autograd_keeps_nothing_where_it_would_keep_the_dense_weight() -> None:
    _, layer = small_layer()
    x = torch.randn(3, 96, requires_grad=True)
    assert bytes_kept(lambda x: F.linear(x, layer.dequantize()), x) == 40 * 96 * 4
    assert bytes_kept(layer, x) == 0


def test_no_dense_weight_lives_between_forward_and_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dense: list[weakref.ref[Tensor]] = []
    dequantize = nf4_linear.dequantize_nf4

    def watched(*arguments: Any) -> Tensor:
        weight = dequantize(*arguments)
        dense.append(weakref.ref(weight))
        return weight

    monkeypatch.setattr(nf4_linear, "dequantize_nf4", watched)
    _, layer = small_layer()
    x = torch.randn(3, 96, requires_grad=True)
    y = layer(x).sum()
    gc.collect()
    assert len(dense) == 1 and dense[0]() is None
    y.backward()
    assert len(dense) == 2 and x.grad is not None and x.grad.abs().sum() > 0


@pytest.mark.parametrize("double_quant", [False, True])
def test_bytes_by_formula(double_quant: bool) -> None:
    linear = nn.Linear(256, 128)
    layer = NF4Linear.from_linear(linear, double_quant=double_quant)
    weight = 256 * 128 * bits_per_weight(double_quant=double_quant) / 8
    assert layer.nbytes == weight + (4 if double_quant else 0) + 128 * 4
    assert layer.nbytes == model_bytes(layer)
    assert layer.nbytes < model_bytes(linear) / 6


@pytest.mark.parametrize("double_quant", [False, True])
def test_state_dict_goes_round(double_quant: bool) -> None:
    _, layer = small_layer(bias=True, double_quant=double_quant)
    other = NF4Linear.from_linear(nn.Linear(96, 40), double_quant=double_quant)
    assert not torch.equal(other.dequantize(), layer.dequantize())
    other.load_state_dict(layer.state_dict())
    x = torch.randn(3, 96)
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))


@pytest.mark.parametrize("double_quant", [False, True])
def test_changing_the_models_type_leaves_the_scales_exact(double_quant: bool) -> None:
    _, layer = small_layer(bias=True, double_quant=double_quant)
    before = layer.dequantize()
    layer.to(torch.bfloat16).float()
    layer.half()
    assert torch.equal(layer.dequantize(torch.float32), before)
    assert layer.bias is not None and layer.bias.dtype == torch.float16
    assert layer.dequantize().dtype == torch.float16
    assert layer.to("meta").codes.is_meta


def test_a_weight_that_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"weight has shape \(64,\): give \(out, in\)"):
        NF4Linear(quantize_nf4(torch.ones(64)))


def test_the_layer_says_what_it_is() -> None:
    _, layer = small_layer()
    text = "in_features=96, out_features=40, bias=False, block_size=64, double_quant=True"
    assert text in repr(layer)


def test_quantize_model_replaces_all_but_the_head() -> None:
    model = small_model()
    dense = {name: p.detach().clone() for name, p in model.named_parameters()}
    ids = torch.randint(31, (2, 9))
    before = model(ids)
    assert quantize_model(model) is model
    layers = {n: m for n, m in model.named_modules() if isinstance(m, NF4Linear)}
    assert len(layers) == 14 and "layers.1.mlp.down_proj" in layers
    assert type(model.lm_head) is nn.Linear
    assert model.lm_head.weight is model.embed_tokens.weight
    for name, layer in layers.items():
        weight = dense[f"{name}.weight"]
        assert torch.equal(layer.dequantize(), quantized(weight))
    after = model(ids)
    assert 0.01 < (after - before).norm() / before.norm() < 0.3
    assert model_bytes(model) < sum(p.nbytes for p in dense.values()) / 2.5


def quantized(weight: Tensor) -> Tensor:
    return NF4Linear(quantize_nf4(weight, double_quant=True)).dequantize()


def test_what_to_skip_can_be_chosen() -> None:
    model = quantize_model(small_model(), skip=("lm_head", "q_proj", "layers.1.mlp.up_proj"))
    plain = [n for n, m in model.named_modules() if type(m) is nn.Linear]
    assert plain == [
        "layers.0.self_attn.q_proj",
        "layers.1.self_attn.q_proj",
        "layers.1.mlp.up_proj",
        "lm_head",
    ]


def test_settings_reach_every_layer() -> None:
    model = quantize_model(small_model(), block_size=32, double_quant=False)
    layers = [m for m in model.modules() if isinstance(m, NF4Linear)]
    assert {(layer.block_size, layer.double_quant) for layer in layers} == {(32, False)}


def test_qlora_trains_the_adapter_and_nothing_else() -> None:
    model = quantize_model(small_model())
    base = {name: buffer.clone() for name, buffer in model.named_buffers()}
    names = inject_lora(model, LoRAConfig(r=4), seed=0)
    assert len(names) == 14
    ids = torch.randint(31, (2, 9))
    untouched = model(ids)
    assert torch.equal(untouched, quantize_model(small_model())(ids))  # B starts at zero
    adapter = lora_parameters(model)
    optimizer = torch.optim.SGD(adapter.values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(ids).square().mean().backward()
        optimizer.step()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.values())
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)
    assert all(torch.equal(b, base[n.replace("base.", "")]) for n, b in model.named_buffers())

    merged = GPT(CONFIG)
    merged.load_state_dict(merged_state(model))
    assert_close(merged(ids), model(ids), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(merged(ids), untouched, atol=1e-4)


def test_shared_weights_count_once() -> None:
    model = small_model()
    assert model_bytes(model) == sum(p.nbytes for p in model.parameters())
    assert model_bytes(nn.BatchNorm1d(3)) == 4 * 3 * 4 + 8  # buffers count too


def test_a_wrong_model_is_refused() -> None:
    model = small_model()
    with pytest.raises(ValueError, match="skip names 'head': no linear layer is called so"):
        quantize_model(model, skip=("head",))
    with pytest.raises(ValueError, match="lm_head shares its weight with another layer"):
        quantize_model(model, skip=())
    assert not any(isinstance(m, NF4Linear) for m in model.modules())
    quantize_model(model)
    with pytest.raises(ValueError, match="no linear layer to quantize: is it quantized"):
        quantize_model(model)
    model = small_model()
    inject_lora(model, LoRAConfig(r=2))
    with pytest.raises(
        ValueError, match=r"has adapters, layers\.0\.\S+ first: quantize it, th"
    ):
        quantize_model(model)


def test_a_layer_that_does_more_than_its_weight_is_not_quantized() -> None:
    class Scaled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    model = nn.ModuleDict({"a": nn.Linear(64, 64), "b": Scaled(64, 64)})
    with pytest.raises(ValueError, match="b is a Scaled, which does more than its weight: put"):
        quantize_model(model, skip=())
    assert type(model["a"]) is nn.Linear  # nothing was changed
    assert isinstance(quantize_model(model, skip=("b",))["a"], NF4Linear)


def test_a_single_name_to_skip_is_no_sequence_of_names() -> None:
    model = nn.ModuleDict({"a": nn.Linear(64, 64), "b": nn.Linear(64, 64)})
    with pytest.raises(ValueError, match=r"skip is 'b': give a sequence of names of layers, "):
        quantize_model(model, skip="b")
