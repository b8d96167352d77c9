"""posttrain.sft.adapters.injection: which layers are found, what is trained, bad input."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig, next_token_loss
from posttrain.sft.adapters.injection import (
    inject_lora,
    lora_layers,
    lora_parameters,
    target_layers,
    trainable_parameter_count,
)
from posttrain.sft.adapters.lora import LINEAR_LAYERS, LoRAConfig, LoRALinear, full_weight

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
    # as in PEFT: what is named in full, as lm_head is, is in no block that could be left out
    assert list(target_layers(gpt(), config)) == [*expected, "lm_head"]
    one = LoRAConfig(
        target_modules=("v_proj", "model.layers.1.mlp.up_proj"), layers_to_transform=(0,)
    )
    assert list(target_layers(gpt(), one)) == [
        "layers.0.self_attn.v_proj",
        "layers.1.mlp.up_proj",
    ]


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


def test_a_quantized_layer_gets_an_adapter_too() -> None:
    model = nn.Sequential(Int8Linear(6, 4))
    assert inject_lora(model, LoRAConfig(r=2, target_modules=("0",)), seed=0) == ["0"]
    layer = lora_layers(model)["0"]
    nn.init.ones_(layer.lora_B)
    x = torch.ones(1, 6)
    expected = x @ (full_weight(layer.base) + 8 * layer.lora_B @ layer.lora_A).T
    assert_close(model(x), expected)
