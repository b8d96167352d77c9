"""A frozen linear layer in 4 bits, the other half of QLoRA.

Chapter: sft/qlora.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from posttrain.core.arguments import names
from posttrain.sft.quantization.nf4 import (
    NF4Tensor,
    QuantizedAbsmax,
    dequantize_nf4,
    quantize_nf4,
)

Model = TypeVar("Model", bound=nn.Module)


class _FrozenProduct(torch.autograd.Function):
    """``y = x W^T`` for a weight in 4 bits, which is dequantized once more on the way back.

    Ordinary autograd would keep the dense weight from the forward to the backward pass: every
    layer's at once, which is the memory that 4 bits are to save. Nor is ``x`` kept, since the
    frozen weight gets no gradient.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: NF4Tensor) -> Tensor:
        ctx.weight = weight
        return F.linear(x, dequantize_nf4(weight, x.dtype))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient @ dequantize_nf4(ctx.weight, gradient.dtype), None


class NF4Linear(nn.Module):
    """A linear layer whose frozen weight is stored in NF4.

    Each pass dequantizes the weight to the dtype of its input and multiplies. Gradients flow to
    the input only. The layer can be the base of a ``LoRALinear``.

    Args:
        weight: Quantized weight of shape (out_features, in_features).
        bias: Shape (out_features,), or ``None``; frozen.

    Raises:
        ValueError: If the weight is not a matrix.

    Chapter: sft/qlora.
    """

    codes: Tensor
    absmax: Tensor
    absmax_codes: Tensor
    absmax_scales: Tensor
    absmax_mean: Tensor

    def __init__(self, weight: NF4Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        if len(weight.shape) != 2:
            raise ValueError(f"weight has shape {weight.shape}: give (out, in)")
        self.out_features, self.in_features = weight.shape
        self.block_size, self.dtype = weight.block_size, weight.dtype
        self.double_quant = isinstance(weight.absmax, QuantizedAbsmax)
        self.register_buffer("codes", weight.codes)
        if isinstance(weight.absmax, QuantizedAbsmax):
            self.register_buffer("absmax_codes", weight.absmax.codes)
            self.register_buffer("absmax_scales", weight.absmax.scales)
            self.register_buffer("absmax_mean", weight.absmax.mean)
        else:
            self.register_buffer("absmax", weight.absmax)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @classmethod
    def from_linear(
        cls, linear: nn.Linear, block_size: int = 64, *, double_quant: bool = True
    ) -> NF4Linear:
        """Quantize a linear layer.

        Args:
            linear: The layer; it is left as it is.
            block_size: Numbers that share a scale; even.
            double_quant: Quantize the scales as well.

        Returns:
            The same layer in 4 bits.
        """
        weight = quantize_nf4(linear.weight, block_size, double_quant=double_quant)
        return cls(weight, linear.bias).train(linear.training)

    @property
    def quantized(self) -> NF4Tensor:
        """The weight, in 4 bits; it shares its memory with the layer."""
        absmax: Tensor | QuantizedAbsmax
        if self.double_quant:
            absmax = QuantizedAbsmax(self.absmax_codes, self.absmax_scales, self.absmax_mean)
        else:
            absmax = self.absmax
        shape = (self.out_features, self.in_features)
        return NF4Tensor(self.codes, absmax, shape, self.block_size, self.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes of memory: codes, scales and bias."""
        return self.quantized.nbytes + (0 if self.bias is None else self.bias.nbytes)

    def dequantize(self, dtype: torch.dtype | None = None) -> Tensor:
        """Recover the dense weight, to merge an adapter into or to look at.

        Args:
            dtype: Type of the result; that of the original weight where it is left out.

        Returns:
            A new tensor, shape (out_features, in_features).
        """
        return dequantize_nf4(self.quantized, dtype)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer.

        Args:
            x: Shape (..., in_features).

        Returns:
            Shape (..., out_features), in the dtype of ``x``.
        """
        y: Tensor = _FrozenProduct.apply(x, self.quantized)
        return y if self.bias is None else y + self.bias.to(y.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NF4Linear:
        """Move to a device; where the model changes its dtype, dequantize to the new one.

        The codes and scales stay in their types.
        """
        self.dtype = fn(torch.empty(0, dtype=self.dtype)).dtype
        before = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, buffer in before.items():
            moved = self.get_buffer(name)
            if moved.dtype != buffer.dtype:
                setattr(self, name, buffer.to(moved.device))
        return self

    def extra_repr(self) -> str:
        """Describe the layer for ``print(model)``."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, block_size={self.block_size}, "
            f"double_quant={self.double_quant}"
        )


def quantize_model(
    model: Model,
    skip: Sequence[str] = ("lm_head",),
    *,
    block_size: int = 64,
    double_quant: bool = True,
) -> Model:
    """Replace every linear layer but the skipped ones by its :class:`NF4Linear`, in place.

    Embeddings, norms and the head stay as they are, as in bitsandbytes. Layers are replaced one
    by one, so that the dense and the quantized model never lie side by side.

    Args:
        model: A model with linear layers and without adapters.
        skip: Layers to leave alone: last parts of their names, or whole names.
        block_size: Numbers that share a scale; even.
        double_quant: Quantize the scales as well.

    Returns:
        The same model.

    Raises:
        ValueError: If it has adapters or no linear layer left, a name to skip does not exist,
            or a layer to quantize shares its weight with another or has a forward of its own.

    Chapter: sft/qlora.
    """
    skip = names(skip, "skip", "names of layers")
    if adapters := [name for name, _ in model.named_parameters() if "lora_" in name]:
        raise ValueError(
            f"the model has adapters, {adapters[0]} first: quantize it, then inject LoRA"
        )
    layers = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    if wrong := [s for s in skip if not any(_ends_with(name, s) for name in layers)]:
        raise ValueError(f"skip names {wrong[0]!r}: no linear layer is called so")
    chosen = [name for name in layers if not any(_ends_with(name, s) for s in skip)]
    if not chosen:
        raise ValueError("the model has no linear layer to quantize: is it quantized already?")
    if odd := [n for n in chosen if type(layers[n]).forward is not nn.Linear.forward]:
        raise ValueError(
            f"{odd[0]} is a {type(layers[odd[0]]).__name__}, which does more than its weight: "
            "put it into skip"
        )
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    if shared := [name for name in chosen if uses[id(layers[name].weight)] > 1]:
        raise ValueError(
            f"{shared[0]} shares its weight with another layer, so a 4-bit copy would add to "
            "the memory: put it into skip"
        )
    for name in chosen:
        layer = NF4Linear.from_linear(layers.pop(name), block_size, double_quant=double_quant)
        model.set_submodule(name, layer)
    return model


def _ends_with(name: str, part: str) -> bool:
    return f".{name}".endswith(f".{part}")


def model_bytes(model: nn.Module) -> int:
    """Count the bytes of a model's weights and buffers; what layers share counts once.

    bitsandbytes keeps the scales of its 4-bit layers apart, where transformers'
    ``get_memory_footprint`` does not look. They are counted here; its tables of levels, about
    1 kB a layer, are not.

    Args:
        model: Any model.

    Returns:
        Bytes.

    Chapter: sft/qlora.
    """
    total = sum(t.nbytes for t in (*model.parameters(), *model.buffers()))
    for parameter in model.parameters():
        if (state := getattr(parameter, "quant_state", None)) is not None:
            total += state.absmax.nbytes
            if state.nested:
                total += state.state2.absmax.nbytes + state.offset.nbytes
    return total
