"""``posttrain merge``: one model in 16 bits out of a base model and its adapter.

An adapter that was trained beside 4-bit weights has learned to correct *these*. Added to the
original 16-bit weights it is part of another sum. So the frozen weights are quantized and
unpacked first, as they were in training, and the adapter is added to the result.

Chapter: sft/your_model.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Literal

import torch

from posttrain.core.assets import model_folder
from posttrain.core.errors import AssetError
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.peft_models import load_peft_adapter
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.runs.chat import adapter_facts
from posttrain.sft.runs.speaker import is_ours
from posttrain.sft.training.evaluation import plain_model

_COPIED = ("tokenizer*", "special_tokens_map.json", "vocab.json", "merges.txt",
           "chat_template*", "generation_config.json", "added_tokens.json")  # fmt: skip


def merge_adapter(
    adapter: Path,
    out: Path,
    *,
    model: str | None = None,
    base: Literal["as_trained", "original"] = "as_trained",
    dtype: torch.dtype = torch.bfloat16,
) -> list[str]:
    """Write a model whose weights hold the adapter.

    Args:
        adapter: Folder of an adapter in PEFT's format.
        out: A new or empty folder for the model and its tokenizer.
        model: The base model; what the adapter names where it is left out.
        base: ``"as_trained"`` adds the adapter to the weights that it was trained beside, which
            are rounded to 4 bits if the run held them so; ``"original"`` to the 16-bit ones.
        dtype: Type of the merged weights.

    Returns:
        Lines that say what was done.

    Raises:
        AssetError: If model or adapter cannot be had, or the folder is not empty.
        ValueError: If the adapter does not fit, or ``base`` is unknown.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    if base not in ("as_trained", "original"):
        raise ValueError(f"base is {base!r}: choose 'as_trained' or 'original'")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise AssetError(f"{out} is not empty: give a new folder for the merged model")
    facts = adapter_facts(adapter)
    name = model or facts.base
    source = model_folder(name)
    if not is_ours(name):
        return _merge_by_peft(source, adapter, out, dtype, name)
    gpt = load_pretrained(source, dtype)
    quantized = base == "as_trained" and facts.quantization == "nf4"
    if quantized:
        gpt = quantize_model(gpt)
    load_adapter(gpt, adapter)
    save_pretrained(plain_model(gpt).to(dtype), out)
    _copy_tokenizer(source, out)
    beside = "its weights as 4 bits hold them" if quantized else "its weights"
    return [
        f"merged {adapter} into {name}, {beside}: {out}",
        f"each sum was rounded once to {str(dtype).removeprefix('torch.')}",
    ]


def _merge_by_peft(
    source: Path, adapter: Path, out: Path, dtype: torch.dtype, name: str
) -> list[str]:
    """Merge an architecture that our GPT does not have."""
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, trust_remote_code=False, use_safetensors=True
    )
    merged: Any = load_peft_adapter(theirs, adapter).merge_and_unload()
    merged.save_pretrained(out)
    _copy_tokenizer(source, out)
    return [f"merged {adapter} into {name} with PEFT: {out}"]


def _copy_tokenizer(source: Path, out: Path) -> None:
    for pattern in _COPIED:
        for file in source.glob(pattern):
            shutil.copyfile(file, out / file.name)
