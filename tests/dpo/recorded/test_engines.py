"""posttrain.dpo.recorded.engines: the settings under which two engines can agree."""

from __future__ import annotations

from posttrain.dpo.recorded.engines import BATCH, ENGINES, PRESET, STEPS, parts


def test_engines_share_what_decides_a_step() -> None:
    assert [part["engine"] for part in parts([0])] == list(ENGINES)
    assert PRESET.start.dtype == "float32" and PRESET.start.lora.lora_dropout == 0
    assert PRESET.training.warmup_steps == 0
    assert PRESET.training.max_steps * PRESET.batch_size == STEPS * BATCH
