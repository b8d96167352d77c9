"""posttrain.dpo.recorded.settings: one setting is varied at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from posttrain.dpo.presets import CPU
from posttrain.dpo.recorded.numbers import setting_of
from posttrain.dpo.recorded.settings import PAIRS, parts, preset_for


def test_each_setting_differs_from_the_main_run_in_one_thing() -> None:
    found = parts([0, 1])
    main = next(part for part in found if part["varied"] == "main")
    assert len(found) == 2 * 9
    assert set(Counter(map(setting_of, found)).values()) == {2}
    for part in found:
        changed = {k for k in ("beta", "flipped", "pairs", "loss") if part[k] != main[k]}
        expected = {"main": set(), "robust": {"flipped", "loss"}}
        assert changed == expected.get(part["varied"], {part["varied"]}), part


def test_the_main_run_is_the_chapters() -> None:
    preset = preset_for(parts([0])[0])
    assert preset.loss == CPU.loss and preset.batch_size * preset.training.max_steps == PAIRS
    assert preset.training.learning_rate == CPU.training.learning_rate
    assert preset.training.max_steps == CPU.training.max_steps


@pytest.mark.parametrize("part", parts([0]), ids=setting_of)
def test_every_pair_is_read_once(part: dict[str, Any]) -> None:
    preset = preset_for(part)
    assert preset.training.max_steps * preset.batch_size == part["pairs"]
    assert preset.loss.label_smoothing == (0.3 if part["loss"] == "robust" else 0)
    assert preset.loss.beta == part["beta"]
