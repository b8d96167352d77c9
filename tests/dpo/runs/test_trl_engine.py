"""posttrain.dpo.runs.trl_engine: TRL gets every setting. What it trains: test_engines."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posttrain.dpo.presets import PRESETS, T4, DPOPreset
from posttrain.dpo.runs.trl_engine import pair_trainer_config

pytest.importorskip("trl")


def test_trl_gets_every_setting(
    preset: DPOPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = replace(preset.training, eval_steps=7, save_steps=3, warmup_steps=2)
    preset = replace(preset, training=training)
    for checkpointing in (False, True):
        theirs = pair_trainer_config(
            replace(preset, gradient_checkpointing=checkpointing), tmp_path
        )
        assert theirs.gradient_checkpointing is checkpointing
        assert theirs.precompute_ref_log_probs and theirs.disable_dropout
        assert theirs.beta == preset.loss.beta and theirs.max_length is None
        assert theirs.eval_steps == theirs.save_steps == 7  # the best is among the checkpoints
        assert theirs.eval_on_start and theirs.load_best_model_at_end
        assert theirs.per_device_train_batch_size == theirs.per_device_eval_batch_size == 4
        assert theirs.warmup_steps == 2 and theirs.use_cpu and not theirs.fp16
    never = replace(preset, training=replace(training, eval_steps=0))
    assert pair_trainer_config(never, tmp_path).eval_steps == training.max_steps


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_a_preset_is_said_to_trl(
    preset: DPOPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cpu = replace(preset, start=replace(preset.start, device="cpu"))
    theirs = pair_trainer_config(on_cpu, tmp_path)
    assert theirs.max_steps == preset.training.max_steps
    assert theirs.gradient_checkpointing is preset.gradient_checkpointing
    assert theirs.gradient_accumulation_steps == preset.training.gradient_accumulation_steps


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_float16_is_scaled_on_a_gpu(tmp_path: Path) -> None:
    assert pair_trainer_config(T4, tmp_path).fp16
