"""posttrain.sft.adapters.lora: the configuration, the layer by hand, bad input."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear, full_weight

# --- configuration ---


def test_scaling_divides_alpha_by_r_and_with_rslora_by_its_root() -> None:
    assert LoRAConfig(r=4, lora_alpha=32).scaling == 8
    assert LoRAConfig(r=4, lora_alpha=32, use_rslora=True).scaling == 16


def test_a_list_becomes_a_tuple_so_that_the_config_can_be_hashed() -> None:
    config = LoRAConfig(target_modules=["q_proj"], layers_to_transform=[0, 2])  # type: ignore[arg-type]
    assert config.target_modules == ("q_proj",) and config.layers_to_transform == (0, 2)
    assert hash(config) == hash(
        LoRAConfig(target_modules=("q_proj",), layers_to_transform=(0, 2))
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"r": 0}, "r is 0: give a whole number from 1 up"),
        ({"r": 2.0}, r"r is 2\.0: give a whole number"),
        ({"lora_alpha": 0}, "lora_alpha is 0: give a number above 0"),
        ({"lora_alpha": math.inf}, "lora_alpha is inf"),
        ({"lora_alpha": "16"}, "lora_alpha is '16'"),
        ({"lora_dropout": 1.0}, r"lora_dropout is 1\.0: give 0 to below 1"),
        ({"lora_dropout": -0.1}, r"lora_dropout is -0\.1"),
        ({"use_dora": 1}, "use_dora is 1: give True or False"),
        ({"use_rslora": None}, "use_rslora is None"),
        ({"target_modules": "q_proj"}, "target_modules is 'q_proj': give a tuple of names"),
        ({"target_modules": ()}, r"target_modules is \(\)"),
        ({"target_modules": ("q_proj", "")}, "target_modules is .*: give a tuple of names"),
        ({"target_modules": (3,)}, "target_modules is .*: give a tuple of names"),
        ({"layers_to_transform": 1}, "layers_to_transform is 1: give a tuple of indices"),
        ({"layers_to_transform": (-1,)}, "layers_to_transform is .*: give a tuple of indices"),
    ],
)
def test_settings_that_no_adapter_can_have_are_refused(
    given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        LoRAConfig(**given)


# --- the layer ---


def test_forward_by_hand() -> None:
    base = nn.Linear(2, 2, bias=True)
    layer = LoRALinear(base, LoRAConfig(r=1, lora_alpha=3))
    with torch.no_grad():
        base.weight.copy_(torch.tensor([[1.0, 0], [0, 2]]))
        base.bias.copy_(torch.tensor([10.0, 20]))
        layer.lora_A.copy_(torch.tensor([[1.0, -1]]))
        layer.lora_B.copy_(torch.tensor([[2.0], [5]]))
    # x = (4, 1): W0 x + b = (14, 22); A x = 3; B A x = (6, 15); times alpha / r = 3
    assert layer(torch.tensor([4.0, 1])).tolist() == [14 + 18, 22 + 45]


def test_b_starts_at_zero_and_a_as_peft_draws_it() -> None:
    layer = LoRALinear(nn.Linear(400, 30), LoRAConfig(r=16))
    assert layer.lora_A.shape == (16, 400) and layer.lora_B.shape == (30, 16)
    assert not layer.lora_B.any()
    bound = 400**-0.5  # uniform; a = sqrt(5) makes the bound 1 / sqrt(in)
    assert 0.95 * bound < layer.lora_A.abs().max() <= bound
    assert layer.lora_A.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_the_first_gradient_moves_b_alone() -> None:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(6, 5), LoRAConfig(r=2))
    layer(torch.randn(3, 6)).square().sum().backward()
    assert layer.lora_A.grad is not None and not layer.lora_A.grad.any()  # B is zero
    assert layer.lora_B.grad is not None and layer.lora_B.grad.abs().min() > 0
    assert layer.base.weight.grad is None and layer.base.bias.grad is None


def test_adams_first_steps_are_not_gentle() -> None:
    """B moves by the whole rate in the first step, A by 0.744 of it in the second."""
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(32, 24), LoRAConfig(r=4))
    optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B], lr=1e-3, weight_decay=0.0)
    moved: list[list[float]] = []
    for _ in range(2):
        before = [p.detach().clone() for p in (layer.lora_A, layer.lora_B)]
        optimizer.zero_grad()
        (layer(torch.randn(64, 32)) - torch.randn(64, 24)).square().mean().backward()
        optimizer.step()
        after = layer.lora_A, layer.lora_B
        moved.append([1e3 * (p - old).abs().median().item()
                      for p, old in zip(after, before, strict=True)])  # fmt: skip
    assert moved[0] == [0, pytest.approx(1, abs=1e-3)]
    assert moved[1][0] == pytest.approx((1 + 0.999) ** 0.5 / (1 + 0.9), abs=1e-3)


def test_the_adapter_stays_in_float32_on_a_bfloat16_weight() -> None:
    torch.manual_seed(0)
    layer = LoRALinear(nn.Linear(6, 5).bfloat16(), LoRAConfig(r=2))
    assert layer.lora_A.dtype == layer.lora_B.dtype == torch.float32
    out = layer(torch.randn(3, 6, dtype=torch.bfloat16))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert layer.lora_B.grad is not None and layer.lora_B.grad.dtype == torch.float32


def test_dropout_reaches_the_adapter_only_and_only_in_training() -> None:
    torch.manual_seed(0)
    base = nn.Linear(64, 8).eval()
    layer = LoRALinear(base, LoRAConfig(r=2, lora_dropout=0.5))
    assert not layer.training  # as its base was
    nn.init.normal_(layer.lora_B)
    x = torch.randn(4, 64)
    update = layer(x) - base(x)
    assert_close(update, (x @ layer.lora_A.T) @ layer.lora_B.T * 8)
    assert torch.equal(layer(x), layer(x))
    layer.train()
    assert not torch.allclose(layer(x), layer(x))
    nn.init.zeros_(layer.lora_B)
    assert torch.equal(layer(x), base(x))


def test_a_weight_that_cannot_be_unpacked_is_refused() -> None:
    packed = nn.Linear(4, 4)
    packed.weight = nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(TypeError, match="a Linear holds no floating-point weight and has no"):
        full_weight(packed)


@pytest.mark.parametrize(
    ("name", "value"),
    [("r", True), ("r", 2.0), ("lora_alpha", True), ("lora_dropout", False),
     ("layers_to_transform", (0, True))],
)  # fmt: skip
def test_a_truth_value_is_no_number(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"{name} is "):
        LoRAConfig(**{name: value})  # type: ignore[arg-type]


def test_numpys_numbers_become_plain_ones() -> None:
    config = LoRAConfig(r=np.int64(4), layers_to_transform=[np.int64(1), 3])  # type: ignore[arg-type]
    assert type(config.r) is int and config.layers_to_transform == (1, 3)
    assert {type(block) for block in config.layers_to_transform or ()} == {int}
