"""Adapters in PEFT's own file format: ours load in PEFT and vLLM, and theirs load here.

A folder holds ``adapter_config.json`` and ``adapter_model.safetensors``. Pickled adapters
(``adapter_model.bin``) can run code when they are opened and are not read.

Chapter: sft/lora.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from posttrain.core.errors import AssetError
from posttrain.core.storage.files import atomic_path, write_json_atomic
from posttrain.core.training.wrappers import unwrapped
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.injection import (
    inject_lora,
    lora_layers,
    lora_parameters,
    target_layers,
)
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.names import ends_with, published_name

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # PEFT wraps a model twice
_READ = (
    "r", "lora_alpha", "lora_dropout", "target_modules", "use_rslora", "use_dora",
    "layers_to_transform",
)  # fmt: skip
# What says where an adapter comes from or how it was initialized, and changes nothing now.
_TOLD = {
    "peft_type", "task_type", "base_model_name_or_path", "revision", "peft_version",
    "auto_mapping", "inference_mode", "init_lora_weights", "bias", "megatron_core",
    "qalora_group_size", "loftq_config", "eva_config",
}  # fmt: skip
_REMEDY = (
    "To use it here, fold it in with PEFT (merge_and_unload, then save_pretrained) and load "
    "the merged model; or train without"
)
_HARMLESS_INIT = (True, False, None, "gaussian", "orthogonal", "eva")
_SUFFIX = {
    "lora_A": "lora_A.weight",
    "lora_B": "lora_B.weight",
    "lora_magnitude_vector": "lora_magnitude_vector",
}


def save_adapter(
    model: nn.Module, config: LoRAConfig, folder: str | Path, *, base_model_name: str
) -> None:
    """Write a model's adapter so that PEFT, vLLM and :func:`load_adapter` read it.

    Args:
        model: A model with adapters, merged or not.
        config: What they were injected with.
        folder: Where the two files go; those of an earlier adapter are replaced.
        base_model_name: Name or folder of the model that the adapter belongs to.

    Raises:
        ValueError: If the model has no adapter, or one of another configuration, or trains
            something beside it, which the files cannot hold.

    Chapter: sft/lora.
    """
    for name, layer in lora_layers(model).items():
        if layer.config != config:
            raise ValueError(
                f"{name} was injected with {layer.config}, not with {config}: give the former"
            )
    own = lora_parameters(model)
    ids = {id(parameter) for parameter in own.values()}
    for name, parameter in unwrapped(model).named_parameters():
        if parameter.requires_grad and id(parameter) not in ids:
            raise ValueError(
                f"{name} is trained beside the adapter and has no place in its files: freeze "
                "it, or fold the adapter in (merged_state) and save the whole model"
            )
    tensors = {
        _file_name(model, name): parameter.detach().contiguous()
        for name, parameter in own.items()
    }
    peft_config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if _writes_text(model) else None,
        "base_model_name_or_path": base_model_name,
        "inference_mode": True,
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        **{name: getattr(config, name) for name in _READ},
    }
    folder = Path(folder)
    # Without its configuration a folder is no adapter: no crash leaves old beside new.
    (folder / CONFIG_NAME).unlink(missing_ok=True)
    with atomic_path(folder / WEIGHTS_NAME) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    written = load_file(folder / WEIGHTS_NAME)
    _check_fit(folder / WEIGHTS_NAME, written, {n: tuple(t.shape) for n, t in tensors.items()})
    write_json_atomic(folder / CONFIG_NAME, peft_config)


def load_adapter(model: nn.Module, folder: str | Path) -> LoRAConfig:
    """Inject the adapter of a folder into a model, in place.

    Args:
        model: A model without adapters; it stays as it is if the adapter does not fit.
        folder: What PEFT's ``save_pretrained`` or :func:`save_adapter` wrote.

    Returns:
        The adapter's configuration. Where the file names its targets by a pattern or as
        ``"all-linear"``, this lists the layers that are meant; targets that this model does
        not have are left out.

    Raises:
        AssetError: If a file is missing or damaged.
        ValueError: If the adapter uses what is not here, or does not fit the model.

    Chapter: sft/lora.
    """  # noqa: DOC502
    folder = Path(folder)
    given = read_adapter_config(folder)
    tensors = read_adapter_weights(folder)
    given["target_modules"] = _targets(given["target_modules"], tensors, model)
    config = LoRAConfig(**given)
    expected: dict[str, tuple[int, ...]] = {}
    for name, layer in target_layers(model, config).items():
        inputs, outputs = cast(int, layer.in_features), cast(int, layer.out_features)
        expected[_file_name(model, f"{name}.lora_A")] = (config.r, inputs)
        expected[_file_name(model, f"{name}.lora_B")] = (outputs, config.r)
        if config.use_dora:
            expected[_file_name(model, f"{name}.lora_magnitude_vector")] = (outputs,)
    _check_fit(folder / WEIGHTS_NAME, tensors, expected)
    inject_lora(model, config)
    with torch.no_grad():
        for name, parameter in lora_parameters(model).items():
            parameter.copy_(tensors[_file_name(model, name)])
    return config


def _writes_text(model: nn.Module) -> bool:
    """Say whether PEFT may take it for a language model: one without a head it may not."""
    model = unwrapped(model)
    return isinstance(model, GPT) or hasattr(model, "prepare_inputs_for_generation")


def _file_name(model: nn.Module, name: str) -> str:
    layer, _, own = name.rpartition(".")
    return f"{_PREFIX}{published_name(model, layer)}.{_SUFFIX[own]}"


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's settings.

    Args:
        folder: What PEFT's ``save_pretrained`` or :func:`save_adapter` wrote.

    Returns:
        The settings that :class:`LoRAConfig` has, by name, as they stand in the file.

    Raises:
        AssetError: If the file is missing or damaged.
        ValueError: If the adapter uses what is not here.

    Chapter: sft/your_model.
    """
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise AssetError(f"{folder} holds no {CONFIG_NAME}: give the folder of a saved adapter")
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or no UTF-8
        raise AssetError(f"{path} is damaged: {error}") from None
    if not isinstance(given, dict):
        raise AssetError(f"{path} is damaged: it holds a {type(given).__name__}, no object")
    _check_features(given)
    if missing := [x for x in ("r", "lora_alpha", "target_modules") if given.get(x) is None]:
        raise ValueError(f"{path} does not say {', '.join(missing)}")
    settings = {name: given[name] for name in _READ if given.get(name) is not None}
    if isinstance(block := settings.get("layers_to_transform"), int):
        settings["layers_to_transform"] = (block,)
    return settings


