"""Adapters folded into their weights, taken out again, or left behind.

Chapter: sft/lora.
"""

from __future__ import annotations

from collections import Counter
from typing import cast

import torch
from torch import Tensor, nn

from posttrain.core.training.wrappers import plain_name, unwrapped
from posttrain.sft.adapters.injection import lora_layers
from posttrain.sft.adapters.lora import LoRALinear, full_weight


@torch.no_grad()
def merge_lora(model: nn.Module) -> None:
    """Fold every adapter into its weight: the same function at the base model's speed.

    The weights from before are kept, which costs their memory until :func:`unmerge_lora` or
    :func:`remove_lora`. Subtracting the update would not give them back: the addition rounded.
    In bfloat16 it rounds to 8 significant bits, so weights much larger than their update do not
    change at all, and the merged model is a slightly different function.

    Args:
        model: A model with adapters, not merged.

    Raises:
        ValueError: If it has no adapter or is merged already, or a weight is quantized or
            shared with another layer.

    Chapter: sft/lora.
    """
    layers = lora_layers(model)
    _check_not_shared(model, layers)
    for name, layer in layers.items():
        if layer.merged:
            raise ValueError(f"{name} is merged already: a second time would add it twice")
        if not isinstance(layer.base, nn.Linear):
            raise ValueError(
                f"{name} is quantized, and its few bits cannot hold the sum: take "
                "merged_state, which adds the adapter to the dequantized weight"
            )
        full_weight(layer.base)
    for layer in layers.values():
        weight = cast(nn.Linear, layer.base).weight
        layer.original = weight.clone()
        weight.copy_(layer.merged_weight())
        layer.merged = True


@torch.no_grad()
def unmerge_lora(model: nn.Module) -> None:
    """Undo :func:`merge_lora`; every weight is bit for bit what it was.

    Args:
        model: A merged model.

    Raises:
        ValueError: If it is not merged, or has no adapter.

    Chapter: sft/lora.
    """
    layers = lora_layers(model)
    for name, layer in layers.items():
        if not layer.merged:
            raise ValueError(f"{name} is not merged: there is nothing to undo")
    for layer in layers.values():
        assert layer.original is not None
        cast(nn.Linear, layer.base).weight.copy_(layer.original)
        layer.original, layer.merged = None, False


def remove_lora(model: nn.Module) -> None:
    """Put the plain layers back: with the update if it was merged, else without.

    Args:
        model: A model with adapters. Its weights stay frozen.

    Raises:
        ValueError: If the model has no adapter.

    Chapter: sft/lora.
    """  # noqa: DOC502
    model = unwrapped(model)
    for name, layer in lora_layers(model).items():
        model.set_submodule(name, layer.base)


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """List the weights that the model would have without adapters, and leave it as it is.

    Quantized weights, with or without an adapter, come dequantized.

    Args:
        model: A model with adapters, merged or not.

    Returns:
        Weights under their plain names, for ``load_state_dict`` of a plain model. What has no
        adapter shares its memory with the model.

    Raises:
        ValueError: If the model has no adapter, or one on a weight that another layer shares.

    Chapter: sft/lora.
    """  # noqa: DOC502
    model = unwrapped(model)
    layers = lora_layers(model)
    _check_not_shared(model, layers)
    replaced: dict[str, nn.Module] = dict(layers)
    for name, module in model.named_modules():
        if hasattr(module, "dequantize") and name.removesuffix(".base") not in layers:
            replaced[name] = module
    inside = tuple(f"{name}." for name in replaced)
    state = {k: v for k, v in model.state_dict().items() if not k.startswith(inside)}
    for name, module in replaced.items():
        if isinstance(module, LoRALinear):
            weight, bias = module.merged_weight(), getattr(module.base, "bias", None)
        else:
            weight, bias = full_weight(module), getattr(module, "bias", None)
        state[f"{name}.weight"] = weight.detach()
        if bias is not None:
            state[f"{name}.bias"] = bias.detach()
    return {plain_name(name): value for name, value in state.items()}


def _check_not_shared(model: nn.Module, layers: dict[str, LoRALinear]) -> None:
    """Refuse a tied head: its sum would become the embedding too."""
    uses = Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))
    for name, layer in layers.items():
        if any(uses[id(parameter)] > 1 for parameter in layer.base.parameters()):
            raise ValueError(
                f"{name} shares its weight with another layer, which a merge would change as "
                f"well: keep this adapter apart, or train without {name} as a target"
            )
