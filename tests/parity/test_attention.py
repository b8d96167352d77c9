"""posttrain.pretraining.model.attention against torch and transformers, with gradients."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaAttention, LlamaRotaryEmbedding

from posttrain.pretraining.model.attention import (
    SelfAttention,
    apply_rotary,
    causal_mask,
    rotary_angles,
    scaled_dot_product_attention,
)

pytestmark = pytest.mark.parity


def random_qkv(H: int, H_kv: int, T: int, S: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, H, T, 8), (2, H_kv, S, 8), (2, H_kv, S, 8)]
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


def some_mask(kind: str, T: int, S: int) -> Tensor | None:
    if kind == "none":
        return None
    if kind == "causal":
        return causal_mask(T, S)
    real = torch.tensor([[1] * S, [0] * 2 + [1] * (S - 2)], dtype=torch.bool)
    return real[:, None, None, :].expand(2, 1, T, S)  # the second sequence is padded


@pytest.mark.parametrize("kind", ["none", "causal", "padded"])
@pytest.mark.parametrize(("H", "H_kv"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize(("T", "S"), [(5, 5), (3, 7), (1, 4)])
def test_attention_equals_torch(kind: str, H: int, H_kv: int, T: int, S: int) -> None:
    mask = some_mask(kind, T, S)
    ours_in, torch_in = random_qkv(H, H_kv, T, S), random_qkv(H, H_kv, T, S)
    ours = scaled_dot_product_attention(*ours_in, mask)
    theirs = F.scaled_dot_product_attention(*torch_in, attn_mask=mask, enable_gqa=True)
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    weight = torch.randn(ours.shape, generator=torch.Generator().manual_seed(1))
    (ours * weight).sum().backward()
    (theirs * weight).sum().backward()
    for own, other in zip(ours_in, torch_in, strict=True):
        assert_close(own.grad, other.grad, atol=1e-5, rtol=1e-5)


def test_our_causal_mask_is_what_torch_calls_causal() -> None:
    q, k, v = random_qkv(4, 4, 6, 6)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    assert_close(scaled_dot_product_attention(q, k, v, causal_mask(6)), theirs)


def llama_config(H: int, H_kv: int, theta: float) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=16,
        hidden_size=48,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=H,
        num_key_value_heads=H_kv,
        rope_parameters={"rope_type": "default", "rope_theta": theta},
        attn_implementation="eager",
    )


@pytest.mark.parametrize("theta", [10_000.0, 100_000.0])
def test_rotary_angles_equal_llamas(theta: float) -> None:
    config = llama_config(4, 4, theta)
    position_ids = torch.tensor([[0, 1, 2, 3], [7, 100, 2000, 8000]])
    cos, sin = rotary_angles(position_ids, config.head_dim, theta)
    theirs = LlamaRotaryEmbedding(config)(torch.zeros(1), position_ids)
    assert_close(cos[:, 0], theirs[0], atol=1e-5, rtol=1e-5)
    assert_close(sin[:, 0], theirs[1], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("H", "H_kv"), [(4, 4), (4, 2), (6, 1)])
def test_self_attention_equals_llamas(H: int, H_kv: int) -> None:
    torch.manual_seed(0)
    config = llama_config(H, H_kv, 10_000.0)
    theirs = LlamaAttention(config, layer_idx=0)
    ours = SelfAttention(48, H, H_kv, config.head_dim)
    ours.load_state_dict(theirs.state_dict())

    x = torch.randn(2, 7, 48)
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    position_ids = torch.arange(3, 10)[None]
    allowed = causal_mask(7)
    out = ours(x_ours, allowed, rotary_angles(position_ids, config.head_dim, 10_000.0))
    additive = torch.zeros(1, 1, 7, 7).masked_fill(~allowed, torch.finfo(torch.float32).min)
    angles = LlamaRotaryEmbedding(config)(x, position_ids)
    expected, _ = theirs(x_theirs, position_embeddings=angles, attention_mask=additive)
    assert_close(out, expected, atol=1e-5, rtol=1e-5)

    weight = torch.randn(out.shape)
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(x_ours.grad, x_theirs.grad, atol=1e-5, rtol=1e-5)
    for name, parameter in theirs.named_parameters():
        assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-5)


def test_apply_rotary_keeps_the_dtype_that_llama_keeps() -> None:
    cos, sin = rotary_angles(torch.arange(4)[None], 8, 10_000.0)
    assert apply_rotary(torch.randn(1, 2, 4, 8).bfloat16(), cos, sin).dtype == torch.bfloat16
