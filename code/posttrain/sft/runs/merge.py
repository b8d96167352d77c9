"""``posttrain merge``: one model in 16 bits out of a base model and its adapter.

An adapter that was trained beside 4-bit weights has learned to correct *these*. Added to the
original 16-bit weights it is part of another sum. So the frozen weights are quantized and
unpacked first, as they were in training, and the adapter is added to the result.

Chapter: sft/your_model.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from posttrain.core.assets import model_folder
from posttrain.core.errors import AssetError
from posttrain.core.stats import Estimate, wilson_interval
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.peft_models import load_peft_adapter
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.recognition import detect_format
from posttrain.sft.chat.template import Message, encode_chat, special_tokens
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.runs.chat import adapter_facts
from posttrain.sft.runs.speaker import is_ours, load_speaker
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


@dataclass(frozen=True)
class MergedComparison:
    """A merged model beside its base with the adapter.

    Attributes:
        equal: Share of prompts that both answer alike, greedily and to the last token.
        logits: Largest difference of a logit, over all positions of all prompts.
        logit_size: Standard deviation of the logits, which says what that means.
    """

    equal: Estimate
    logits: float
    logit_size: float

    def __str__(self) -> str:
        same = round(self.equal.value * self.equal.n)
        return (
            f"{same} of {self.equal.n} answers are the same; logits differ by at most "
            f"{self.logits:.2g} (their standard deviation is {self.logit_size:.2g})"
        )


@torch.no_grad()
def compare_merged(
    adapter: Path,
    merged: Path,
    conversations: Sequence[Sequence[Message]],
    *,
    max_new_tokens: int = 128,
) -> MergedComparison:
    """Ask a merged model and the adapter the same.

    Args:
        adapter: Folder of the adapter.
        merged: Folder that :func:`merge_adapter` wrote.
        conversations: Each ends with a user's message.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        The comparison, both models in the type that suits this machine.

    Raises:
        AssetError: If a folder holds no model or adapter.
        ValueError: If there is no conversation.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    if not conversations:
        raise ValueError("there is nothing to ask: give at least one conversation")
    facts = adapter_facts(adapter)
    one, tokenizer = load_speaker(facts.base, adapter, quantization=facts.quantization)
    other, _ = load_speaker(merged)
    chat_format = facts.chat_format or detect_format(tokenizer)
    stop = special_tokens(tokenizer, chat_format)[format_named(chat_format).stop_token]
    prompts = [
        encode_chat(row, tokenizer, chat_format, add_generation_prompt=True).input_ids
        for row in conversations
    ]
    answers = [model.answers(prompts, stop, max_new_tokens) for model in (one, other)]
    equal = sum(a == b for a, b in zip(*answers, strict=True))
    apart, sizes = 0.0, []
    for prompt in prompts:
        logits = [model.logits(prompt) for model in (one, other)]
        apart = max(apart, (logits[0] - logits[1]).abs().max().item())
        sizes.append(logits[0].std().item())
    return MergedComparison(
        wilson_interval(equal, len(prompts)), apart, sum(sizes) / len(sizes)
    )
