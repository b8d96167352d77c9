"""posttrain.sft.practice.tuning: steps from rows, and full training that is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.practice.tuning import digits, fold_changes, per_token, steps_of, tuned
from posttrain.sft.presets import CPU, SFTPreset
from posttrain.sft.recorded.rank_and_rate import FullLinear, trained_in_full
from posttrain.sft.training.evaluation import encode_rows, mean_loss, plain_model
from posttrain.sft.training.run import base_model


def test_steps_come_from_rows_and_passes() -> None:
    training = steps_of(replace(CPU, batch_size=8), 50, passes=2).training
    assert (training.max_steps, training.warmup_steps) == (12, 1)
    training = steps_of(CPU, 288).training
    assert (training.max_steps, training.warmup_steps) == (18, 1)
    assert training.eval_steps == training.save_steps == 0 and training.explosion_ratio == 0
    assert training.learning_rate == CPU.training.learning_rate
    assert steps_of(CPU, 3).training.max_steps == 1


@pytest.mark.parametrize("full", [False, True])
def test_a_run_learns_and_its_plain_copy_is_the_same_model(
    cpu_preset: SFTPreset, tokenizer: object, full: bool
) -> None:
    examples = encode_rows(build_dataset()["train"][:16], tokenizer, 160)  # type: ignore[arg-type]
    preset = steps_of(replace(cpu_preset, batch_size=4), 16, passes=3)
    before = mean_loss(base_model(preset), examples)
    model, history, diverged = tuned(preset, examples, 0, full=full)
    after = mean_loss(model, examples)
    assert len(history.loss) == 12 and diverged is None
    assert after < before - 0.05
    assert not any(isinstance(layer, FullLinear) for layer in model.modules())
    assert mean_loss(plain_model(model), examples) == pytest.approx(after, abs=1e-4)
    again = mean_loss(tuned(preset, examples, 0, full=full)[0], examples)
    assert again == after  # nothing of the first run is left


@torch.no_grad()
def test_changes_are_folded_once(cpu_preset: SFTPreset) -> None:
    model: GPT = base_model(cpu_preset)
    ids = torch.arange(12)[None]
    with trained_in_full(model, cpu_preset.lora):
        for layer in model.modules():
            if isinstance(layer, FullLinear):
                layer.change.normal_(std=0.05)
        wanted = model(ids)
        fold_changes(model)
        torch.testing.assert_close(model(ids), wanted)
    torch.testing.assert_close(model(ids), wanted)


def test_what_a_record_keeps() -> None:
    assert digits([True, False, True]) == "101"
    assert per_token(1.234567) == 1.2346 and per_token(float("nan")) is None
