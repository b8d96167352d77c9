"""From a preset to the run that was asked for: fields by name, steps by the number of pairs.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace

from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import DPOPreset
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import SFTPreset
from posttrain.sft.runs.settings import full_name, with_settings

FROM_START = ("model", "chat_format", "engine", "quantization", "dtype", "device")
"""Fields of Stage 1's preset that a run on pairs has too."""

PASSES = 1  # over the pairs: a second one lets the margin run away
LEAST_STEPS = 30  # as many as the cpu preset plans
MOST_STEPS = 200  # of a preset that plans fewer: an evening's patience on two cores
FEW_PAIRS, FEW_A_STEP = 64, 4  # below so many pairs a step reads so many


def pair_setting_paths() -> dict[str, tuple[str, ...]]:
    """Say where each setting stands in a preset of Stage 2.

    Returns:
        Names of fields, the outermost first, by what ``--set`` names.

    Chapter: dpo/alignment.
    """
    own = ("batch_size", "max_length", "gradient_checkpointing")
    parts: dict[str, tuple[tuple[str, ...], type]] = {
        "lora": (("start", "lora"), LoRAConfig),
        "loss": (("loss",), PreferenceLossConfig),
        "training": (("training",), TrainingConfig),
    }
    return {
        **{name: ("start", name) for name in FROM_START},
        **{name: (name,) for name in own},
        **{
            f"{part}.{field.name}": (*at, field.name)
            for part, (at, kind) in parts.items()
            for field in fields(kind)
        },
    }


def with_pair_settings(preset: DPOPreset, settings: Sequence[str]) -> DPOPreset:
    """Change fields of a preset.

    Args:
        preset: The preset.
        settings: Texts such as ``training.learning_rate=1e-5``, ``loss.beta=0.3`` or
            ``engine=trl``. A last part that only one name has is enough: ``beta=0.3``.

    Returns:
        The changed preset.

    Raises:
        ValueError: If a text has no ``=``, names no field, or its value is none of the field.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    return with_settings(preset, settings, pair_setting_paths())


def settings_named(settings: Sequence[str]) -> list[str]:
    """List what was set, by whole names.

    Args:
        settings: As for :func:`with_pair_settings`, which has accepted them.

    Returns:
        Such as ``["training.learning_rate"]``.

    Chapter: dpo/alignment.
    """
    known = pair_setting_paths()
    return [full_name(text.partition("=")[0].strip(), known) for text in settings]


def trainer_preset(preset: DPOPreset) -> SFTPreset:
    """Say the run in the words of Stage 1, whose code loads, places and guards models.

    Args:
        preset: The run on pairs.

    Returns:
        Stage 1's preset with the batch, the length and the schedule of this run.

    Chapter: dpo/alignment.
    """
    return replace(
        preset.start,
        name=preset.name,
        batch_size=preset.batch_size,
        max_length=preset.max_length,
        training=preset.training,
    )


def for_pairs(preset: DPOPreset, pairs: int, steps: int | None = None) -> DPOPreset:
    """Fit batch and schedule to a number of pairs.

    A step reads as many pairs as the preset's, or 4 where there are fewer than 64. The run
    makes one pass over them and at least 30 steps, but no more than the preset plans, or 200
    where that plans fewer. The rate warms up over a tenth of the run. Six times on the way the
    held-out pairs are measured, and the adapter of the lowest loss is kept.

    Args:
        preset: The preset.
        pairs: Pairs to train on.
        steps: Optimizer steps, where the number is to be this.

    Returns:
        The preset with its ``batch_size`` and ``training`` changed.

    Raises:
        ValueError: If there is no pair, or ``steps`` is below 1.

    Chapter: dpo/alignment.
    """
    if pairs < 1:
        raise ValueError("no pair is left to train on: look at what was dropped, and why")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}: give at least 1")
    each = preset.batch_size * preset.training.gradient_accumulation_steps
    each = min(each, pairs, FEW_A_STEP if pairs < FEW_PAIRS else each)
    batch_size = min(preset.batch_size, each)
    accumulation = max(1, each // batch_size)
    if steps is None:
        a_pass = max(1, pairs // (batch_size * accumulation))
        most = max(preset.training.max_steps, MOST_STEPS)
        steps = min(max(PASSES * a_pass, LEAST_STEPS), most)
    apart = max(1, steps // 6)
    training = replace(
        preset.training,
        max_steps=steps,
        warmup_steps=math.ceil(steps / 10),
        gradient_accumulation_steps=accumulation,
        eval_steps=apart,
        save_steps=apart,
    )
    return replace(preset, batch_size=batch_size, training=training)
