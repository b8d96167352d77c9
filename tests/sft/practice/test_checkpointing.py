"""posttrain.sft.practice.checkpointing: the same losses from less memory."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttrain.core.errors import RecordError
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.practice.checkpointing import SHAPES, main, measure, parts, predict
from posttrain.sft.training.memory import PUBLISHED_SHAPES

PART = {"rows": 2, "T": 64, "seed": 0}
SMALL = GPTConfig(
    vocab_size=256, hidden_size=192, intermediate_size=768, num_hidden_layers=2,
    num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=256,
)  # fmt: skip


def test_the_formula_says_that_it_saves() -> None:
    config = PUBLISHED_SHAPES["SmolLM2-135M"]
    assert predict(PART, True, config) < 0.8 * predict(PART, False, config)
    assert len(parts((0, 1))) == 2 * len(SHAPES)


def test_the_losses_stay(tmp_path: Path) -> None:
    """What it saves is in the record: a test's own process is too full to see it."""
    save_pretrained(GPT(SMALL), tmp_path / "model")
    found = []
    for on in (False, True):
        job = {**PART, "checkpointing": on, "model": str(tmp_path / "model")}
        (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
        main(tmp_path)
        found.append(json.loads((tmp_path / "found.json").read_text(encoding="utf-8")))
    off, on_ = (run["losses"] for run in found)
    assert off == pytest.approx(on_, abs=2e-2)  # bfloat16, where it is
    assert len(off) == 3 and off[0] != off[1]
    assert all(run["growth"] >= 0 and run["seconds"] > 0 for run in found)


def test_a_run_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stdout="one\nMemoryError: full\n")
    monkeypatch.setattr(subprocess, "run", lambda *args, **options: failed)
    with pytest.raises(RecordError, match="ended with 1: one / MemoryError: full"):
        measure(PART, False, SMALL, "nothing")