def _check_features(given: dict[str, Any]) -> None:
    """Refuse what would make the adapter another function than the one computed here."""
    if given.get("peft_type") != "LORA":
        raise ValueError(f"peft_type is {given.get('peft_type')!r}: only 'LORA' is read here")
    if given.get("bias", "none") != "none":
        raise ValueError(f"bias is {given['bias']!r}: only 'none' is read here")
    if given.get("init_lora_weights", True) not in _HARMLESS_INIT:
        raise ValueError(
            f"init_lora_weights is {given['init_lora_weights']!r}, which changes the base "
            "model's weights: convert the adapter to plain LoRA with PEFT first"
        )
    for name in sorted(set(given) - set(_READ) - _TOLD):
        if given[name]:
            raise ValueError(
                f"the adapter uses {name} ({given[name]!r}), which is not here. {_REMEDY}"
            )


def _targets(given: object, tensors: dict[str, Tensor], model: nn.Module) -> object:
    """Say which layers are meant, in the model's order; leave out what it lacks.

    A pattern or ``"all-linear"`` means the layers that the file has weights of.
    """
    if isinstance(given, str):
        layers = {name.removeprefix(_PREFIX).rpartition(".lora_")[0] for name in tensors}
        return tuple(sorted(layers))
    if not isinstance(given, list) or not all(isinstance(target, str) for target in given):
        return given  # which LoRAConfig refuses
    names = [published_name(model, name) for name, _ in unwrapped(model).named_modules()]

    def place(target: str) -> int:  # PEFT writes a set, in any order
        return next((i for i, name in enumerate(names) if ends_with(name, target)), len(names))

    present = [target for target in given if place(target) < len(names)]
    return tuple(sorted(present, key=place) or given)


def read_adapter_weights(folder: Path) -> dict[str, Tensor]:
    """Read an adapter's weights.

    Args:
        folder: What PEFT's ``save_pretrained`` or :func:`save_adapter` wrote.

    Returns:
        The tensors, by the names in the file.

    Raises:
        AssetError: If the file is missing or damaged.

    Chapter: sft/your_model.
    """
    path = folder / WEIGHTS_NAME
    if not path.is_file():
        pickled = " (adapter_model.bin can run code when it is opened, and is not read)"
        raise AssetError(
            f"{folder} holds no {WEIGHTS_NAME}"
            f"{pickled if (folder / 'adapter_model.bin').exists() else ''}: save the adapter "
            "as safetensors"
        )
    try:
        return load_file(path)
    except SafetensorError as error:
        raise AssetError(f"{path} is damaged: {error}") from None


def _check_fit(
    path: Path, tensors: dict[str, Tensor], expected: dict[str, tuple[int, ...]]
) -> None:
    """Compare names both ways, then shapes and values."""
    if lacking := sorted(set(expected) - set(tensors)):
        raise ValueError(f"{path} lacks {_first_of(lacking)}")
    if unknown := sorted(set(tensors) - set(expected)):
        whole = " (a layer that was trained whole)" if ".lora_" not in unknown[0] else ""
        raise ValueError(
            f"{path} holds what fits nothing here: {_first_of(unknown)}{whole}. {_REMEDY}"
        )
    for name, shape in expected.items():
        tensor = tensors[name]
        if tensor.shape != shape:
            raise ValueError(
                f"{path}: {name} has shape {tuple(tensor.shape)}, and this model with its "
                f"{CONFIG_NAME} needs {shape}"
            )
        if not tensor.is_floating_point():
            raise ValueError(f"{path}: {name} is {tensor.dtype}, no floating-point type")
        if not tensor.isfinite().all():
            raise ValueError(f"{path}: {name} holds NaN or infinity: the training diverged")


def _first_of(names: list[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if names[1:] else "")
