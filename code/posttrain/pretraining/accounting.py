"""Parameters, floating-point operations and bytes, by formula.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.pretraining.gpt import GPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by where they sit.

    Attributes:
        embedding: Token embedding, and position embedding where positions are learned.
        attention: Query, key, value and output projections of all layers.
        feed_forward: Feed-forward projections of all layers.
        norms: Scales of all norms.
        head: Output head; 0 where it is the embedding.
    """

    embedding: int
    attention: int
    feed_forward: int
    norms: int
    head: int

    @property
    def total(self) -> int:
        """All parameters."""
        return self.embedding + self.attention + self.feed_forward + self.norms + self.head


def parameter_count(config: GPTConfig) -> ParameterCount:
    """Count parameters from the shape alone.

    Args:
        config: The model's shape.

    Returns:
        The counts.

    Chapter: pretraining/gpt.
    """
    C, D, L, V = (
        config.hidden_size, config.channels_per_head, config.num_hidden_layers, config.vocab_size
    )  # fmt: skip
    learned = config.max_position_embeddings if config.position == "learned" else 0
    query_and_output = 2 * C * config.num_attention_heads * D
    key_and_value = 2 * C * config.kv_heads * D
    matrices = 3 if config.mlp == "swiglu" else 2
    return ParameterCount(
        embedding=(V + learned) * C,
        attention=L * (query_and_output + key_and_value),
        feed_forward=L * matrices * C * config.intermediate_size,
        norms=(2 * L + 1) * C,
        head=0 if config.tie_word_embeddings else V * C,
    )


def forward_flops(config: GPTConfig, T: int) -> int:
    """Count the operations of one forward pass over ``T`` tokens with logits for all of them.

    A matrix product of (m, k) and (k, n) takes 2 m k n operations. Products are all that is
    counted. The masked half of the scores is counted too, since it is computed.

    Args:
        config: The model's shape.
        T: Tokens in the sequence.

    Returns:
        Floating-point operations.

    Chapter: pretraining/gpt.
    """
    count = parameter_count(config)
    in_products = count.attention + count.feed_forward + config.vocab_size * config.hidden_size
    channels = config.num_attention_heads * config.channels_per_head
    scores_and_mixing = 2 * config.num_hidden_layers * channels * T  # per token
    return 2 * T * (in_products + scores_and_mixing)


def training_flops(config: GPTConfig, T: int) -> int:
    """Count the operations of a training step over ``T`` tokens.

    The backward pass multiplies by each matrix twice: once for the gradient of its input, once
    for the gradient of its weights. So a step costs three forward passes.

    Args:
        config: The model's shape.
        T: Tokens in the sequence.

    Returns:
        Floating-point operations.

    Chapter: pretraining/gpt.
    """
    return 3 * forward_flops(config, T)


@dataclass(frozen=True)
class TrainingMemory:
    """Bytes that a training step needs.

    Attributes:
        weights: Float32 weights.
        gradients: Float32 gradients.
        optimizer: AdamW's two float32 moments.
        activations: What the forward pass keeps for the backward pass; an estimate.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        """All bytes."""
        return self.weights + self.gradients + self.optimizer + self.activations


def training_memory(config: GPTConfig, batch_size: int, T: int, bytes_each: int = 4) -> TrainingMemory:
    """Predict the memory of a training step from shapes.

    Kept per token and layer: about 6 C around attention (its input, q, k, v, the mix and the
    residual), 3 C around the feed-forward layer, 3 or 4 times its inner width, and three
    (H, T) score tables. Logits are kept twice, in float32.

    Args:
        config: The model's shape.
        batch_size: Sequences.
        T: Tokens in each.
        bytes_each: Bytes of an activation: 4 for float32, 2 for bfloat16.

    Returns:
        The prediction, in bytes.

    Chapter: pretraining/gpt.
    """
    parameters = parameter_count(config).total
    inner = 4 if config.mlp == "swiglu" else 2
    per_layer = (
        9 * config.hidden_size
        + inner * config.intermediate_size
        + 3 * config.num_attention_heads * T
    )
    tokens = batch_size * T
    activations = tokens * config.num_hidden_layers * per_layer * bytes_each
    logits = 2 * tokens * config.vocab_size * 4
    return TrainingMemory(4 * parameters, 4 * parameters, 8 * parameters, activations + logits)
