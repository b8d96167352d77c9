"""posttrain.sft.lora: values by hand, what is trained, which layers are found, bad input."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.gpt import GPT, GPTConfig, next_token_loss
from posttrain.sft.lora import (
    LINEAR_LAYERS,
    LoRAConfig,
    LoRALinear,
    full_weight,
    inject_lora,
    lora_layers,
    lora_parameters,
    target_layers,
    trainable_parameter_count,
)

CONFIG = GPTConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2,
)  # fmt: skip


class Int8Linear(nn.Module):
    """A quantized layer as the adapters see one."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        codes = torch.arange(in_features * out_features).view(out_features, in_features)
        self.register_buffer("codes", (codes % 7 - 3).to(torch.int8))

    def dequantize(self) -> Tensor:
        return self.codes.float() / 4

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.dequantize().T


def gpt(seed: int = 0) -> GPT:
    torch.manual_seed(seed)
    return GPT(CONFIG)


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


def test_a_quantized_layer_gets_an_adapter_too() -> None:
    model = nn.Sequential(Int8Linear(6, 4))
    assert inject_lora(model, LoRAConfig(r=2, target_modules=("0",)), seed=0) == ["0"]
    layer = lora_layers(model)["0"]
    nn.init.ones_(layer.lora_B)
    x = torch.ones(1, 6)
    expected = x @ (full_weight(layer.base) + 8 * layer.lora_B @ layer.lora_A).T
    assert_close(model(x), expected)


def test_a_weight_that_cannot_be_unpacked_is_refused() -> None:
    packed = nn.Linear(4, 4)
    packed.weight = nn.Parameter(torch.zeros(8, dtype=torch.uint8), requires_grad=False)
    with pytest.raises(TypeError, match="a Linear holds no floating-point weight and has no"):
        full_weight(packed)


# --- injection ---


def test_all_seven_layers_of_every_block_and_nothing_else() -> None:
    model = gpt()
    names = inject_lora(model, LoRAConfig(r=2))
    assert len(names) == 3 * 7 and "layers.2.mlp.down_proj" in names
    assert list(lora_layers(model)) == names
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trained == set(lora_parameters(model))
    assert {name.rpartition(".")[2] for name in trained} == {"lora_A", "lora_B"}
    per_block = 2 * (32 + 24 + 24 + 32 + 40 + 40 + 40)  # r (in + out)
    assert trainable_parameter_count(model) == 3 * per_block


def test_the_injected_model_is_the_same_function_until_it_is_trained() -> None:
    model, ids = gpt(), torch.arange(8)[None]
    before = model(ids)
    inject_lora(model, LoRAConfig(r=2, lora_dropout=0.3))
    assert torch.equal(model(ids), before)


def test_training_moves_the_adapter_and_leaves_the_model() -> None:
    model, ids = gpt(), torch.arange(8)[None]
    inject_lora(model, LoRAConfig(r=2), seed=0)
    before = {name: p.clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        next_token_loss(model(ids), ids).backward()
        optimizer.step()
    trained = lora_parameters(model)
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]) is (name not in trained), name


def test_a_seed_decides_a_and_leaves_torchs_generator_alone() -> None:
    drawn = []
    for seed in (1, 1, 2, None):
        model = gpt()
        state = torch.get_rng_state()
        inject_lora(model, LoRAConfig(r=2), seed=seed)
        assert torch.equal(torch.get_rng_state(), state) is (seed is not None)
        drawn.append(lora_parameters(model)["layers.1.mlp.up_proj.lora_A"])
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[1], drawn[2])
    assert not torch.equal(drawn[2], drawn[3])


def test_targets_are_last_parts_of_names_or_whole_names() -> None:
    model = gpt()
    for targets, expected in (
        (("q_proj",), {f"layers.{i}.self_attn.q_proj" for i in range(3)}),
        (("mlp.up_proj",), {f"layers.{i}.mlp.up_proj" for i in range(3)}),
        (("layers.1.mlp.up_proj", "lm_head"), {"layers.1.mlp.up_proj", "lm_head"}),
    ):
        assert set(target_layers(model, LoRAConfig(target_modules=targets))) == expected


def test_blocks_can_be_chosen() -> None:
    config = LoRAConfig(target_modules=("k_proj", "lm_head"), layers_to_transform=(0, 2))
    expected = ["layers.0.self_attn.k_proj", "layers.2.self_attn.k_proj"]
    assert list(target_layers(gpt(), config)) == expected


def test_a_meta_model_is_injected_without_memory() -> None:
    with torch.device("meta"):
        model = GPT(CONFIG)
    inject_lora(model, LoRAConfig(r=2))
    assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_target_that_does_not_exist_is_named_with_those_that_do() -> None:
    sentence = "no linear layer is named 'gate': this model has down_proj, gate_proj, k_proj"
    with pytest.raises(ValueError, match=sentence):
        inject_lora(gpt(), LoRAConfig(target_modules=("q_proj", "gate")))
    with pytest.raises(ValueError, match="no linear layer is named '_proj'"):
        inject_lora(gpt(), LoRAConfig(target_modules=("_proj",)))


def test_a_refused_injection_leaves_the_model_as_it_was() -> None:
    model = gpt()
    with pytest.raises(ValueError, match="no linear layer"):
        inject_lora(model, LoRAConfig(target_modules=("q_proj", "gate")))
    assert all(p.requires_grad for p in model.parameters())
    assert not any(isinstance(m, LoRALinear) for m in model.modules())


def test_a_block_that_does_not_exist_is_refused() -> None:
    sentence = r"layers_to_transform names block 3: the blocks with these targets are \[0, 1, 2"
    with pytest.raises(ValueError, match=sentence):
        inject_lora(gpt(), LoRAConfig(layers_to_transform=(1, 3)))


def test_a_second_injection_is_refused() -> None:
    model = gpt()
    inject_lora(model, LoRAConfig(target_modules=LINEAR_LAYERS[:1]))
    sentence = r"has 3 LoRA layers already, layers\.0\.self_attn\.q_proj first: remove_lora"
    with pytest.raises(ValueError, match=sentence):
        inject_lora(model, LoRAConfig(target_modules=("up_proj",)))


def test_a_model_without_adapters_has_no_lora_parameters() -> None:
    with pytest.raises(ValueError, match="the model has no LoRA layer: call inject_lora"):
        lora_parameters(gpt())
