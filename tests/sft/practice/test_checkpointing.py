"""posttrain.sft.practice.checkpointing: the same losses from less memory."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttrain.core.errors import RecordError
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.practice.checkpointing import SHAPES, measure, parts, predict
from posttrain.sft.training.memory import PUBLISHED_SHAPES

PART = {"rows": 4, "T": 256, "seed": 0}
SMALL = GPTConfig(
    vocab_size=256, hidden_size=192, intermediate_size=768, num_hidden_layers=10,
    num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=256,
)  # fmt: skip


def test_the_formula_says_that_it_saves() -> None:
    config = PUBLISHED_SHAPES["SmolLM2-135M"]
    assert predict(PART, True, config) < 0.8 * predict(PART, False, config)
    assert len(parts((0, 1))) == 2 * len(SHAPES)


def test_the_losses_stay_and_the_memory_falls(tmp_path: Path) -> None:
    save_pretrained(GPT(SMALL), tmp_path)
    off, on = (measure(PART, flag, SMALL, str(tmp_path)) for flag in (False, True))
    assert off["losses"] == pytest.approx(on["losses"], abs=1e-2)  # bfloat16, where it is
    assert off["losses"][0] != off["losses"][1]
    assert 0 < on["growth"] < 0.8 * off["growth"]
    assert (off["checkpointing"], on["checkpointing"]) == (False, True)


def test_a_run_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stdout="one\nMemoryError: full\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(RecordError, match="ended with 1: one / MemoryError: full"):
        measure(PART, False, SMALL, "nothing")
