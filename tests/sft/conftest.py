"""Fixtures of this folder's tests."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import T4, SFTPreset

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def tiny_base(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a tiny random Llama and SmolLM2's tokenizer, to be read only."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=256,
        initializer_range=0.4,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    save_pretrained(GPT(config), folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_preset(tiny_base: Path) -> SFTPreset:
    """A GPU's preset made small: the tiny model in whole weights, trained on the CPU by TRL."""
    return replace(
        T4, name="tiny", model=str(tiny_base), engine="trl", device="cpu", dtype="float32",
        quantization=None, batch_size=2, max_length=32, lora=LoRAConfig(r=2, lora_alpha=4),
    )  # fmt: skip
