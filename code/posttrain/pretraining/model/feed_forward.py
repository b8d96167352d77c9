"""The half of a block that works on each position alone, and the norms before it.

Chapter: pretraining/attention.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale (Zhang & Sennrich, 2019, Eq. 4).

    Args:
        hidden_size: Channels, ``C``.
        eps: Added to the mean square, so that a zero vector stays finite; not in the paper.

    Chapter: pretraining/attention.
    """

    def __init__(self, hidden_size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalize the last axis, in float32 whatever the dtype of ``x``.

        Args:
            x: Shape (..., C).

        Returns:
            Normalized tensor of the shape and dtype of ``x``.
        """
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(dim=-1, keepdim=True) + self.eps)
        return self.weight.to(x.dtype) * (wide * scale).to(x.dtype)


class GELUFeedForward(nn.Module):
    """Two projections with a GELU between them (Hendrycks & Gimpel, 2016).

    GPT-2 has biases and a tanh approximation of the GELU; this one is exact, without biases.

    Args:
        hidden_size: Channels, ``C``.
        intermediate_size: Channels between the projections.

    Chapter: pretraining/attention.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position alone.

        Args:
            x: Shape (B, T, C).

        Returns:
            What the feed-forward half adds to the residual stream, shape (B, T, C).
        """
        return self.down_proj(F.gelu(self.up_proj(x)))


class SwiGLUFeedForward(nn.Module):
    """A gated feed-forward layer, as in Llama (SwiGLU; Shazeer, 2020, Eq. 6).

    Args:
        hidden_size: Channels, ``C``.
        intermediate_size: Channels of the gate and of what it gates.

    Chapter: pretraining/attention.
    """

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.up_proj = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.down_proj = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Transform each position alone.

        Args:
            x: Shape (B, T, C).

        Returns:
            What the feed-forward half adds to the residual stream, shape (B, T, C).
        """
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
