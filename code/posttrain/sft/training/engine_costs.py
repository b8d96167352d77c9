"""What a run takes, by engine: the formulas of chapter sft/lora, and what each trainer adds.

The three engines train the same adapter and hold other things beside it. By hand, conversations
are packed and logits are computed where a token is trained, 128 positions at a time. TRL pads
to the longest row, PEFT casts the input of each adapted matrix to float32, and the loss reads
256 positions at a time. Unsloth does the same on a CPU; on a GPU it has kernels of its own.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch

from posttrain.core.arguments import whole_number
from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.presets import SFTPreset, dtype_of
from posttrain.sft.training.memory import finetune_memory, kept_per_token
from posttrain.sft.training.model_shapes import (
    adapted_blocks,
    adapter_parameters,
    linear_shapes,
    total_parameters,
)

BY_HAND_BLOCK = 128
"""Positions whose logits exist at once in ``posttrain.sft.training.loss``."""

TRL_CHUNK = 256
"""Positions whose logits exist at once in TRL 1.14.2, whose default loss is ``chunked_nll``."""

UNSLOTH_ROWS, UNSLOTH_PARTS, UNSLOTH_BYTES = 512, 8, 2 * 2**30
"""Unsloth's loss on a GPU: an eighth of the positions at once, at least 512, up to 2 GiB."""

FILE_BYTES = 2  # published weights are in 16 bits


@dataclass(frozen=True)
class MicroBatch:
    """What a forward pass reads.

    Attributes:
        rows: Conversations.
        longest: Tokens of the longest.
        tokens: Tokens of all, without padding.
        trained: Tokens that are trained.

    Chapter: sft/your_model.
    """

    rows: int
    longest: int
    tokens: int
    trained: int

    @property
    def padded(self) -> int:
        """Tokens with every row filled up to the longest."""
        return self.rows * self.longest


def largest_micro_batch(
    lengths: Sequence[int], trained: Sequence[int], batch_size: int
) -> MicroBatch:
    """Put the longest conversations into one batch: none can need more.

    Args:
        lengths: Tokens of each conversation.
        trained: Tokens of each that are trained.
        batch_size: Conversations in a batch.

    Returns:
        The batch; smaller where there are fewer conversations.

    Raises:
        ValueError: If there is no conversation, or a number makes no sense.

    Chapter: sft/your_model.
    """
    batch_size = whole_number(batch_size, "batch_size", 1)
    if not lengths or len(lengths) != len(trained):
        raise ValueError(
            f"{len(lengths)} lengths and {len(trained)} numbers of trained tokens: give one of "
            "each for every conversation, and at least one conversation"
        )
    longest = sorted((whole_number(n, "a length", 1) for n in lengths), reverse=True)
    most = sorted((whole_number(n, "trained tokens") for n in trained), reverse=True)
    rows = longest[:batch_size]
    return MicroBatch(len(rows), rows[0], sum(rows), min(sum(most[:batch_size]), sum(rows)))


@dataclass(frozen=True)
class RunMemory:
    """Bytes that a run takes at its peak, part by part.

    Three parts are never there together: ``loading`` is over before training begins, ``logits``
    are gone before the backward pass needs its ``workspace``. So :attr:`growth` counts the
    largest of the three moments and not their sum.

    Attributes:
        weights: The frozen weights as the run holds them, in 16 or 32 bits or in 4.
        mapped: On a CPU, pages of the weights' file that stay in view because a part of it is
            in use as it lies there: beside matrices in 4 bits, the 16-bit ones that they were
            made from. They count as resident. The system takes them back where memory is short.
        adapter: The adapter, in float32.
        gradients: Its gradients.
        optimizer: AdamW's two moments.
        activations: What the forward pass keeps for the backward pass, without the logits.
        logits: Of the positions that the loss reads at once, with all that is made of them.
        workspace: What the backward pass holds only while an operation runs: one matrix turned
            from 4 bits into numbers, and the gradients of one block's inner channels.
        loading: What loading holds beside ``weights`` and ``mapped`` at its peak, such as the
            file in 16 bits beside a copy in 32.
        process: What is there before the model: on a CPU the process with its libraries, on a
            GPU the CUDA context. Assumed, and no part of :attr:`growth`.

    Chapter: sft/your_model.
    """

    weights: int
    mapped: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    workspace: int
    loading: int = 0
    process: int = 0

    @property
    def growth(self) -> int:
        """Bytes beyond those of the loaded process."""
        steady = ("adapter", "gradients", "optimizer", "activations")
        step = sum(getattr(self, name) for name in steady) + max(self.logits, self.workspace)
        return self.weights + self.mapped + max(step, self.loading)

    @property
    def needed(self) -> int:
        """Bytes that the machine must have: with the process, without the mapped pages."""
        return self.growth - self.mapped + self.process

    def parts(self) -> dict[str, int]:
        """List the parts.

        Returns:
            Bytes by name, in order.
        """
        return {field.name: getattr(self, field.name) for field in fields(self)}


