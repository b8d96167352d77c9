"""pretraining.model.feed_forward against transformers' and torch's, with gradients."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close
from transformers import GPT2Config, LlamaConfig
from transformers.models.gpt2.modeling_gpt2 import GPT2MLP
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm

from posttrain.pretraining.model.feed_forward import GELUFeedForward, RMSNorm, SwiGLUFeedForward

pytestmark = pytest.mark.parity


def assert_same(ours: nn.Module, theirs: nn.Module, x: torch.Tensor) -> None:
    """Compare outputs and the gradient of the input."""
    x_ours, x_theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = ours(x_ours), theirs(x_theirs)
    assert_close(out, expected, atol=1e-5, rtol=1e-5)
    weight = torch.randn(out.shape, generator=torch.Generator().manual_seed(1))
    (out * weight).sum().backward()
    (expected * weight).sum().backward()
    assert_close(x_ours.grad, x_theirs.grad, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
def test_rms_norm_equals_llamas(scale: float) -> None:
    torch.manual_seed(0)
    theirs = LlamaRMSNorm(12, eps=1e-5)
    nn.init.normal_(theirs.weight)
    ours = RMSNorm(12, eps=1e-5)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, 5, 12) * scale)
    assert_close(ours.weight.grad, theirs.weight.grad, atol=1e-5, rtol=1e-5)


def test_rms_norm_in_bfloat16_rounds_where_llama_rounds() -> None:
    x = torch.randn(2, 5, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert torch.equal(RMSNorm(64).bfloat16()(x), LlamaRMSNorm(64, eps=1e-5).bfloat16()(x))


def test_swiglu_equals_llamas_mlp() -> None:
    torch.manual_seed(0)
    theirs = LlamaMLP(LlamaConfig(hidden_size=12, intermediate_size=20, num_attention_heads=2))
    ours = SwiGLUFeedForward(12, 20)
    ours.load_state_dict(theirs.state_dict())
    assert_same(ours, theirs, torch.randn(2, 5, 12))
    for name, parameter in theirs.named_parameters():
        assert_close(ours.get_parameter(name).grad, parameter.grad, atol=1e-5, rtol=1e-5)


def test_gelu_feed_forward_equals_gpt2s_mlp_without_biases() -> None:
    torch.manual_seed(0)
    config = GPT2Config(n_embd=12, n_head=2, activation_function="gelu", resid_pdrop=0.0)
    theirs = GPT2MLP(20, config)
    nn.init.normal_(theirs.c_fc.weight)
    nn.init.normal_(theirs.c_proj.weight)
    ours = GELUFeedForward(12, 20)
    ours.up_proj.weight.data = theirs.c_fc.weight.data.T.clone()  # GPT-2 keeps (in, out)
    ours.down_proj.weight.data = theirs.c_proj.weight.data.T.clone()
    assert_same(ours, theirs, torch.randn(2, 5, 12))
    assert_close(ours.up_proj.weight.grad, theirs.c_fc.weight.grad.T, atol=1e-5, rtol=1e-5)
    assert_close(ours.down_proj.weight.grad, theirs.c_proj.weight.grad.T, atol=1e-5, rtol=1e-5)
