"""posttrain.sft.training.engines: the engine is the preset's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import T4, SFTPreset
from posttrain.sft.training import engines
from posttrain.sft.training.engines import ENGINES, run_engine
from posttrain.sft.training.trl_engine import EngineRun


def test_the_engine_is_the_presets(
    tiny_preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Any, ...]] = []

    def engine(name: str) -> Any:
        def run(*parts: Any, **rest: Any) -> EngineRun:
            calls.append((name, *parts, rest))
            return EngineRun([], 0.0, 0, tmp_path)

        return run

    assert set(ENGINES) == {"by_hand", "trl", "unsloth"}
    monkeypatch.setattr(engines, "ENGINES", {name: engine(name) for name in ENGINES})
    for name in ENGINES:
        given = replace(tiny_preset, engine=name)  # type: ignore[arg-type]
        held_out = [EncodedChat([1, 2], [0, 1])]
        run = run_engine(given, [], tmp_path, adapter=tmp_path, validation=held_out)
        assert run.adapter == tmp_path
        options = {"adapter": tmp_path, "validation": held_out, "watching": None}
        assert calls[-1] == (name, given, [], tmp_path, options)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'t4' needs a GPU and torch sees none here"):
        run_engine(T4, [], tmp_path)
    assert len(calls) == 3