def run_memory(
    preset: SFTPreset, config: GPTConfig, batch: MicroBatch, *, process: int = 0
) -> RunMemory:
    """Predict what a run takes at its peak.

    Weights, adapter, gradients and moments are those of
    :func:`posttrain.sft.training.memory.finetune_memory`. The rest depends on the engine.

    *Activations.* By hand: :func:`posttrain.sft.training.memory.kept_per_token`, for packed
    tokens; inside attention rows are padded. TRL and Unsloth on a CPU: see
    :func:`peft_kept_per_token`, for padded tokens. On a GPU both compute the activations of
    each block a second time and keep its input only; Unsloth moves that to main memory where it
    can, which is not counted on. There its own kernels keep what the run by hand keeps, without
    the attention's weights.

    *Logits.* By hand, of 128 positions: as the head gives them, in float32, and their
    log-probabilities; from the second block on also the gradient of the one before. TRL: four
    times float32 for 256 positions (logits, log-probabilities, and two for the entropy that it
    reports). Unsloth on a GPU: 8 bytes each, for an eighth of the positions or 512.

    *Workspace.* In 4 bits the largest matrix as numbers; by hand in float32 and the table's
    indices on the way. And for each token the gradients of a block's inner channels.

    *Loading.* On a CPU, a file whose type is the run's is used as it lies there. Else each
    tensor is copied while the file stays in view. By hand the whole model is in the run's type
    before the first matrix is turned into 4 bits, on a GPU too; transformers does it matrix by
    matrix.

    What the allocator keeps of freed memory is not in the formula.

    Args:
        preset: Engine, adapter, type, quantization and device.
        config: The model's shape.
        batch: The largest micro-batch.
        process: Bytes that are there before the model.

    Returns:
        The prediction, in bytes.

    Chapter: sft/your_model.
    """
    a = bytes_of(preset)
    on_gpu = preset.device == "cuda"
    plain = finetune_memory(
        config,
        "qlora" if preset.quantization else "lora",
        preset.lora,
        batch_size=1,
        T=1,
        weight_bytes=a,
        activation_bytes=a,
    )
    matrices = config.num_hidden_layers * sum(i * o for i, o in linear_shapes(config).values())
    file = FILE_BYTES * total_parameters(config)
    mapped = loading = 0
    if not on_gpu and a == FILE_BYTES and dtype_of(preset) == torch.bfloat16:
        mapped = FILE_BYTES * matrices if preset.quantization else 0
    elif not on_gpu:
        loading = file
    if preset.quantization and preset.engine == "by_hand" and not mapped:
        loading += total_parameters(config) * a - plain.weights
    return RunMemory(
        weights=plain.weights,
        mapped=mapped,
        adapter=plain.adapter,
        gradients=plain.gradients,
        optimizer=plain.optimizer,
        activations=_activations(preset, config, batch, a),
        logits=_logits(preset, config, batch, a),
        workspace=_workspace(preset, config, batch, a),
        loading=loading,
        process=process,
    )


