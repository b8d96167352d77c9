"""Fixtures of this folder's tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
import torch

from posttrain.core.assets import load_tokenizer
from posttrain.core.errors import AssetError
from posttrain.pretraining.gpt import GPT, GPTConfig
from posttrain.pretraining.weights import save_pretrained

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose much where the cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer; tests that change it must copy it."""
    try:
        return load_tokenizer("smollm2-135m-instruct")
    except AssetError as error:
        pytest.skip(str(error))


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
