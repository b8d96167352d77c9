"""Fixtures of the tests of a run on pairs: tiny models, adapters, files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import T4, DPOPreset
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.adapters.files import save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LORA = LoRAConfig(r=2, lora_alpha=4)


def tiny_model(
    folder: Path, tokenizer: PreTrainedTokenizerBase, *, qwen: bool, width: int = 16
) -> Path:
    """Write a tiny random model with a fine-tuned adapter beside it."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        max_position_embeddings=256, initializer_range=0.4, qkv_bias=qwen,
    )  # fmt: skip
    model = GPT(config)
    save_pretrained(model, folder / "base")
    tokenizer.save_pretrained(folder / "base")
    inject_lora(model, LORA, 0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    save_adapter(model, LORA, folder / "sft", base_model_name=str(folder / "base"))
    return folder


@pytest.fixture(scope="session")
def llama(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama in ``base`` and its adapter in ``sft``, to be read only."""
    return tiny_model(tmp_path_factory.mktemp("llama"), tokenizer, qwen=False)


@pytest.fixture(scope="session")
def qwen(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same of Qwen's architecture: biases on q, k and v."""
    return tiny_model(tmp_path_factory.mktemp("qwen"), tokenizer, qwen=True)


def small(model: Path) -> DPOPreset:
    """A GPU's preset made small: whole weights, trained on the CPU by hand."""
    start = replace(
        T4.start, model=str(model / "base"), chat_format="smollm2", engine="by_hand",
        quantization=None, dtype="float32", device="cpu", lora=LORA,
    )  # fmt: skip
    training = TrainingConfig(
        max_steps=99, learning_rate=0.02, bf16=False, explosion_ratio=0.0, min_lr_ratio=0.0
    )
    return replace(
        T4, name="tiny", start=start, loss=PreferenceLossConfig(beta=0.3), batch_size=4,
        max_length=80, training=training, gradient_checkpointing=False,
    )  # fmt: skip


@pytest.fixture
def preset(llama: Path) -> DPOPreset:
    """The tiny Llama's preset."""
    return small(llama)


def pair_rows(count: int = 20, start: int = 0) -> list[dict[str, str]]:
    """Pairs of different questions."""
    return [
        {"prompt": f"Add one to {n}.", "chosen": f"{n + 1}", "rejected": f"It is about {n}."}
        for n in range(start, start + count)
    ]


def write_rows(path: Path, rows: list[dict[str, str]]) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Twenty pairs."""
    return write_rows(tmp_path / "pairs.jsonl", pair_rows())
