"""What fine-tuning needs in memory, by formula and by counting tensors.

Chapter: sft/lora, sft/qlora.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields
from typing import Literal

import torch
from torch import Tensor, nn

from posttrain.core.arguments import whole_number
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.quantization.nf4 import bits_per_weight
from posttrain.sft.training.model_shapes import (
    PUBLISHED_SHAPES,
    adapted_blocks,
    adapter_parameters,
    linear_shapes,
    total_parameters,
)

__all__ = [
    "NF4_BITS",
    "PUBLISHED_SHAPES",
    "FineTuneMemory",
    "adapter_parameters",
    "finetune_memory",
    "kept_for_backward",
    "kept_per_token",
    "linear_shapes",
    "measured_training_bytes",
    "total_parameters",
]

NF4_BITS = bits_per_weight(64, double_quant=True)  # 4.127 for each weight


@dataclass(frozen=True)
class FineTuneMemory:
    """Bytes that fine-tuning needs.

    Attributes:
        weights: The model's weights.
        adapter: The adapter's weights; 0 where the whole model is trained.
        gradients: Gradients of what is trained.
        optimizer: AdamW's two moments of what is trained.
        activations: What the forward pass keeps for the backward pass, without the logits.
        logits: Log-probabilities of the trained tokens, and their gradient.

    Chapter: sft/lora.
    """

    weights: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        """All bytes."""
        return sum(getattr(self, field.name) for field in fields(self))


def finetune_memory(
    config: GPTConfig,
    method: Literal["full", "lora", "qlora"],
    lora: LoRAConfig | None = None,
    *,
    batch_size: int,
    T: int,
    weight_bytes: int = 4,
    activation_bytes: int = 4,
    trained_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    fused_attention: bool = False,
) -> FineTuneMemory:
    """Predict the memory of a training step from shapes.

    P parameters take P b bytes; with ``"qlora"`` those of the blocks' matrices take
    ``NF4_BITS`` bits each. Full training adds P b for gradients and 2 P b for moments. An
    adapter of A parameters adds 4 A, 4 A for gradients and 8 A for moments: it is in float32.

    For the activations see :func:`kept_per_token`. Blocks below the lowest adapter keep none.
    With ``gradient_checkpointing`` each block keeps its input, and one block at a time the
    rest. Where products run in fewer bits than the weights, the cast weights are kept as well.
    The logits take 8 V for each trained token: log-probabilities and their gradient, float32.

    What an operation needs only while it runs, such as one dequantized matrix, is not counted.

    Args:
        config: The model's shape.
        method: What is trained, and how the frozen weights are kept.
        lora: The adapter, for ``"lora"`` and ``"qlora"``.
        batch_size: Sequences.
        T: Tokens in each.
        weight_bytes: Bytes b of a weight that is not quantized: 4 or 2.
        activation_bytes: Bytes a of an activation: 4, or 2 where products run in 16 bits.
        trained_tokens: Tokens that get logits; all where it is left out.
        gradient_checkpointing: Compute the activations of each block a second time.
        fused_attention: Attention by a kernel that does not keep its weights.

    Returns:
        The prediction, in bytes.

    Raises:
        ValueError: If the method is unknown, an adapter is missing or too much, or a number of
            sequences, tokens or bytes makes no sense by itself.

    Chapter: sft/lora, sft/qlora.
    """  # noqa: DOC502
    batch_size, T = whole_number(batch_size, "batch_size", 1), whole_number(T, "T", 1)
    tokens, L, b, a = batch_size * T, config.num_hidden_layers, weight_bytes, activation_bytes
    trained = tokens if trained_tokens is None else trained_tokens
    trained = whole_number(trained, "trained_tokens")
    _check(method, lora, (b, a), tokens, trained)
    P, head = total_parameters(config), config.vocab_size * config.hidden_size
    matrices = L * sum(i * o for i, o in linear_shapes(config).values())
    A = 0 if lora is None else adapter_parameters(config, lora)
    packed = matrices if method == "qlora" else 0
    moved = P * b if lora is None else 4 * A
    adapted = list(range(L)) if lora is None else adapted_blocks(config, lora)
    reached = L - adapted[0]  # blocks that a gradient passes
    passing, extra = kept_per_token(
        config, lora, T, weight_bytes=b, activation_bytes=a, fused_attention=fused_attention
    )
    per_token = reached * passing + len(adapted) * extra
    if gradient_checkpointing:
        per_token = reached * config.hidden_size * b + passing + extra
    cast = P if lora is None else head + (matrices - packed) * reached // L
    copies = cast * a * (a < b) + A * a * (a < 4)
    return FineTuneMemory(
        weights=(P - packed) * b + round(packed * NF4_BITS / 8),
        adapter=4 * A,
        gradients=moved,
        optimizer=2 * moved,
        activations=tokens * per_token + copies,
        logits=8 * config.vocab_size * trained,
    )


def kept_per_token(
    config: GPTConfig,
    lora: LoRAConfig | None,
    T: int,
    *,
    weight_bytes: int = 4,
    activation_bytes: int = 4,
    fused_attention: bool = False,
) -> tuple[int, int]:
    """Count what one block keeps of each token for the backward pass.

    For the gradient to pass, with a bytes an activation: 4 C for the input of each of two
    norms; a (H + 2 H_kv) D for queries, keys and values; a H T for the attention's weights; 3 a
    times the inner width for SwiGLU (gate, activated gate, up; GELU: its input alone).

    For the gradients of weights, the inputs of the matrices that are trained or have an
    adapter: a C for q, k, v together and for gate, up together, or for each of them where
    products cast their own copy; a H D for o; a times the inner width for down. Then a r for
    each adapter. Full training: b C for each RMSNorm. DoRA: two outputs of each matrix.
    Dropout: instead of the input, a dropped copy of it for each matrix, and the mask.

    In the lowest block with an adapter a little less is kept: no gradient passes its first
    norm, nor its attention's scores where only later matrices have adapters.

    Args:
        config: The model's shape.
        lora: The adapter; ``None`` for full training.
        T: Tokens in a sequence.
        weight_bytes: Bytes of a weight that is not quantized, b.
        activation_bytes: Bytes of an activation, a.
        fused_attention: Attention by a kernel that does not keep its weights.

    Returns:
        Bytes for the gradient to pass, and bytes for the gradients of the block's weights.

    Raises:
        ValueError: If there is no token, or a number of bytes makes no sense.

    Chapter: sft/lora.
    """  # noqa: DOC502
    T = whole_number(T, "T", 1)
    _check_bytes(weight_bytes, activation_bytes)
    a, b, C, inner = (
        activation_bytes,
        weight_bytes,
        config.hidden_size,
        config.intermediate_size,
    )
    H, D = config.num_attention_heads, config.channels_per_head
    shapes = linear_shapes(config)
    scores = 0 if fused_attention else H * T
    states = inner * (3 if config.mlp == "swiglu" else 1)
    norm = 4 * C if config.norm == "rmsnorm" else b * C  # RMSNorm computes in float32
    passing = 2 * norm + a * ((H + 2 * config.kv_heads) * D + scores + states)
    targets = set(shapes) if lora is None else set(lora.target_modules)
    readers = [len(targets & group) for group in ({"q_proj", "k_proj", "v_proj"},
                                                  {"gate_proj", "up_proj"})]  # fmt: skip
    inputs = C * sum(n if a < b else min(n, 1) for n in readers)
    inputs += sum(shapes[name][0] for name in ("o_proj", "down_proj") if name in targets)
    if lora is None:
        return passing, a * inputs + (2 * b * C if config.norm == "rmsnorm" else 0)
    kept = a * (inputs + lora.r * len(targets))
    if lora.lora_dropout:
        masks = {"o_proj": a, "down_proj": a}  # the others read a norm's output, of b bytes
        kept -= a * inputs
        kept += sum(shapes[name][0] * (a + masks.get(name, b)) for name in targets)
    if lora.use_dora:
        kept += 2 * a * sum(shapes[name][1] for name in targets)
    return passing, kept


def _check(
    method: str, lora: LoRAConfig | None, sizes: tuple[int, int], tokens: int, trained: int
) -> None:
    if method not in ("full", "lora", "qlora"):
        raise ValueError(f"method is {method!r}: choose 'full', 'lora' or 'qlora'")
    if (lora is None) != (method == "full"):
        raise ValueError(
            f"method {method!r} with lora={lora!r}: 'full' has no adapter, the others need one"
        )
    _check_bytes(*sizes)
    if trained > tokens:
        raise ValueError(
            f"trained_tokens is {trained} and batch_size x T = {tokens}: give no more than that"
        )


def _check_bytes(weight_bytes: int, activation_bytes: int) -> None:
    sizes = weight_bytes, activation_bytes
    if not set(sizes) <= {2, 4} or activation_bytes > weight_bytes:
        raise ValueError(
            f"weight_bytes and activation_bytes are {sizes}: give 4 and 4, 4 and 2, or 2 and 2"
        )


def measured_training_bytes(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> FineTuneMemory:
    """Count the tensors of a training run, each storage once.

    Beside its moments, AdamW keeps the number of steps of each parameter tensor as a float32:
    4 bytes each, which are in the count and not in the formula.

    Args:
        model: The model, after a backward pass; buffers count as weights.
        optimizer: Its optimizer, after a step.

    Returns:
        The count, in bytes, without activations and logits.

    Chapter: sft/lora.
    """
    tensors = [*model.named_parameters(), *model.named_buffers()]
    state = [x for values in optimizer.state.values() for x in values.values()]
    return FineTuneMemory(
        weights=_storage_bytes(x for name, x in tensors if ".lora_" not in name),
        adapter=_storage_bytes(x for name, x in tensors if ".lora_" in name),
        gradients=_storage_bytes(p.grad for p in model.parameters() if p.grad is not None),
        optimizer=_storage_bytes(x for x in state if isinstance(x, Tensor)),
    )


def _storage_bytes(tensors: Iterable[Tensor]) -> int:
    storages = (tensor.untyped_storage() for tensor in tensors)
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def kept_for_backward(forward: Callable[[], object], model: nn.Module) -> int:
    """Count what a forward pass keeps for the backward pass, each storage once.

    Args:
        forward: Runs the forward pass and returns its result, which keeps the graph alive.
        model: Its parameters and buffers are left out.

    Returns:
        Bytes.

    Chapter: sft/lora.
    """
    own = {x.untyped_storage().data_ptr() for x in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage  # held, so that no other one gets its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())
