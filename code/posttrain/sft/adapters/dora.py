"""DoRA: LoRA for the direction of a weight, with its magnitude trained apart.

Chapter: sft/lora.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear, full_weight


class DoRALinear(LoRALinear):
    """LoRA on the weight's direction, beside a trained magnitude (Liu et al., 2024, Eq. 5)::

        h = m (W0 + (alpha / r) B A) x / ||W0 + (alpha / r) B A||

    There is one magnitude for each output channel, as in PEFT: a row's norm here. It starts at
    the row's norm in ``W0``. The norm below the line is a constant to the gradient (section
    4.3). As in PEFT, dropout reaches only what is added to the frozen layer's output.

    Args:
        base: As for :class:`LoRALinear`.
        config: As for :class:`LoRALinear`.
        generator: As for :class:`LoRALinear`.

    Chapter: sft/lora.
    """

    def __init__(
        self, base: nn.Module, config: LoRAConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(base, config, generator)
        self.lora_magnitude_vector = nn.Parameter(self._direction().norm(dim=1))  # (out,)

    @torch.no_grad()
    def _direction(self) -> Tensor:
        with torch.autocast(self.lora_A.device.type, enabled=False):
            update = self.lora_B.float() @ self.lora_A.float() * self.scaling
        return full_weight(self.base).float() + update

    def forward(self, x: Tensor) -> Tensor:
        """Apply the frozen weight and the update, each row at its trained magnitude.

        Args:
            x: Shape (..., in).

        Returns:
            Shape (..., out).
        """
        y = self.base(x)
        if self.merged:
            return y
        share = self.lora_magnitude_vector / self._direction().norm(dim=1)
        A, B = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        dropped = self.dropout(x)
        if dropped is x:
            bias = getattr(self.base, "bias", None)
            frozen = y if bias is None else y - bias.to(y.dtype)
        else:
            frozen = F.linear(dropped, full_weight(self.base).to(x.dtype))
        update = (dropped @ A.T) @ B.T * self.scaling
        return y + (share - 1).to(y.dtype) * frozen + share.to(y.dtype) * update

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Add the update to the weight and give each row its magnitude, in float32.

        Returns:
            The weight of one linear layer that does the work of both, shape (out, in).
        """
        W = full_weight(self.base)
        if self.merged:
            return W
        direction = self._direction()
        share = self.lora_magnitude_vector.float() / direction.norm(dim=1)
        return (share[:, None] * direction).to(W)
