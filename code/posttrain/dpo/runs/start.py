"""The adapter that a run on pairs starts from: its shape, its model, and whether they fit.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from posttrain.core.assets import model_folder
from posttrain.core.errors import AssetError
from posttrain.dpo.presets import DPOPreset
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.adapters.files import (
    WEIGHTS_NAME,
    read_adapter_config,
    read_adapter_weights,
)
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.runs.chat import adapter_facts
from posttrain.sft.runs.folder import RunFolder, model_digest
from posttrain.sft.training.model_shapes import linear_shapes

_PLACE = re.compile(r"\.layers\.(\d+)\.\w+\.(\w+)\.(lora_[AB])\.weight$")


def adapter_lora(folder: Path) -> LoRAConfig:
    """Read the shape of an adapter.

    Args:
        folder: An adapter in PEFT's format.

    Returns:
        Its configuration; where the file names its targets by a pattern, the layers that it has
        weights of.

    Raises:
        AssetError: If the folder holds no adapter, or a damaged one.
        ValueError: If the adapter uses what is not here.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    given = read_adapter_config(folder)
    if isinstance(given["target_modules"], str):
        named = (name.split(".lora_")[0] for name in read_adapter_weights(folder))
        given["target_modules"] = sorted({name.rpartition(".")[2] for name in named})
    for name in ("target_modules", "layers_to_transform"):
        if isinstance(given.get(name), list):
            given[name] = tuple(given[name])
    return LoRAConfig(**given)


def from_adapter(
    preset: DPOPreset, folder: Path, model: str | None, named: Sequence[str]
) -> DPOPreset:
    """Take from an adapter what a run that goes on with it cannot choose.

    Its shape; its model, format and the bits of the frozen weights, unless they were given.

    Args:
        preset: The run.
        folder: The adapter.
        model: The model that was given, or ``None``.
        named: Settings that were given, by whole names.

    Returns:
        The run with its ``start`` changed.

    Raises:
        AssetError: If the folder holds no adapter.
        ValueError: If a setting would change the adapter's shape.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    if changed := [name for name in named if name.startswith("lora.")]:
        raise ValueError(
            f"--set {changed[0]} with --adapter: the shape of {folder} is what it is; leave "
            "the setting out, or start without --adapter"
        )
    facts = adapter_facts(folder)
    start = replace(preset.start, lora=adapter_lora(folder))
    read_adapter_weights(folder)
    if model is None and "model" not in named:
        start = replace(start, model=facts.base)
    if facts.chat_format is not None and "chat_format" not in named:
        start = replace(start, chat_format=facts.chat_format)
    if RunFolder(folder).record is not None and "quantization" not in named:
        start = replace(start, quantization=facts.quantization)
    return replace(preset, start=start)


def check_adapter_fits(folder: Path, model: str, config: GPTConfig | None) -> None:
    """Refuse an adapter that belongs to another model, before anything is loaded.

    Args:
        folder: The adapter.
        model: The model, which is here.
        config: Its shape; ``None`` where our GPT does not have its architecture.

    Raises:
        AssetError: If the run that made the adapter read another model.
        ValueError: If a weight has no place in the model, or another size than its place.

    Chapter: dpo/alignment.
    """
    record = RunFolder(folder).record or {}
    identity = record.get("identity", {}).get("preset", {})
    made_beside = identity.get("start", identity).get("model")
    if made_beside is not None and made_beside != model_digest(model_folder(model)):
        raise AssetError(
            f"{folder} was trained beside another model than {model}: its run.json says so; "
            "give that model with --model, or another adapter"
        )
    if config is None:
        return
    shapes, blocks = linear_shapes(config), config.num_hidden_layers
    for name, weight in read_adapter_weights(folder).items():
        found = _PLACE.search(name)
        if found is None:
            continue  # the engine names what it has no place for
        block, layer, part = int(found[1]), found[2], found[3]
        inner = shapes.get(layer, (0, 0))
        side = weight.shape[1] if part == "lora_A" else weight.shape[0]
        if block >= blocks or side != inner[part == "lora_B"]:
            raise ValueError(
                f"{folder / WEIGHTS_NAME} does not fit {model}: {name} has shape "
                f"{tuple(weight.shape)}, and the model has {blocks} blocks whose {layer} is "
                f"{inner[0]} x {inner[1]}; give the adapter's own model with --model"
            )


def adapter_digest(folder: Path) -> str:
    """Tell adapters apart.

    Args:
        folder: The adapter.

    Returns:
        SHA-256 of its weights' file, in hexadecimal.

    Chapter: dpo/alignment.
    """
    return hashlib.sha256((folder / WEIGHTS_NAME).read_bytes()).hexdigest()
