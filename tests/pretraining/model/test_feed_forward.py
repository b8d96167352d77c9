"""posttrain.pretraining.model.feed_forward: values by hand, properties."""

import math

import pytest
import torch
from torch.testing import assert_close

from posttrain.pretraining.model.feed_forward import GELUFeedForward, RMSNorm, SwiGLUFeedForward


def test_rms_norm_by_hand() -> None:
    norm = RMSNorm(4, eps=0.0)
    norm.weight.data = torch.tensor([1.0, 1, 1, 10])
    x = torch.tensor([2.0, -2, 4, 0])  # mean square 6
    expected = torch.tensor([2.0, -2, 4, 0]) / math.sqrt(6)
    assert_close(norm(x), expected)
    assert_close(norm(torch.ones(4)), torch.tensor([1.0, 1, 1, 10]))


def test_rms_norm_does_not_see_the_scale() -> None:
    torch.manual_seed(0)
    norm, x = RMSNorm(16), torch.randn(3, 16)
    assert_close(norm(1000 * x), norm(x), atol=1e-4, rtol=1e-4)  # eps counts for little
    assert_close(norm(x).square().mean(dim=-1), torch.ones(3), atol=1e-4, rtol=0)


def test_rms_norm_of_zero_is_zero_with_a_finite_gradient() -> None:
    x = torch.zeros(2, 8, requires_grad=True)
    out = RMSNorm(8)(x)
    assert torch.equal(out, torch.zeros(2, 8))
    out.sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


def test_rms_norm_sums_squares_in_float32() -> None:
    x = torch.full((1, 1024), 300.0, dtype=torch.float16)  # 300^2 exceeds float16
    out = RMSNorm(1024).half()(x)
    assert out.dtype == torch.float16
    assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("kind", [GELUFeedForward, SwiGLUFeedForward])
def test_each_position_is_worked_on_alone(kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    layer, x = kind(6, 10), torch.randn(2, 5, 6)
    assert layer(x).shape == x.shape
    assert_close(layer(x)[:, 3], layer(x[:, 3]))
    assert torch.equal(layer(torch.zeros(1, 6)), torch.zeros(1, 6))  # no biases


def test_gelu_feed_forward_by_hand() -> None:
    layer = GELUFeedForward(1, 1)
    layer.up_proj.weight.data.fill_(2.0)
    layer.down_proj.weight.data.fill_(3.0)
    # gelu(2) = 2 * Phi(2) = 2 * 0.97725
    assert layer(torch.ones(1)).item() == pytest.approx(3 * 2 * 0.9772499, rel=1e-5)


def test_swiglu_feed_forward_by_hand() -> None:
    layer = SwiGLUFeedForward(1, 1)
    layer.gate_proj.weight.data.fill_(2.0)
    layer.up_proj.weight.data.fill_(5.0)
    layer.down_proj.weight.data.fill_(3.0)
    # silu(2) = 2 / (1 + e^-2), which gates 5, which is scaled by 3
    expected = 3 * 5 * 2 / (1 + math.exp(-2))
    assert layer(torch.ones(1)).item() == pytest.approx(expected, rel=1e-6)
