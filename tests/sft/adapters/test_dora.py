"""posttrain.sft.adapters.dora: values by hand and properties."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from posttrain.sft.adapters.dora import DoRALinear
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig


def layer(bias: bool = True, dropout: float = 0.0) -> DoRALinear:
    torch.manual_seed(0)
    config = LoRAConfig(r=2, use_dora=True, lora_dropout=dropout)
    dora = DoRALinear(nn.Linear(6, 5, bias=bias), config)
    nn.init.normal_(dora.lora_B)
    return dora


def test_forward_by_hand() -> None:
    dora = DoRALinear(nn.Linear(2, 1), LoRAConfig(r=1, lora_alpha=1, use_dora=True))
    with torch.no_grad():
        dora.base.weight.copy_(torch.tensor([[3.0, 0]]))
        dora.base.bias.fill_(100)
        dora.lora_A.copy_(torch.tensor([[0.0, 2]]))
        dora.lora_B.fill_(2)
        dora.lora_magnitude_vector.fill_(10)
    # W0 + B A = (3, 4) has norm 5, so the weight is 10 (3, 4) / 5 = (6, 8)
    assert dora(torch.tensor([[1.0, 1]])).item() == pytest.approx(100 + 14)


@pytest.mark.parametrize("bias", [True, False])
def test_it_starts_as_the_frozen_layer(bias: bool) -> None:
    torch.manual_seed(0)
    base = nn.Linear(6, 5, bias=bias)
    dora = DoRALinear(base, LoRAConfig(r=2, use_dora=True))
    assert_close(dora.lora_magnitude_vector, base.weight.norm(dim=1))
    x = torch.randn(4, 6)
    assert_close(dora(x), base(x), atol=0, rtol=0)


def test_there_is_a_length_for_each_output_as_in_peft() -> None:
    """The paper says columns, of weights that it writes as in x out: chapter sft/lora."""
    dora_layer = pytest.importorskip("peft.tuners.lora.dora").DoraLinearLayer
    dora = layer()
    theirs = dora_layer(fan_in_fan_out=False)
    norm = theirs.get_weight_norm(dora.base.weight, torch.zeros(5, 6), scaling=1.0)
    assert dora.lora_magnitude_vector.shape == norm.shape == (5,)
    fresh = DoRALinear(dora.base, LoRAConfig(r=2, use_dora=True))
    assert_close(fresh.lora_magnitude_vector, norm)
    assert_close(
        theirs.get_weight_norm(
            dora.base.weight, dora.lora_B @ dora.lora_A, scaling=dora.scaling
        ),
        dora._direction().norm(dim=1),
    )


def test_rows_of_the_merged_weight_have_the_magnitudes() -> None:
    dora = layer()
    nn.init.uniform_(dora.lora_magnitude_vector, 1, 2)
    merged = dora.merged_weight()
    assert_close(merged.norm(dim=1), dora.lora_magnitude_vector.data)
    x = torch.randn(4, 6)
    assert_close(dora(x), x @ merged.T + dora.base.bias)


def test_the_norm_is_a_constant_to_the_gradient() -> None:
    dora, x = layer(), torch.randn(4, 6)
    dora(x).square().sum().backward()
    A, B, m = dora.lora_A, dora.lora_B, dora.lora_magnitude_vector
    norm = (dora.base.weight + 8 * B @ A).norm(dim=1).detach()
    free = [p.detach().clone().requires_grad_() for p in (A, B, m)]
    weight = (free[2] / norm)[:, None] * (dora.base.weight + 8 * free[1] @ free[0])
    (x @ weight.T + dora.base.bias).square().sum().backward()
    for own, expected in zip((A, B, m), free, strict=True):
        assert_close(own.grad, expected.grad)


def test_dropout_leaves_the_frozen_layers_own_output() -> None:
    dora, x = layer(dropout=0.5), torch.randn(4, 6)
    nn.init.zeros_(dora.lora_B)
    dora.lora_magnitude_vector.data = dora.base.weight.norm(dim=1)  # B A = 0: share is 1
    assert_close(dora(x), dora.base(x))
    nn.init.normal_(dora.lora_B)
    assert not torch.allclose(dora(x), dora(x))
    dora.eval()
    assert torch.equal(dora(x), dora(x))


def test_autocast_does_not_blur_the_norm() -> None:
    dora = layer()
    dora.lora_magnitude_vector.data = dora._direction().norm(dim=1)  # share is 1
    x = torch.randn(4, 6).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        out = dora(x)
        plain = dora.base(x) + (x @ dora.lora_A.T) @ dora.lora_B.T * 8
    assert out.dtype == torch.bfloat16
    assert_close(out, plain, atol=0, rtol=0)


def test_injection_takes_it_where_the_config_says_so() -> None:
    model = nn.Sequential(nn.Linear(6, 5))
    inject_lora(model, LoRAConfig(r=2, use_dora=True, target_modules=("0",)))
    assert set(lora_parameters(model)) == {"0.lora_A", "0.lora_B", "0.lora_magnitude_vector"}
    assert isinstance(model[0], DoRALinear)
    model.bfloat16()
    assert model(torch.zeros(1, 6, dtype=torch.bfloat16)).dtype == torch.bfloat16
