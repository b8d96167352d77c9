"""A model so small that a recorded run takes a second."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.presets import CPU, SFTPreset

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def tiny_long(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a tiny random Llama of long context and SmolLM2's tokenizer."""
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=1024,
        initializer_range=0.2,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny-long")
    save_pretrained(GPT(config), folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def cpu_preset(tiny_long: Path) -> SFTPreset:
    """The CPU's preset with the tiny model."""
    return replace(CPU, model=str(tiny_long), dtype="float32")


@pytest.fixture
def small(
    cpu_preset: SFTPreset,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., None]:
    """Puts the tiny model, and other small things, in place of a module's own."""

    def change(module: ModuleType, **values: object) -> None:
        names = {"CPU": cpu_preset, "tokenizer_of": lambda name: tokenizer, **values}
        if hasattr(module, "PRESET"):
            own = module.PRESET
            blocks = None if own.lora.layers_to_transform is None else (1,)
            lora = replace(own.lora, layers_to_transform=blocks)
            names["PRESET"] = replace(own, model=cpu_preset.model, dtype="float32", lora=lora)
        for name, value in names.items():
            monkeypatch.setattr(module, name, value, raising=name not in ("CPU",))

    return change
