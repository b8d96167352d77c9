"""The model on packed documents: products on one dense row, attention document by document.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.arguments import whole_number
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.model.attention import (
    SelfAttention,
    apply_rotary,
    causal_mask,
    rotary_angles,
    scaled_dot_product_attention,
)
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT, Block, check_unchanged
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.training.packing import PackedBatch, pack


class _ToTable(torch.autograd.Function):
    """Copy rows to their slots in a table of zeros; the gradient copies them back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, slots: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots)
        return rows.new_zeros(size, rows.shape[1]).index_copy_(0, slots, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0].index_select(0, ctx.saved_tensors[0]), None, None


class _FromTable(torch.autograd.Function):
    """Read the rows out of their slots; the gradient of what is not read is zero."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.size = table.shape[0]
        return table.index_select(0, slots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        rows = gradients[0]
        table = rows.new_zeros(ctx.size, rows.shape[1])
        return table.index_copy_(0, ctx.saved_tensors[0], rows), None


class PackedLayout:
    """Where the tokens of a packed batch stand once documents are rows again.

    Documents are padded on the right for the moment of attention only. There the causal mask
    alone is enough: padding stands after every real token, and what padded queries gather is
    never read.

    Args:
        batch: The packed documents.
        config: The model's shape.
    """

    def __init__(self, batch: PackedBatch, config: GPTConfig) -> None:
        self.documents, self.longest = len(batch.lengths), batch.longest
        self.slots, self.head_dim = batch.slots, config.channels_per_head
        device = batch.input_ids.device
        positions = torch.arange(self.longest, device=device)[None]
        self.rotary = rotary_angles(
            positions, self.head_dim, config.rope_theta, config.rope_scaling
        )
        self.mask = causal_mask(self.longest).to(device)

    def to_table(self, x: Tensor) -> Tensor:
        """Turn rows of tokens into heads of documents.

        Args:
            x: Shape (N, H * D).

        Returns:
            Shape (documents, H, T, D), zero on padding.
        """
        table = _ToTable.apply(x, self.slots, self.documents * self.longest)
        shape = (self.documents, self.longest, -1, self.head_dim)
        return table.view(shape).transpose(1, 2)

    def from_table(self, x: Tensor) -> Tensor:
        """Turn heads of documents into rows of tokens.

        Args:
            x: Shape (documents, H, T, D).

        Returns:
            Shape (N, H * D).
        """
        table = x.transpose(1, 2).reshape(self.documents * self.longest, -1)
        rows: Tensor = _FromTable.apply(table, self.slots)
        return rows


def packed_attention(attention: SelfAttention, x: Tensor, layout: PackedLayout) -> Tensor:
    """Let each token read from its own document.

    Args:
        attention: The layer; its projections may carry adapters.
        x: Normed residual stream of all documents, shape (N, C).
        layout: Where the documents begin and end.

    Returns:
        What attention adds to the residual stream, shape (N, C).

    Chapter: sft/fine_tuning.
    """
    q, k, v = (
        layout.to_table(project(x))  # (documents, H or H_kv, T, D)
        for project in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    q, k = apply_rotary(q, *layout.rotary), apply_rotary(k, *layout.rotary)
    mixed = scaled_dot_product_attention(q, k, v, layout.mask)
    return attention.o_proj(layout.from_table(mixed))


def packed_stream(model: GPT, batch: PackedBatch, last_block: int | None = None) -> Tensor:
    """Run the blocks on packed documents.

    Args:
        model: A Llama-style model.
        batch: The packed documents. Where they bring their residual stream, the blocks that
            made it are skipped.
        last_block: Stop before this block; ``None`` runs all of them.

    Returns:
        Residual stream, shape (N, C).

    Raises:
        ValueError: If the model has learned positions or is a subclass that computes something
            else, or a document exceeds its context.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    config = model.config
    check_unchanged(model)
    if config.position != "rope":
        raise ValueError("only a model with rotary positions reads packed documents here")
    if batch.longest > config.max_position_embeddings:
        raise ValueError(
            f"a document of {batch.longest} tokens exceeds the model's context of "
            f"{config.max_position_embeddings}: truncate it before packing"
        )
    layout = PackedLayout(batch, config)
    x = model.embed_tokens(batch.input_ids) if batch.stream is None else batch.stream  # (N, C)
    for block in model.layers[batch.first_block : last_block]:
        assert isinstance(block, Block)
        x = x + packed_attention(block.self_attn, block.input_layernorm(x), layout)
        x = x + block.mlp(block.post_attention_layernorm(x))
    return x


def packed_hidden(model: GPT, batch: PackedBatch) -> Tensor:
    """Run the model on packed documents, up to the last norm.

    Args:
        model: A Llama-style model.
        batch: The packed documents.

    Returns:
        Hidden states before the output head, shape (N, C).

    Raises:
        ValueError: If the model has learned positions, or a document exceeds its context.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    hidden: Tensor = model.norm(packed_stream(model, batch))
    return hidden


@torch.no_grad()
@in_evaluation_mode
def frozen_streams(
    model: GPT, examples: Sequence[EncodedChat], first_block: int, batch_size: int = 16
) -> list[Tensor]:
    """Run the blocks below the first adapted one, once for all epochs.

    A frozen block gives the same output for the same tokens in every epoch, so where only the
    upper blocks carry adapters, the lower ones need to run once.

    Args:
        model: A Llama-style model whose blocks below ``first_block`` stay as they are.
        examples: Conversations.
        first_block: The first block that will be trained.
        batch_size: Conversations at once.

    Returns:
        Residual stream of each example before that block, shape (its tokens, C) each.

    Raises:
        ValueError: If a parameter below ``first_block`` is trainable.

    Chapter: sft/fine_tuning.
    """
    below = nn.ModuleList([model.embed_tokens, *model.layers[:first_block]])
    if any(parameter.requires_grad for parameter in below.parameters()):
        raise ValueError(
            f"a parameter below block {first_block} is trained, so its output will change: "
            "name a lower block, or freeze it"
        )
    batch_size = whole_number(batch_size, "batch_size", 1)
    streams: list[Tensor] = []
    for start in range(0, len(examples), batch_size):
        batch = pack(examples[start : start + batch_size]).to(model.device)
        streams += packed_stream(model, batch, first_block).split(batch.lengths)
    return streams


_STREAMS: dict[str, list[Tensor]] = {}


def cached_streams(
    model: GPT, examples: Sequence[EncodedChat], first_block: int, origin: str
) -> list[Tensor]:
    """Run :func:`frozen_streams` once per process: the runs of a sweep share its result.

    Args:
        model: As there.
        examples: As there.
        first_block: As there.
        origin: Which frozen weights the model has; the same text for the same weights.

    Returns:
        As there.

    Chapter: sft/fine_tuning.
    """
    ids = [example.input_ids for example in examples]
    key = hashlib.sha256(json.dumps([origin, first_block, ids]).encode()).hexdigest()
    if key not in _STREAMS:
        _STREAMS[key] = frozen_streams(model, examples, first_block)
    return _STREAMS[key]
