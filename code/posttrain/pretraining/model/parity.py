"""Published architectures in small, with random weights, in transformers and in our GPT.

A tokenizer and gigabytes of weights are not needed to know that an architecture was understood:
any weights will do, if they reach the same place in both and give the same numbers there.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

import random
import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from posttrain.core.storage.conversion import without_progress_bars
from posttrain.pretraining.model.gpt import GPT, next_token_loss
from posttrain.pretraining.model.weights import load_pretrained

if TYPE_CHECKING:
    from transformers import PreTrainedModel

FAMILIES = ("llama-2", "llama-3.2", "qwen2.5")
_CONTEXT = 16  # of the model before it was stretched; texts are up to three times as long


@dataclass(frozen=True)
class Comparison:
    """One drawn model in both implementations.

    Attributes:
        family: One of ``FAMILIES``.
        shape: What was drawn, in the names of ``config.json``.
        logits: Largest difference of a logit.
        logit_size: Standard deviation of the logits, which says what the difference means.
        gradient: Largest difference of a gradient, as a share of the largest gradient.
    """

    family: str
    shape: dict[str, Any]
    logits: float
    logit_size: float
    gradient: float


def draw_shape(family: str, generator: random.Random) -> dict[str, Any]:
    """Draw a small shape of a family: heads, groups, head size, widths, layers, tied or not.

    Args:
        family: One of ``FAMILIES``.
        generator: Source of the draws.

    Returns:
        What ``config.json`` would hold.

    Raises:
        ValueError: If there is no such family.

    Chapter: pretraining/gpt.
    """
    if family not in FAMILIES:
        raise ValueError(f"there is no family {family!r}: choose one of {', '.join(FAMILIES)}")
    groups, shared = generator.choice([1, 2, 3]), generator.choice([1, 2, 3])
    head_dim = generator.choice([4, 6, 8, 16])
    theta = generator.choice([10_000.0, 500_000.0, 1_000_000.0])
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": theta}
    if family == "llama-3.2":
        low = generator.choice([1.0, 2.0])
        rope |= {
            "rope_type": "llama3",
            "factor": generator.choice([4.0, 8.0, 32.0]),
            "low_freq_factor": low,
            "high_freq_factor": low * generator.choice([2.0, 4.0]),
            "original_max_position_embeddings": _CONTEXT,
        }
    return {
        "model_type": "qwen2" if family == "qwen2.5" else "llama",
        "vocab_size": generator.choice([29, 64]),
        "hidden_size": groups * shared * head_dim,
        "intermediate_size": generator.choice([20, 48]),
        "num_hidden_layers": generator.choice([1, 2, 3]),
        "num_attention_heads": groups * shared,
        "num_key_value_heads": groups,
        "max_position_embeddings": 4 * _CONTEXT,
        "rms_norm_eps": generator.choice([1e-5, 1e-6]),
        "tie_word_embeddings": generator.choice([True, False]),
        "rope_parameters": rope,
        "initializer_range": 0.3,  # large, so that attention is far from even
    }


def random_pair(shape: dict[str, Any], seed: int) -> tuple[GPT, PreTrainedModel]:
    """Make a model in transformers, write it to files, and load these into our GPT.

    Args:
        shape: What :func:`draw_shape` gave.
        seed: Seed of the weights, biases and norms among them.

    Returns:
        Our model and theirs, in float32 and evaluation mode.

    Chapter: pretraining/gpt.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    fields = {name: value for name, value in shape.items() if name != "model_type"}
    config = AutoConfig.for_model(shape["model_type"], **fields)
    torch.manual_seed(seed)
    theirs: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            if (
                parameter.dim() == 1
            ):  # biases start at zero and norms at one: hide nothing there
                parameter.add_(torch.randn_like(parameter), alpha=0.3)
    with tempfile.TemporaryDirectory() as folder, without_progress_bars():
        theirs.save_pretrained(folder)
        return load_pretrained(folder), theirs


def compare(family: str, seed: int) -> Comparison:
    """Draw a model and a batch with padding, and compare logits and all gradients.

    Args:
        family: One of ``FAMILIES``.
        seed: Seed of shape, weights and batch.

    Returns:
        What was found.

    Raises:
        RuntimeError: If one of the two trains a weight that the other does not.

    Chapter: pretraining/gpt.
    """
    generator = random.Random(f"{family} {seed}")
    shape = draw_shape(family, generator)
    ours, theirs = random_pair(shape, seed)
    T = generator.randint(2, 3 * _CONTEXT)
    padding = [0, generator.randint(0, T - 2)]
    input_ids = torch.randint(shape["vocab_size"], (2, T))
    mask = torch.stack([(torch.arange(T) >= pad).long() for pad in padding])
    labels = input_ids.roll(-1, dims=1).masked_fill(mask == 0, -100)
    labels[:, -1] = -100

    position_ids = (mask.cumsum(dim=-1) - 1).clamp(min=0)
    expected = theirs(input_ids, attention_mask=mask, position_ids=position_ids).logits
    logits = ours(input_ids, mask)
    for values in (logits, expected):
        next_token_loss(values, labels).backward()

    named = {
        name.removeprefix("model."): parameter.grad
        for name, parameter in theirs.named_parameters()
        if parameter.grad is not None
    }
    pairs = [
        (parameter.grad, named[name])
        for name, parameter in ours.named_parameters()
        if parameter.grad is not None
    ]
    if len(pairs) != len(named):
        raise RuntimeError(f"{len(pairs)} of our gradients for {len(named)} of theirs")
    real = mask.bool()
    return Comparison(
        family=family,
        shape=shape,
        logits=_largest([(logits[real], expected[real])]),
        logit_size=expected[real].std().item(),
        gradient=_largest(pairs) / max(g.abs().max().item() for g in named.values()),
    )


def _largest(pairs: list[tuple[Tensor, Tensor]]) -> float:
    return max((own - other).abs().max().item() for own, other in pairs)
