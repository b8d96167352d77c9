"""posttrain.dpo.runs.settings: fields by name, steps by the number of pairs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.dpo.presets import CPU, PRESETS, T4
from posttrain.dpo.runs.settings import (
    for_pairs,
    pair_setting_paths,
    settings_named,
    trainer_preset,
    with_pair_settings,
)


def test_every_field_can_be_named() -> None:
    paths = pair_setting_paths()
    assert {"engine", "lora.r", "loss.beta", "training.learning_rate"} <= paths.keys()
    assert "dataset" not in paths and "start.batch_size" not in paths  # they would do nothing
    for preset in PRESETS.values():
        for name, path in paths.items():
            value: object = preset
            for field in path:
                value = getattr(value, field)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert with_pair_settings(preset, [f"{name}={text}"]) == preset, name


def test_each_value_reaches_its_place() -> None:
    found = with_pair_settings(
        T4, ["beta=0.3", "engine=trl", "lora.r=4", "max_length=99", "adam_beta1=0.8",
             "loss_type=ipo", "ipo_aggregation=mean", "gradient_checkpointing=false"],
    )  # fmt: skip
    assert (found.loss.beta, found.loss.loss_type, found.loss.ipo_aggregation) == (
        0.3, "ipo", "mean",
    )  # fmt: skip
    assert found.start.engine == "trl" and found.start.lora.r == 4
    assert found.max_length == 99 and found.start.max_length == T4.start.max_length
    assert found.training.adam_beta1 == 0.8 and not found.gradient_checkpointing
    assert settings_named(["beta=0.3", "lora.r=4"]) == ["loss.beta", "lora.r"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("beta", "has no '=': give name=value"),
        ("betta=1", "did you mean loss.beta"),
        ("dataset=x", "names 'dataset', which no preset has"),
        ("beta=much", "loss.beta is 'much': give a number"),
        ("beta=-1", "beta is -1.0"),
        ("engine=axolotl", "engine is 'axolotl': choose one of by_hand, trl, unsloth"),
        ("simpo_gamma=0.5", "the loss 'sigmoid' has no such term"),
    ],
)
def test_what_is_no_setting_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        with_pair_settings(CPU, [text])


def test_stage_1_sees_the_run_of_this_stage() -> None:
    for preset in PRESETS.values():
        found = trainer_preset(preset)
        assert (found.name, found.batch_size, found.max_length, found.training) == (
            preset.name, preset.batch_size, preset.max_length, preset.training,
        )  # fmt: skip
        assert (found.model, found.lora) == (preset.start.model, preset.start.lora)


@pytest.mark.parametrize(
    ("pairs", "each", "steps"),
    [(1, 1, 30), (3, 3, 30), (20, 4, 30), (63, 4, 30), (64, 10, 30), (600, 10, 60),
     (9000, 10, 200)],
)  # fmt: skip
def test_steps_follow_the_pairs(pairs: int, each: int, steps: int) -> None:
    fitted = for_pairs(CPU, pairs)
    training = fitted.training
    assert fitted.batch_size * training.gradient_accumulation_steps == each
    assert training.max_steps == steps and training.warmup_steps == -(-steps // 10)
    assert training.eval_steps == training.save_steps == steps // 6


def test_a_presets_own_number_of_steps_bounds_large_files() -> None:
    t4 = for_pairs(T4, 50_000)
    assert t4.training.max_steps == T4.training.max_steps
    assert (t4.batch_size, t4.training.gradient_accumulation_steps) == (2, 4)
    assert for_pairs(replace(T4, batch_size=1), 20).training.gradient_accumulation_steps == 4


def test_steps_can_be_given() -> None:
    training = for_pairs(CPU, 30, steps=2).training
    assert training.max_steps == 2 and training.warmup_steps == 1 and training.eval_steps == 1
    with pytest.raises(ValueError, match="steps is 0: give at least 1"):
        for_pairs(CPU, 30, steps=0)
    with pytest.raises(ValueError, match="no pair is left to train on"):
        for_pairs(CPU, 0)
