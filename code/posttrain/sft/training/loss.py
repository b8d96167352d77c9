"""The loss of supervised fine-tuning: what the assistant said, given all that stands before it.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import PackedBatch

_BLOCK = 128  # positions whose logits exist at once: 25 MB for a vocabulary of 49,152


def masked_nll(logits: Tensor, labels: Tensor) -> tuple[Tensor, int]:
    """Sum the negative log-likelihood over trained positions, the plain way.

    A step divides the sum by the number of terms in the whole batch. Averaging each row first
    would give a token of a short answer more weight than a token of a long one.

    Args:
        logits: Shape (..., V).
        labels: The token that follows, or ``IGNORE_INDEX``, shape (...).

    Returns:
        The sum, in nats, a float32 scalar, and the number of its terms.

    Chapter: sft/fine_tuning.
    """
    trained = labels != IGNORE_INDEX
    logps = logits[trained].float().log_softmax(dim=-1)  # (M, V)
    return -logps.gather(-1, labels[trained, None]).sum(), int(trained.sum())


class _BlockwiseNLL(torch.autograd.Function):
    """Sum of -log p over positions, with the logits of one block of positions at a time.

    The gradient with respect to the logits is ``softmax - one_hot``: it is known as soon as the
    logits are. So it is multiplied by the head at once, and the logits are forgotten.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
        total = torch.zeros((), device=hidden.device)
        gradient = torch.empty_like(hidden)
        for start in range(0, len(labels), _BLOCK):
            rows = slice(start, start + _BLOCK)
            label = labels[rows, None]
            logps = F.linear(hidden[rows], weight).log_softmax(dim=-1, dtype=torch.float32)
            total -= logps.gather(1, label).sum()
            slope = logps.exp_()
            slope.scatter_add_(1, label, -torch.ones_like(label, dtype=slope.dtype))
            gradient[rows] = slope.to(weight.dtype) @ weight
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * slope.to(gradient.dtype), None, None


def blockwise_nll(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    """Sum the negative log-likelihood without ever holding all logits.

    For 500 trained tokens and 49,152 possible ones, the logits, their log-probabilities and
    their gradient are 295 MB in float32. Here a block of 128 positions is computed, turned into
    its gradient with respect to ``hidden``, and dropped.

    Args:
        hidden: Hidden states of the trained positions, shape (M, C).
        weight: Output head, frozen, shape (V, C).
        labels: The token that follows each, shape (M,).

    Returns:
        The sum, in nats, a float32 scalar.

    Raises:
        ValueError: If the head is to be trained too: its gradient is not computed here.

    Chapter: sft/fine_tuning.
    """
    if weight.requires_grad:
        raise ValueError(
            "the output head requires a gradient and this loss has none for it: freeze the "
            "head, or use masked_nll"
        )
    total: Tensor = _BlockwiseNLL.apply(hidden, weight, labels)
    return total


def sft_loss(model: GPT, batch: PackedBatch) -> tuple[Tensor, int]:
    """Score packed conversations the way ``posttrain.core.training.loop.train`` wants it.

    Logits are computed where a token is trained, and nowhere else; and in blocks, unless the
    head is trained, has an adapter or a bias, or is quantized.

    Args:
        model: A Llama-style model, with or without adapters.
        batch: The packed conversations.

    Returns:
        The loss summed over the trained tokens, in nats, and their number.

    Chapter: sft/fine_tuning.
    """
    trained = batch.labels != IGNORE_INDEX
    hidden = packed_hidden(model, batch)[trained]  # (M, C)
    labels = batch.labels[trained]
    head = model.lm_head
    if type(head) is nn.Linear and head.bias is None and not head.weight.requires_grad:
        return blockwise_nll(hidden, head.weight, labels), len(labels)
    return masked_nll(head(hidden), labels)
