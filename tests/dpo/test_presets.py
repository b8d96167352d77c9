"""posttrain.dpo.presets: each is built, has its reasons, and follows Stage 1's."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from posttrain.dpo import presets
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import A100, CPU, GPU24, PRESETS, T4, T4_QWEN, DPOPreset, get_preset
from posttrain.sft.presets import PRESETS as SFT_PRESETS

each = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())


@each
def test_a_preset_follows_stage_1_on_the_same_machine(preset: DPOPreset) -> None:
    assert preset.start is SFT_PRESETS[preset.name]
    assert preset.training.learning_rate <= preset.start.training.learning_rate / 8
    assert preset.max_length <= preset.start.max_length
    assert preset.gradient_checkpointing is (preset.start.device == "cuda")
    assert preset.loss == PreferenceLossConfig(loss_type="sigmoid", beta=0.1)


@each
def test_a_schedule_makes_sense(preset: DPOPreset) -> None:
    training = preset.training
    assert training.warmup_steps * 10 == training.max_steps
    assert training.eval_steps == training.save_steps > 0
    assert training.max_steps % training.eval_steps == 0
    assert training.explosion_ratio == 0 and not training.bf16
    read = preset.batch_size * training.gradient_accumulation_steps
    assert read == (10 if preset is CPU else 8)


def test_presets_by_name() -> None:
    assert list(PRESETS.values()) == [CPU, T4, T4_QWEN, GPU24, A100]
    assert PRESETS.keys() == SFT_PRESETS.keys()
    assert get_preset("t4-qwen") is T4_QWEN
    with pytest.raises(ValueError, match="there is no preset 'tpu': choose one of cpu, t4"):
        get_preset("tpu")
    with pytest.raises(FrozenInstanceError):
        CPU.batch_size = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"name": ""}, "name is"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"batch_size": 1.5}, "batch_size is 1.5"),
        ({"max_length": "long"}, "max_length is 'long'"),
        ({"start": "t4"}, "start is 't4': give a SFTPreset"),
        ({"loss": "sigmoid"}, "loss is 'sigmoid': give a PreferenceLossConfig"),
        ({"training": None}, "training is None: give a TrainingConfig"),
        ({"gradient_checkpointing": "yes"}, "gradient_checkpointing is 'yes': give a bool"),
        ({"loss": PreferenceLossConfig(loss_type="kto")}, "KTO takes single answers"),
    ],
)
def test_what_no_run_can_have_is_refused(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(CPU, **changed)


def settings(node: ast.AST) -> Iterator[ast.keyword]:
    """The settings of a preset, and of the calls nested in it."""
    assert isinstance(node, ast.Call)
    for keyword in node.keywords:
        inner = keyword.value
        if isinstance(inner, ast.Call) and inner.lineno != inner.end_lineno:
            yield from settings(inner)
        else:  # a call on one line has one reason
            yield keyword


def test_every_value_stands_beside_its_reason() -> None:
    source = inspect.getsource(presets)
    lines, missing, seen = source.splitlines(), [], 0
    for statement in ast.parse(source).body:
        if not (isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Call)):
            continue
        for keyword in settings(statement.value):
            seen += 1
            rest = lines[(keyword.value.end_lineno or 1) - 1][keyword.value.end_col_offset :]
            comment = rest.lstrip(",) ")
            words = comment.removeprefix("# ").split() if comment.startswith("# ") else []
            if keyword.arg != "name" and len(words) < 2:
                missing.append(f"line {keyword.lineno}: {keyword.arg}")
    assert missing == [] and seen > 40
