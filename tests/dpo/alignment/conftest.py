"""A tiny model of random weights with SmolLM2's tokenizer, in place of SmolLM2."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.dpo.alignment import start
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.presets import SFTPreset

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model and the tokenizer."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
        initializer_range=0.5, tie_word_embeddings=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    save_pretrained(GPT(config), folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_preset(tiny: Path) -> SFTPreset:
    """The start's preset with the tiny model."""
    training = replace(
        start.EVERYDAY.training, max_steps=2, eval_steps=1, save_steps=0, learning_rate=1e-2
    )
    lora = replace(start.EVERYDAY.lora, r=2, lora_alpha=4)
    return replace(
        start.EVERYDAY, model=str(tiny), dtype="float32", batch_size=2, lora=lora,
        training=training,
    )  # fmt: skip
