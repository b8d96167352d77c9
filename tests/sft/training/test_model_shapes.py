"""posttrain.sft.training.model_shapes: published totals, and formulas against real models."""

from dataclasses import replace

import pytest
import torch

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.injection import inject_lora, trainable_parameter_count
from posttrain.sft.adapters.lora import LINEAR_LAYERS, LoRAConfig
from posttrain.sft.training.model_shapes import (
    PUBLISHED_SHAPES,
    adapted_blocks,
    adapter_parameters,
    linear_shapes,
    published_shape,
    total_parameters,
)

TINY = GPTConfig(
    vocab_size=31, hidden_size=24, intermediate_size=40, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, head_dim=8,
)  # fmt: skip


# As each model's own page or its file of weights has it.
PUBLISHED = {
    "SmolLM2-135M": 134_515_008,
    "Llama-3.2-1B": 1_235_814_400,
    "Qwen2.5-1.5B": 1_543_714_304,
    "Llama-2-7B": 6_738_415_616,
    "Qwen2.5-7B": 7_615_616_512,
    "Llama-3.1-8B": 8_030_261_248,
    "Llama-3.1-70B": 70_553_706_496,
}


def test_parameters_are_the_published_ones() -> None:
    counts = {name: total_parameters(shape) for name, shape in PUBLISHED_SHAPES.items()}
    assert counts == PUBLISHED


@pytest.mark.parametrize("mlp", ["swiglu", "gelu"])
def test_shapes_are_those_of_the_layers(mlp: str) -> None:
    config = replace(TINY, mlp=mlp)
    block = GPT(config).layers[1]
    layers = {n.rpartition(".")[2]: m for n, m in block.named_modules() if "proj" in n}
    expected = {name: (m.in_features, m.out_features) for name, m in layers.items()}
    assert linear_shapes(config) == expected


@pytest.mark.parametrize(
    "lora",
    [
        LoRAConfig(r=4),
        LoRAConfig(r=3, use_dora=True),
        LoRAConfig(r=2, target_modules=("q_proj", "down_proj"), layers_to_transform=(0, 2, 2)),
        LoRAConfig(r=2, target_modules=("v_proj", "v_proj")),
    ],
)
def test_adapter_parameters_are_those_of_an_injection(lora: LoRAConfig) -> None:
    model = GPT(TINY)
    inject_lora(model, lora)
    assert adapter_parameters(TINY, lora) == trainable_parameter_count(model)


def test_smollm2_gets_2_4_million_of_them_at_rank_8() -> None:
    config = PUBLISHED_SHAPES["SmolLM2-135M"]
    q_or_o, k_or_v, mlp = 8 * (576 + 576), 8 * (576 + 192), 8 * (576 + 1536)
    lora = LoRAConfig(r=8, target_modules=LINEAR_LAYERS)
    expected = 30 * (2 * q_or_o + 2 * k_or_v + 3 * mlp)
    assert adapter_parameters(config, lora) == expected == 2_442_240
    with torch.device("meta"):
        model = GPT(config)
    inject_lora(model, lora)
    assert trainable_parameter_count(model) == expected


def test_a_target_that_is_no_matrix_of_a_block_is_refused() -> None:
    sentence = "'lm_head' is no matrix of a block: choose from q_proj, k_proj, v_proj, o_proj"
    with pytest.raises(ValueError, match=sentence):
        adapter_parameters(TINY, LoRAConfig(target_modules=("q_proj", "lm_head")))


def test_a_block_that_does_not_exist_is_refused() -> None:
    assert adapted_blocks(TINY, LoRAConfig(layers_to_transform=(2, 0))) == [0, 2]
    with pytest.raises(ValueError, match="names block 3: the model has 0 to 2"):
        adapted_blocks(TINY, LoRAConfig(layers_to_transform=(1, 3)))


def test_hub_names_have_shapes() -> None:
    assert published_shape("unsloth/Llama-3.2-1B-Instruct") is PUBLISHED_SHAPES["Llama-3.2-1B"]
    assert published_shape("Qwen/Qwen2.5-7B") is PUBLISHED_SHAPES["Qwen2.5-7B"]
    for name in ("some/model", "Qwen/Qwen2.5-72B", "a/Llama-3.2-1Bx", ""):
        assert published_shape(name) is None