def bytes_of(preset: SFTPreset) -> int:
    """Say how many bytes a number of a run takes.

    Args:
        preset: Its type; ``auto`` is that of this processor, and 16 bits on a GPU.

    Returns:
        2 or 4.

    Chapter: sft/your_model.
    """
    if preset.device == "cuda" and preset.dtype == "auto":
        return 2
    return dtype_of(preset).itemsize


def recomputes(preset: SFTPreset) -> bool:
    """Say whether a run computes the activations of each block a second time.

    Args:
        preset: Its engine and device.

    Returns:
        True for TRL and Unsloth on a GPU; see
        :func:`posttrain.sft.training.trl_engine.sft_config`.

    Chapter: sft/your_model.
    """
    return preset.device == "cuda" and preset.engine != "by_hand"


def pads(preset: SFTPreset) -> bool:
    """Say whether a run fills its rows up to the longest of the batch.

    Args:
        preset: Its engine.

    Returns:
        False for the run by hand, which packs.

    Chapter: sft/your_model.
    """
    return preset.engine != "by_hand"


def peft_kept_per_token(
    preset: SFTPreset, config: GPTConfig, T: int, *, padding: bool = False
) -> tuple[int, int]:
    """Count what one block of a transformers model with PEFT's adapters keeps of each token.

    With a bytes an activation. For the gradient to pass: 4 C + 4 for each of two norms;
    queries, keys, values and the result of the fused attention, and 4 H for its sums; 3 a times
    the inner width. Where rows are padded, keys and values are repeated for every query head,
    and each block has a mask of its own.

    For the adapters: PEFT computes them in float32. In 16 bits it casts the input of each
    matrix apart, so that q, k and v keep three copies of what they read. In float32 they share
    it, and o shares the attention's result. Then 4 r for each matrix; with dropout a mask as
    large as each dropped copy; with DoRA two outputs.

    Args:
        preset: The adapter and the type.
        config: The model's shape.
        T: Tokens in a row.
        padding: Whether there is any.

    Returns:
        Bytes for the gradient to pass, and bytes for the gradients of the adapters.

    Chapter: sft/your_model.
    """
    lora, a, C = preset.lora, bytes_of(preset), config.hidden_size
    H, D, inner = (
        config.num_attention_heads,
        config.channels_per_head,
        config.intermediate_size,
    )
    shared = H if padding else config.kv_heads
    passing = 2 * (4 * C + 4) + a * ((2 * H + 2 * shared) * D + 3 * inner) + 4 * H
    passing += a * T if padding else 0
    shapes, targets = linear_shapes(config), set(lora.target_modules)
    widths = sum(shapes[name][0] for name in targets)
    inputs = 4 * widths
    if a == 4 and not lora.lora_dropout:
        readers = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"})
        inputs = 4 * (C * sum(bool(targets & group) for group in readers))
        inputs += 4 * inner * ("down_proj" in targets)
    if lora.lora_dropout:
        inputs += 4 * widths
    kept = inputs + 4 * lora.r * len(targets)
    if lora.use_dora:
        kept += 8 * sum(shapes[name][1] for name in targets)
    return passing, kept


def _activations(preset: SFTPreset, config: GPTConfig, batch: MicroBatch, a: int) -> int:
    lora, L, C = preset.lora, config.num_hidden_layers, config.hidden_size
    adapted = adapted_blocks(config, lora)
    reached = L - adapted[0]  # blocks that a gradient passes
    copies = a * adapter_parameters(config, lora) * (a < 4)
    if preset.engine == "by_hand":
        passing, extra = kept_per_token(
            config, lora, batch.longest, weight_bytes=a, activation_bytes=a
        )
        heads = (config.num_attention_heads + 2 * config.kv_heads) * config.channels_per_head
        attention = a * (heads + config.num_attention_heads * batch.longest)
        per_block = batch.tokens * (passing - attention) + batch.padded * attention
        return reached * per_block + len(adapted) * batch.tokens * extra + copies
    if preset.device == "cuda" and preset.engine == "unsloth":
        passing, extra = kept_per_token(
            config, lora, 1, weight_bytes=a, activation_bytes=a, fused_attention=True
        )
    else:
        padding = batch.padded > batch.tokens
        passing, extra = peft_kept_per_token(preset, config, batch.longest, padding=padding)
        copies = 0  # PEFT computes its adapters in float32
    per_token = reached * passing + len(adapted) * extra
    if recomputes(preset):
        per_token = reached * C * a + passing + extra
    return batch.padded * per_token + copies


