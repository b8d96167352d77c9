"""LoRA's product with its gradient written out: what has to be kept, and what need not be.

Chapter: sft/lora.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class _LoRAProduct(torch.autograd.Function):
    """``y = x W^T + s (x A^T) B^T`` for a frozen ``W``, on rows of tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
        ctx.scaling, ctx.adapter_dtype = scaling, A.dtype
        A, B = A.to(x.dtype), B.to(x.dtype)
        h = x @ A.T  # (N, r)
        ctx.save_for_backward(x, W, A, B, h)
        return F.linear(x, W).addmm_(h, B.T, alpha=scaling)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x, W, A, B, h = ctx.saved_tensors
        gh = (g @ B).mul_(ctx.scaling)  # (N, r)
        gx = (g @ W).addmm_(gh, A) if ctx.needs_input_grad[0] else None
        gA = (gh.T @ x).to(ctx.adapter_dtype)
        gB = (h.T @ g).T.to(ctx.adapter_dtype) * ctx.scaling
        return gx, None, gA, gB, None


def lora_product(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """Multiply by a frozen matrix and its low-rank update.

    With ``h = x A^T`` the gradients of Hu et al. (2021, Eq. 3) are, for ``g = dL/dy``::

        dL/dB = s g^T h        dL/dA = s (g B)^T x        dL/dx = g W + s (g B) A

    Autograd would find the same. Written out, the update is added in place, and ``h`` (N x r)
    is all that the adapter adds to what is kept for the backward pass; where ``x`` is not in
    the adapter's dtype, the casts of ``A`` and ``B`` are kept too.

    Args:
        x: Inputs, shape (..., in_features).
        W: Frozen weight, shape (out_features, in_features), in the dtype of ``x``.
        A: Shape (r, in_features), float32.
        B: Shape (out_features, r), float32.
        scaling: ``lora_alpha / r``.

    Returns:
        Shape (..., out_features), in the dtype of ``x``.

    Raises:
        ValueError: If ``W`` is to be trained too: its gradient is not computed here.

    Chapter: sft/lora.
    """
    if W.requires_grad:
        raise ValueError(
            "the weight requires a gradient and this product has none for it: freeze it, or "
            "write the sum of the two products out"
        )
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _LoRAProduct.apply(rows, W, A, B, scaling)
    return y.view(*x.shape[:-1], len(W))


def is_plain(base: nn.Module, x: Tensor) -> TypeGuard[nn.Linear]:
    """Say whether :func:`lora_product` can take a layer's place.

    Args:
        base: The layer that an adapter stands beside.
        x: Its input.

    Returns:
        Whether it is an ``nn.Linear``, and no subclass, with a frozen weight and no bias, and
        no autocast changes the dtype of its products.

    Chapter: sft/lora.
    """
    return (
        type(base) is nn.Linear
        and base.bias is None
        and not base.weight.requires_grad
        and not torch.is_autocast_enabled(x.device.type)
    )
