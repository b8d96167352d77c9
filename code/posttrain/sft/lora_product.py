"""LoRA's product with its gradient written out: what has to be kept, and what need not be.

Chapter: sft/lora.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class _LoRAProduct(torch.autograd.Function):
    """``y = x W^T + s (x A^T) B^T`` for a frozen ``W``, on rows of tokens."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
        A, B = A.to(x.dtype), (B * scaling).to(x.dtype)
        h = x @ A.T  # (N, r)
        ctx.save_for_backward(x, W, A, B, h)
        ctx.scaling = scaling
        return F.linear(x, W).addmm_(h, B.T)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, W, A, B, h = ctx.saved_tensors
        g = gradients[0]
        gh = g @ B  # (N, r)
        gx = (g @ W).addmm_(gh, A) if ctx.needs_input_grad[0] else None
        gA = (gh.T @ x).float()
        gB = (h.T @ g).T.float() * ctx.scaling
        return gx, None, gA, gB, None


def lora_product(x: Tensor, W: Tensor, A: Tensor, B: Tensor, scaling: float) -> Tensor:
    """Multiply by a frozen matrix and its low-rank update.

    With ``h = x A^T`` the gradients of Hu et al. (2021, Eq. 3) are, for ``g = dL/dy``::

        dL/dB = s g^T h        dL/dA = s (g B)^T x        dL/dx = g W + s (g B) A

    Autograd would find the same. Written out, the update is added in place, and ``h`` (N x r)
    is all that the adapter adds to what is kept for the backward pass.

    Args:
        x: Inputs, shape (..., in_features).
        W: Frozen weight, shape (out_features, in_features), in the dtype of ``x``.
        A: Shape (r, in_features), float32.
        B: Shape (out_features, r), float32.
        scaling: ``lora_alpha / r``.

    Returns:
        Shape (..., out_features), in the dtype of ``x``.

    Chapter: sft/lora.
    """
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor = _LoRAProduct.apply(rows, W, A, B, scaling)
    return y.view(*x.shape[:-1], -1)