def _logits(preset: SFTPreset, config: GPTConfig, batch: MicroBatch, a: int) -> int:
    V = config.vocab_size
    if preset.engine == "by_hand":
        at_once = min(batch.trained, BY_HAND_BLOCK)
        more = 4 * BY_HAND_BLOCK * (batch.trained > BY_HAND_BLOCK)
        return V * (at_once * (8 if a == 4 else 8 + a) + more)
    if preset.engine == "unsloth" and preset.device == "cuda":
        rows = max(UNSLOTH_ROWS, -(-batch.padded // UNSLOTH_PARTS))
        rows = min(rows, UNSLOTH_BYTES // (8 * V))
        return 8 * V * min(rows, batch.padded)
    return 16 * V * min(TRL_CHUNK, batch.padded - batch.rows)  # no label for a first token


def _workspace(preset: SFTPreset, config: GPTConfig, batch: MicroBatch, a: int) -> int:
    largest = max(i * o for i, o in linear_shapes(config).values())
    by_hand = preset.engine == "by_hand"
    unpacked = largest * (6 if by_hand else a) if preset.quantization else 0
    tokens = batch.padded if pads(preset) else batch.tokens
    return unpacked + 3 * a * config.intermediate_size * tokens


def run_operations(
    preset: SFTPreset, config: GPTConfig, rows: int, longest: int, trained: int, tokens: int = 0
) -> float:
    """Count the floating-point operations of one micro-batch, forward and back.

    A frozen matrix gets no gradient, so a step needs two products with each where full training
    needs three: one forward, one for the gradient of its input, which only the blocks from the
    lowest adapter on need. Adapters need three. Where activations are computed a second time,
    the forward pass of the blocks counts twice. The head is read where the loss reads it: twice
    by hand, where the gradient is known at once, three times by the others, which forget the
    logits and compute them again.

    Args:
        preset: Engine, adapter and device.
        config: The model's shape.
        rows: Conversations.
        longest: Tokens of the longest.
        trained: Tokens that are trained.
        tokens: Tokens without padding; those with it where they are left out.

    Returns:
        Operations.

    Chapter: sft/your_model.
    """
    count, L = parameter_count(config), config.num_hidden_layers
    padded = rows * longest
    read = padded if pads(preset) else tokens or padded
    lora = preset.lora
    share = (L - adapted_blocks(config, lora)[0]) / L  # of the blocks that a gradient passes
    products = 2 * (count.attention + count.feed_forward) * read
    channels = config.num_attention_heads * config.channels_per_head
    scores = 4 * L * channels * longest * padded
    again = 1.0 if recomputes(preset) else 0.0
    blocks = products * (1 + share + again * share) + scores * (1 + 2 * share + again * share)
    adapters = 6 * adapter_parameters(config, lora) * read
    positions = -(-trained // TRL_CHUNK) * TRL_CHUNK if pads(preset) else trained
    head = 2 * config.vocab_size * config.hidden_size * min(positions, padded)
    return float(blocks + adapters + head * (3 if pads(preset) else 2))


def unpacked_weights(preset: SFTPreset, config: GPTConfig) -> int:
    """Count the 4-bit weights that one micro-batch turns into numbers.

    Args:
        preset: Quantization, adapter, engine and device.
        config: The model's shape.

    Returns:
        Each matrix once on the way forward and once on the way back, where a gradient passes
        it; once more where activations are computed a second time. 0 without 4-bit weights.

    Chapter: sft/your_model.
    """
    if not preset.quantization:
        return 0
    matrices = sum(i * o for i, o in linear_shapes(config).values())
    L = config.num_hidden_layers
    reached = L - adapted_blocks(config, preset.lora)[0]
    return matrices * (L + reached * (2 if recomputes(preset) else 1))
