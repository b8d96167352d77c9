"""Shapes of published models, their parameters and those of an adapter.

Chapter: sft/lora.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.adapters.lora import LoRAConfig


@dataclass(frozen=True)
class ModelShape(GPTConfig):
    """Shape of a published model: a :class:`GPTConfig`, and what our GPT does not have.

    What no count depends on, such as the context, is left at the defaults.

    Attributes:
        qkv_bias: Whether queries, keys and values have biases, as in Qwen2.5.

    Chapter: sft/lora.
    """

    qkv_bias: bool = False


def _shape(
    V: int, C: int, inner: int, L: int, H: int, H_kv: int, *, tied: bool, qkv_bias: bool = False
) -> ModelShape:
    return ModelShape(
        vocab_size=V, hidden_size=C, intermediate_size=inner, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=H_kv, tie_word_embeddings=tied,
        qkv_bias=qkv_bias,
    )  # fmt: skip


PUBLISHED_SHAPES = {
    "SmolLM2-135M": _shape(49_152, 576, 1536, 30, 9, 3, tied=True),
    "Llama-3.2-1B": _shape(128_256, 2048, 8192, 16, 32, 8, tied=True),
    "Qwen2.5-1.5B": _shape(151_936, 1536, 8960, 28, 12, 2, tied=True, qkv_bias=True),
    "Llama-2-7B": _shape(32_000, 4096, 11_008, 32, 32, 32, tied=False),
    "Qwen2.5-7B": _shape(152_064, 3584, 18_944, 28, 28, 4, tied=False, qkv_bias=True),
    "Llama-3.1-8B": _shape(128_256, 4096, 14_336, 32, 32, 8, tied=False),
    "Llama-3.1-70B": _shape(128_256, 8192, 28_672, 80, 64, 8, tied=False),
}


def total_parameters(config: GPTConfig) -> int:
    """Count a model's parameters.

    Args:
        config: The model's shape.

    Returns:
        All parameters, biases included; a tied head counts once.

    Chapter: sft/lora.
    """
    rows = (config.num_attention_heads + 2 * config.kv_heads) * config.channels_per_head
    biases = config.num_hidden_layers * rows if getattr(config, "qkv_bias", False) else 0
    return parameter_count(config).total + biases


def linear_shapes(config: GPTConfig) -> dict[str, tuple[int, int]]:
    """List the matrices of one block.

    Args:
        config: The model's shape.

    Returns:
        Input and output channels, by name.

    Chapter: sft/lora.
    """
    C, inner = config.hidden_size, config.intermediate_size
    queries = config.num_attention_heads * config.channels_per_head
    keys = config.kv_heads * config.channels_per_head
    shapes = {"q_proj": (C, queries), "k_proj": (C, keys), "v_proj": (C, keys)}
    shapes |= {"o_proj": (queries, C), "gate_proj": (C, inner), "up_proj": (C, inner)}
    if config.mlp == "gelu":
        del shapes["gate_proj"]
    return shapes | {"down_proj": (inner, C)}


def adapter_parameters(config: GPTConfig, lora: LoRAConfig) -> int:
    """Count an adapter's parameters: r (in + out) per matrix, and with DoRA out more.

    Args:
        config: The model's shape.
        lora: The adapter; its targets must be matrices of a block.

    Returns:
        How many numbers it trains.

    Raises:
        ValueError: If a target is no matrix of a block, or a block does not exist.

    Chapter: sft/lora.
    """
    shapes = linear_shapes(config)
    for target in lora.target_modules:
        if target not in shapes:
            raise ValueError(
                f"{target!r} is no matrix of a block: choose from {', '.join(shapes)}"
            )
    blocks = adapted_blocks(config, lora)
    chosen = [shapes[target] for target in set(lora.target_modules)]
    return len(blocks) * sum(lora.r * (i + o) + lora.use_dora * o for i, o in chosen)


def adapted_blocks(config: GPTConfig, lora: LoRAConfig) -> list[int]:
    """List the blocks that get adapters.

    Args:
        config: The model's shape.
        lora: The adapter.

    Returns:
        Their indices, ascending.

    Raises:
        ValueError: If one does not exist.

    Chapter: sft/lora.
    """
    L = config.num_hidden_layers
    if lora.layers_to_transform is None:
        return list(range(L))
    if (last := max(lora.layers_to_transform)) >= L:
        raise ValueError(f"layers_to_transform names block {last}: the model has 0 to {L - 1}")
    return sorted(set(lora.layers_to_transform))
