"""From a preset to the run that was asked for: fields by name, steps by the number of rows.

Chapter: sft/your_model.
"""

from __future__ import annotations

import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from posttrain.core.arguments import names
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import SFTPreset

PARTS: dict[str, type] = {"lora": LoRAConfig, "training": TrainingConfig}
LEAST_STEPS = 36  # as many as the chapter's run; fewer hardly move a fresh adapter
PASSES = 3  # over the rows; the adapter of the lowest validation loss is kept
MOST_STEPS = 200  # of a preset that plans fewer: an evening's patience on two cores
_EXAMPLES_A_STEP = ((128, 16), (48, 8), (0, 4))  # from so many rows, so many a step

PresetT = TypeVar("PresetT")


def setting_names() -> list[str]:
    """List what ``--set`` can name.

    Returns:
        Dotted names, such as ``training.learning_rate``.

    Chapter: sft/your_model.
    """
    return list(setting_paths())


def setting_paths() -> dict[str, tuple[str, ...]]:
    """Say where each setting of Stage 1 stands in its preset.

    Returns:
        Names of fields, the outermost first, by what ``--set`` names.

    Chapter: sft/your_model.
    """
    own = (field.name for field in fields(SFTPreset) if field.name not in ("name", *PARTS))
    paths: dict[str, tuple[str, ...]] = {name: (name,) for name in own}
    for part, kind in PARTS.items():
        paths |= {f"{part}.{field.name}": (part, field.name) for field in fields(kind)}
    return paths


def with_settings(
    preset: PresetT,
    settings: Sequence[str],
    paths: Mapping[str, tuple[str, ...]] | None = None,
) -> PresetT:
    """Change fields of a preset.

    Args:
        preset: The preset.
        settings: Texts such as ``training.learning_rate=1e-4``, ``lora.r=32``,
            ``quantization=none`` or ``lora.target_modules=q_proj,v_proj``. A last part that
            only one name has is enough: ``learning_rate=1e-4``.
        paths: Where each setting stands in the preset; those of Stage 1 where they are left
            out.

    Returns:
        The changed preset.

    Raises:
        ValueError: If a text has no ``=``, names no field, or its value is none of the field.

    Chapter: sft/your_model.
    """
    paths = setting_paths() if paths is None else paths
    changed: dict[str, Any] = {}
    for text in names(settings, "settings"):
        name, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text!r} has no '=': give name=value, such as lora.r=32")
        name = full_name(name.strip(), paths)
        *outer, field = paths[name]
        hint: Any = type(preset)
        at = changed
        for part in outer:
            hint = typing.get_type_hints(hint)[part]
            at = at.setdefault(part, {})
        at[field] = _parse(value.strip(), typing.get_type_hints(hint)[field], name)
    return _replaced(preset, changed)


def _replaced(value: Any, changed: Mapping[str, Any]) -> Any:
    """Change a dataclass, and those in it, each of them once: their fields are checked."""
    inner = {
        name: _replaced(getattr(value, name), new) if isinstance(new, dict) else new
        for name, new in changed.items()
    }
    return replace(value, **inner)


def full_name(name: str, known: Iterable[str]) -> str:
    """Say which setting is meant.

    Args:
        name: A name, or a last part of one that no other has.
        known: All names.

    Returns:
        The whole name.

    Raises:
        ValueError: If there is none, or more than one; it says which come near.

    Chapter: sft/your_model.
    """
    names = list(known)
    found = [each for each in names if each == name or each.endswith(f".{name}")]
    if len(found) == 1 or name in names:
        return name if name in names else found[0]
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = (
        f"; did you mean {' or '.join(close)}?"
        if close
        else f": choose from {', '.join(names)}"
    )
    raise ValueError(f"--set names {name!r}, which no preset has{hint}")


def _parse(text: str, hint: Any, name: str) -> Any:
    """Read a value as a field's type says."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if text.lower() in ("none", "null", "") and type(None) in inner:
            return None
        return _parse(text, next(kind for kind in inner if kind is not type(None)), name)
    if origin is Literal:
        if text in inner:
            return text
        raise ValueError(f"{name} is {text!r}: choose one of {', '.join(map(str, inner))}")
    if origin is tuple:
        return tuple(_parse(part.strip(), inner[0], name) for part in text.split(",") if part)
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(f"{name} is {text!r}: give true or false")
        return text.lower() == "true"
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            kind = "a whole number" if hint is int else "a number"
            raise ValueError(f"{name} is {text!r}: give {kind}") from None
    assert hint is str and not is_dataclass(hint)
    return text


def for_rows(preset: SFTPreset, rows: int, steps: int | None = None) -> SFTPreset:
    """Fit batch and schedule to a number of examples.

    A step reads 16 examples, or 8 or 4 where there are few. The run makes three passes over
    them and at least 36 steps, but no more than the preset plans, or 200 where that plans
    fewer. The rate warms up over a twentieth of the run. Six times on the way the held-out rows
    are measured, and the adapter of the lowest loss is kept.

    Args:
        preset: The preset.
        rows: Training examples.
        steps: Optimizer steps, where the number is to be this.

    Returns:
        The preset with its ``batch_size`` and ``training`` changed.

    Raises:
        ValueError: If there is no row, or ``steps`` is below 1.

    Chapter: sft/your_model.
    """
    if rows < 1:
        raise ValueError("no row is left to train on: look at what was dropped, and why")
    if steps is not None and steps < 1:
        raise ValueError(f"steps is {steps}: give at least 1")
    each = next(examples for least, examples in _EXAMPLES_A_STEP if rows >= least)
    each = min(each, rows)
    batch_size = min(preset.batch_size, each)
    accumulation = max(1, each // batch_size)
    a_pass = max(1, rows // (batch_size * accumulation))
    if steps is None:
        most = max(preset.training.max_steps, MOST_STEPS)
        steps = min(max(PASSES * a_pass, LEAST_STEPS), most)
    apart = max(1, steps // 6)
    training = replace(
        preset.training,
        max_steps=steps,
        warmup_steps=math.ceil(steps / 20),
        gradient_accumulation_steps=accumulation,
        eval_steps=apart,
        save_steps=apart,
    )
    return replace(preset, batch_size=batch_size, training=training)
