"""Shapes of published models, their parameters and those of an adapter.

Chapter: sft/lora.
"""

from __future__ import annotations

from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.config import GPTConfig, RopeScaling
from posttrain.sft.adapters.lora import LoRAConfig


def _llama(
    C: int, inner: int, L: int, H: int, H_kv: int, *, tied: bool = False, factor: float = 8.0
) -> GPTConfig:
    """Return the shape of a Llama 3.1 or 3.2; its context is stretched by ``factor``."""
    return GPTConfig(
        vocab_size=128_256, hidden_size=C, intermediate_size=inner, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=H_kv, tie_word_embeddings=tied,
        max_position_embeddings=131_072, rope_theta=500_000.0, rms_norm_eps=1e-5,
        rope_scaling=RopeScaling(
            factor, low_freq_factor=1.0, high_freq_factor=4.0,
            original_max_position_embeddings=8192,
        ),
    )  # fmt: skip


def _qwen(
    V: int, C: int, inner: int, L: int, H: int, H_kv: int, *, tied: bool = False
) -> GPTConfig:
    """Return the shape of a Qwen2.5."""
    return GPTConfig(
        vocab_size=V, hidden_size=C, intermediate_size=inner, num_hidden_layers=L,
        num_attention_heads=H, num_key_value_heads=H_kv, tie_word_embeddings=tied,
        max_position_embeddings=32_768, rope_theta=1_000_000.0, rms_norm_eps=1e-6,
        qkv_bias=True,
    )  # fmt: skip


# As in the configurations that their makers published.
PUBLISHED_SHAPES = {
    "SmolLM2-135M": GPTConfig(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, max_position_embeddings=8192,
        rope_theta=100_000.0,
    ),
    "Llama-3.2-1B": _llama(2048, 8192, 16, 32, 8, tied=True, factor=32.0),
    "Qwen2.5-1.5B": _qwen(151_936, 1536, 8960, 28, 12, 2, tied=True),
    "Llama-2-7B": GPTConfig(
        vocab_size=32_000, hidden_size=4096, intermediate_size=11_008, num_hidden_layers=32,
        num_attention_heads=32, max_position_embeddings=4096, tie_word_embeddings=False,
    ),
    "Qwen2.5-7B": _qwen(152_064, 3584, 18_944, 28, 28, 4),
    "Llama-3.1-8B": _llama(4096, 14_336, 32, 32, 8),
    "Llama-3.1-70B": _llama(8192, 28_672, 80, 64, 8),
}  # fmt: skip


def published_shape(name: str) -> GPTConfig | None:
    """Find the shape of a published model by its name on the hub.

    Args:
        name: Such as ``unsloth/Llama-3.2-1B-Instruct``.

    Returns:
        The shape, or ``None`` where it stands in no table here.

    Chapter: sft/your_model.
    """
    own = name.rpartition("/")[2].lower()
    for known, shape in PUBLISHED_SHAPES.items():
        if own == known.lower() or own.startswith(f"{known.lower()}-"):
            return shape
    return None


def total_parameters(config: GPTConfig) -> int:
    """Count a model's parameters.

    Args:
        config: The model's shape.

    Returns:
        All parameters, biases included; a tied head counts once.

    Chapter: sft/lora.
    """
    return parameter_count(config).total


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
