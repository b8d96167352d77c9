"""LoRA by hand: a trainable low-rank update beside each frozen matrix.

Shapes: a linear layer maps ``in`` to ``out`` channels; the update has rank ``r``.

Chapter: sft/lora.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral, Real
from typing import cast

import torch
from torch import Tensor, nn

from posttrain.core.arguments import whole_number
from posttrain.sft.adapters.lora_product import is_plain, lora_product

LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class LoRAConfig:
    """What an adapter looks like, in the names of PEFT's ``LoraConfig``.

    Attributes:
        r: Rank of the update.
        lora_alpha: Numerator of the update's scale; PEFT's default is 8.
        lora_dropout: Share of the adapter's inputs that is dropped in training.
        target_modules: Layers that get an adapter: last parts of their names, or whole names.
        use_rslora: Divide by the root of ``r``, so that a larger rank does not learn more
            slowly (Kalajdzievski, 2023, arXiv:2312.03732).
        use_dora: Train magnitude and direction apart; see
            :class:`posttrain.sft.adapters.dora.DoRALinear`.
        layers_to_transform: Indices of the blocks that get adapters; ``None`` means all.

    Chapter: sft/lora.
    """

    r: int = 8
    lora_alpha: float = 16
    lora_dropout: float = 0.0
    target_modules: tuple[str, ...] = LINEAR_LAYERS
    use_rslora: bool = False
    use_dora: bool = False
    layers_to_transform: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse settings that no adapter can have."""
        object.__setattr__(self, "r", whole_number(self.r, "r", 1))
        if not _is_number(alpha := self.lora_alpha) or not 0 < alpha < math.inf:
            raise ValueError(f"lora_alpha is {alpha!r}: give a number above 0")
        if not _is_number(dropout := self.lora_dropout) or not 0 <= dropout < 1:
            raise ValueError(f"lora_dropout is {dropout!r}: give 0 to below 1")
        for name in ("use_rslora", "use_dora"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give True or False")
        self._make_tuple(
            "target_modules", "names of layers", lambda x: isinstance(x, str) and x != ""
        )
        if self.layers_to_transform is not None:
            self._make_tuple(
                "layers_to_transform", "indices of blocks, from 0",
                lambda x: isinstance(x, Integral) and _is_number(x) and int(x) >= 0,
            )  # fmt: skip
            blocks = tuple(int(block) for block in self.layers_to_transform)
            object.__setattr__(self, "layers_to_transform", blocks)

    def _make_tuple(self, field: str, what: str, accepts: Callable[[object], bool]) -> None:
        """Accept a list too, but no bare string, which would be read letter by letter."""
        given = getattr(self, field)
        if not isinstance(given, list | tuple) or not given or not all(map(accepts, given)):
            raise ValueError(f"{field} is {given!r}: give a tuple of {what}")
        object.__setattr__(self, field, tuple(given))

    @property
    def scaling(self) -> float:
        """What the update is multiplied by."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)


def _is_number(value: object) -> bool:
    """True is a number to Python, and no rank, scale or block to anybody."""
    return isinstance(value, Real) and not isinstance(value, bool)


class LoRALinear(nn.Module):
    """A frozen linear layer plus a trainable update of rank ``r`` (Hu et al., 2021, Eq. 3)::

        h = W0 x + (alpha / r) B A x

    ``B`` starts at zero, so that the first step starts from the model as it was. ``A`` and
    ``B`` stay in float32 even where the frozen weight is in fewer bits: an optimizer's small
    steps would be lost in bfloat16. The product runs in the dtype of ``x``.

    Args:
        base: An ``nn.Linear``, or a quantized layer with ``in_features``, ``out_features`` and
            ``dequantize()``. It is frozen.
        config: Rank, scale and dropout.
        generator: Source of the initial ``A``, on the CPU; torch's own where it is left out.

    Chapter: sft/lora.
    """

    original: Tensor | None  # while merged: the weight before

    def __init__(
        self, base: nn.Module, config: LoRAConfig, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.config, self.scaling, self.merged = config, config.scaling, False
        self.register_buffer("original", None, persistent=False)
        self.dropout = nn.Dropout(config.lora_dropout)
        A = torch.empty(config.r, cast(int, base.in_features), dtype=torch.float32)
        nn.init.kaiming_uniform_(A, a=math.sqrt(5), generator=generator)  # as PEFT does
        B = torch.zeros(cast(int, base.out_features), config.r, dtype=torch.float32)
        self.lora_A = nn.Parameter(A.to(_device(base)))  # (r, in)
        self.lora_B = nn.Parameter(B.to(_device(base)))  # (out, r)
        self.train(base.training)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the frozen weight and, unless it was merged into that, the update.

        Args:
            x: Shape (..., in).

        Returns:
            Shape (..., out).
        """
        if self.merged:
            return self.base(x)
        dropped = self.dropout(x)
        if dropped is x and is_plain(self.base, x):  # the same, and less is kept
            return lora_product(x, self.base.weight, self.lora_A, self.lora_B, self.scaling)
        A, B = self.lora_A.to(x.dtype), self.lora_B.to(x.dtype)
        return self.base(x) + (dropped @ A.T) @ B.T * self.scaling

    @torch.no_grad()
    def merged_weight(self) -> Tensor:
        """Add the update to the weight, in float32, rounded once to the weight's own dtype.

        Returns:
            The weight of one linear layer that does the work of both, shape (out, in).
        """
        W = full_weight(self.base)
        if self.merged:
            return W
        return (W.float() + self.lora_B.float() @ self.lora_A.float() * self.scaling).to(W)


def _device(base: nn.Module) -> torch.device:
    return next(iter((*base.parameters(), *base.buffers()))).device


def full_weight(base: nn.Module) -> Tensor:
    """Return a linear layer's weight as numbers that can be added to.

    Args:
        base: An ``nn.Linear``, or a quantized layer with ``dequantize()``.

    Returns:
        Shape (out, in), floating-point.

    Raises:
        TypeError: If the layer packs its weight and cannot unpack it.

    Chapter: sft/lora.
    """
    unpack = getattr(base, "dequantize", None)
    weight = unpack() if unpack is not None else base.weight
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        raise TypeError(
            f"a {type(base).__name__} holds no floating-point weight and has no dequantize()"
        )
    return weight
