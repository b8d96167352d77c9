"""posttrain.sft.runs.settings: fields by name, steps by the number of rows."""

from dataclasses import replace

import pytest

from posttrain.sft.presets import CPU, PRESETS, T4
from posttrain.sft.runs.settings import for_rows, setting_names, with_settings


def test_every_field_can_be_named() -> None:
    names = setting_names()
    assert {"model", "batch_size", "lora.r", "training.learning_rate"} <= set(names)
    for preset in PRESETS.values():
        for name in names:
            part, _, field = name.rpartition(".")
            value = getattr(getattr(preset, part) if part else preset, field)
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            assert with_settings(preset, [f"{name}={text}"]) == preset, name


def test_values_are_read_as_their_types_say() -> None:
    changed = with_settings(
        T4,
        ["learning_rate=1e-4", "lora.r=32", "quantization=none", "lora.use_dora=true",
         "target_modules=q_proj, v_proj", "lora.layers_to_transform=0,2", "max_length = 512",
         "training.bf16=none", "model=a=b"],
    )  # fmt: skip
    assert changed.training.learning_rate == 1e-4 and changed.training.bf16 is None
    assert changed.lora.r == 32 and changed.lora.use_dora is True
    assert changed.lora.target_modules == ("q_proj", "v_proj")
    assert changed.lora.layers_to_transform == (0, 2)
    assert changed.quantization is None and changed.max_length == 512 and changed.model == "a=b"
    assert with_settings(T4, []) is not None and with_settings(T4, []) == T4


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("lora.r", "has no '=': give name=value"),
        ("rank=8", r"names 'rank', which no preset has"),
        ("lerning_rate=1", "did you mean training.learning_rate"),
        ("steps=3", "names 'steps', which no preset has; did you mean"),
        ("lora.r=eight", "lora.r is 'eight': give a whole number"),
        ("lora.r=1.5", "lora.r is '1.5': give a whole number"),
        ("learning_rate=fast", "training.learning_rate is 'fast': give a number"),
        ("lora.use_dora=1", "lora.use_dora is '1': give true or false"),
        ("engine=axolotl", "engine is 'axolotl': choose one of by_hand, trl, unsloth"),
        ("lora.r=0", "r is 0: give a whole number from 1 up"),
        ("training.learning_rate=-1", "learning_rate is"),
    ],
)
def test_what_is_no_setting_is_refused(text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        with_settings(CPU, [text])


@pytest.mark.parametrize(
    ("rows", "examples", "steps"),
    [(1, 1, 36), (3, 3, 36), (27, 4, 36), (60, 8, 36), (127, 8, 45), (128, 16, 36),
     (500, 16, 93), (5000, 16, 200)],
)  # fmt: skip
def test_steps_follow_the_rows(rows: int, examples: int, steps: int) -> None:
    fitted = for_rows(CPU, rows)
    training = fitted.training
    assert fitted.batch_size * training.gradient_accumulation_steps == examples
    assert training.max_steps == steps
    assert training.warmup_steps == -(-steps // 20)
    assert training.eval_steps == training.save_steps == steps // 6


def test_a_presets_own_number_of_steps_bounds_large_files() -> None:
    assert for_rows(T4, 50_000).training.max_steps == T4.training.max_steps
    t4 = for_rows(T4, 50_000)
    assert t4.batch_size == T4.batch_size and t4.training.gradient_accumulation_steps == 2
    assert for_rows(T4, 500).training.max_steps == 93
    small = replace(T4, batch_size=4)
    assert for_rows(small, 500).training.gradient_accumulation_steps == 4


def test_steps_can_be_given() -> None:
    training = for_rows(CPU, 30, steps=2).training
    assert training.max_steps == 2 and training.warmup_steps == 1 and training.eval_steps == 1
    with pytest.raises(ValueError, match="steps is 0: give at least 1"):
        for_rows(CPU, 30, steps=0)
    with pytest.raises(ValueError, match="no row is left to train on"):
        for_rows(CPU, 0)


def test_a_single_text_is_no_list_of_settings() -> None:
    with pytest.raises(ValueError, match=r"settings is 'lora.r=4': give a sequence of texts, "):
        with_settings(CPU, "lora.r=4")
