"""A model with adapters: which layers get one, how they get it, and what is trained then.

Chapter: sft/lora.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from posttrain.core.training.wrappers import unwrapped
from posttrain.sft.adapters.dora import DoRALinear
from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.adapters.names import ends_with, published_name

_BLOCK = re.compile(r"\b(\d+)\.")  # the first number in a name


def _is_linear(module: nn.Module) -> bool:
    quantized = all(hasattr(module, x) for x in ("in_features", "out_features", "dequantize"))
    return isinstance(module, nn.Linear) or quantized


def target_layers(model: nn.Module, config: LoRAConfig) -> dict[str, nn.Module]:
    """Find the layers that a configuration names, as PEFT does: by the last parts of names.

    ``layers_to_transform`` chooses among the layers of blocks. A layer that is named in full,
    such as ``lm_head``, gets its adapter whichever blocks do.

    Args:
        model: Any model.
        config: ``target_modules`` and ``layers_to_transform`` decide.

    Returns:
        The layers by name.

    Raises:
        ValueError: If a target or a block does not exist, or the model has adapters already.

    Chapter: sft/lora.
    """
    model = unwrapped(model)
    if present := [name for name, m in model.named_modules() if isinstance(m, LoRALinear)]:
        raise ValueError(
            f"the model has {len(present)} LoRA layers already, {present[0]} first: "
            "remove_lora takes them out"
        )
    linear = {name: module for name, module in model.named_modules() if _is_linear(module)}
    published = {name: published_name(model, name) for name in linear}
    blocks = {n: int(i[1]) for n, own in published.items() if (i := _BLOCK.search(own))}
    chosen: set[str] = set()
    for target in config.target_modules:
        found = {name for name, own in published.items() if ends_with(own, target)}
        if not found:
            names = sorted({name.rpartition(".")[2] for name in published.values()})
            raise ValueError(
                f"no linear layer is named {target!r}: this model has {', '.join(names)}"
            )
        chosen |= found
    if (wanted := config.layers_to_transform) is not None:
        if missing := set(wanted) - {blocks[name] for name in chosen if name in blocks}:
            raise ValueError(
                f"layers_to_transform names block {min(missing)}: the blocks with these "
                f"targets are {sorted({blocks[name] for name in chosen if name in blocks})}"
            )
        chosen = {
            name
            for name in chosen
            if published[name] in config.target_modules or blocks.get(name) in wanted
        }
    return {name: module for name, module in linear.items() if name in chosen}


def inject_lora(model: nn.Module, config: LoRAConfig, seed: int | None = None) -> list[str]:
    """Freeze a model and put an adapter around each target layer, in place.

    Args:
        model: Any model with linear layers.
        config: The adapters.
        seed: Seed of the initial ``A``; torch's own generator is used where it is left out.

    Returns:
        Names of the layers that got one.

    Raises:
        ValueError: If a target does not exist, or the model has adapters already.

    Chapter: sft/lora.
    """  # noqa: DOC502
    model = unwrapped(model)
    layers = target_layers(model, config)
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    kind = DoRALinear if config.use_dora else LoRALinear
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, kind(layer, config, generator))
    return list(layers)


def lora_layers(model: nn.Module) -> dict[str, LoRALinear]:
    """Find a model's adapters.

    Args:
        model: A model after :func:`inject_lora`.

    Returns:
        The layers that have one, by the names they had before.

    Raises:
        ValueError: If there is none.

    Chapter: sft/lora.
    """
    modules = unwrapped(model).named_modules()
    layers = {name: module for name, module in modules if isinstance(module, LoRALinear)}
    if not layers:
        raise ValueError("the model has no LoRA layer: call inject_lora or load_adapter first")
    return layers


def lora_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """List what an adapter trains.

    Args:
        model: A model after :func:`inject_lora`.

    Returns:
        ``lora_A``, ``lora_B`` and, with DoRA, ``lora_magnitude_vector`` of each layer, by name.

    Raises:
        ValueError: If the model has no adapter.

    Chapter: sft/lora.
    """  # noqa: DOC502
    return {
        f"{name}.{own}": parameter
        for name, layer in lora_layers(model).items()
        for own, parameter in layer.named_parameters(recurse=False)
    }


def trainable_parameter_count(model: nn.Module) -> int:
    """Count the numbers that training changes.

    Args:
        model: Any model.

    Returns:
        How many numbers require a gradient.

    Chapter: sft/lora.
    """
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
