"""Parameters, floating-point operations and bytes, by formula.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from posttrain.core.arguments import whole_number
from posttrain.pretraining.model.gpt import GPTConfig


@dataclass(frozen=True)
class ParameterCount:
    """Parameters by where they sit.

    Attributes:
        embedding: Token embedding, and position embedding where positions are learned.
        attention: Query, key, value and output projections of all layers.
        feed_forward: Feed-forward projections of all layers.
        norms: Scales of all norms.
        head: Output head; 0 where it is the embedding.
        biases: Of queries, keys and values in all layers; 0 where there are none.
    """

    embedding: int
    attention: int
    feed_forward: int
    norms: int
    head: int
    biases: int = 0

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(getattr(self, field.name) for field in fields(self))


def parameter_count(config: GPTConfig) -> ParameterCount:
    """Count parameters from the shape alone.

    Args:
        config: The model's shape.

    Returns:
        The counts.

    Chapter: pretraining/gpt.
    """
    C, V = config.hidden_size, config.vocab_size
    D, L = config.channels_per_head, config.num_hidden_layers
    learned = config.max_position_embeddings if config.position == "learned" else 0
    query_and_output = 2 * C * config.num_attention_heads * D
    key_and_value = 2 * C * config.kv_heads * D
    heads_with_bias = config.num_attention_heads + 2 * config.kv_heads if config.qkv_bias else 0
    matrices = 3 if config.mlp == "swiglu" else 2
    return ParameterCount(
        embedding=(V + learned) * C,
        attention=L * (query_and_output + key_and_value),
        feed_forward=L * matrices * C * config.intermediate_size,
        norms=(2 * L + 1) * C,
        head=0 if config.tie_word_embeddings else V * C,
        biases=L * heads_with_bias * D,
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

    Raises:
        ValueError: If there is no token.

    Chapter: pretraining/gpt.
    """  # noqa: DOC502
    T = whole_number(T, "T", 1)
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


def training_memory(
    config: GPTConfig, batch_size: int, T: int, bytes_each: int = 4
) -> TrainingMemory:
    """Predict the memory of a training step from shapes.

    Each operation keeps what its gradient needs. Per token and layer, in float32: 4 C for two
    RMSNorms (input and normalized input; LayerNorm keeps its input only); C + (2 H + 2 H_kv) D
    + H T for attention (its input, q, k, v, the weights over T positions, the mix); C + 4 times
    the inner width for SwiGLU (its input, gate, activated gate, up, product; 2 times for GELU).
    With bfloat16 by autocast the norms stay in float32, each product casts an input of its own,
    and the cast weights are kept too. The log-probabilities and their gradient are float32.

    Args:
        config: The model's shape.
        batch_size: Sequences.
        T: Tokens in each.
        bytes_each: Bytes of an activation: 4 for float32, 2 for bfloat16 by autocast.

    Returns:
        The prediction, in bytes.

    Raises:
        ValueError: If there is no sequence or no token, or an activation has another size.

    Chapter: pretraining/gpt.
    """
    batch_size, T = whole_number(batch_size, "batch_size", 1), whole_number(T, "T", 1)
    if bytes_each not in (2, 4):
        raise ValueError(f"bytes_each is {bytes_each!r}: give 4 or 2")
    count = parameter_count(config)
    parameters, C, H = count.total, config.hidden_size, config.num_attention_heads
    gated, cast = config.mlp == "swiglu", bytes_each < 4
    readers = 3 + (2 if gated else 1) if cast else 2  # copies of a norm's output
    heads = (2 * H + 2 * config.kv_heads) * config.channels_per_head
    inner = (4 if gated else 2) * config.intermediate_size
    norms = (4 if config.norm == "rmsnorm" else 2) * C * 4
    per_layer = norms + (readers * C + heads + H * T + inner) * bytes_each
    per_token = config.num_hidden_layers * per_layer + 2 * config.vocab_size * 4
    cast_weights = parameters * bytes_each if cast else 0
    return TrainingMemory(
        weights=4 * parameters,
        gradients=4 * parameters,
        optimizer=8 * parameters,
        activations=batch_size * T * per_token + cast_weights,
    )
