"""dpo.runs.unsloth_engine and unsloth_worker: a job goes out, a result or a log comes back."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import PRESETS, DPOPreset
from posttrain.dpo.runs import trl_engine, unsloth_worker
from posttrain.dpo.runs.unsloth_engine import pair_from, pair_preset_from, run_pairs_unsloth
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.unsloth_engine import EngineError
from tests.dpo.runs.conftest import small, tiny_model

PAIRS = [
    EncodedPair((10 + i, 50, 60 + i), (40 + i, 41, 2), (70, 71 + i, 72, 2)) for i in range(8)
]
needs_unsloth = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"
)


def unsloth(preset: DPOPreset, **changed: Any) -> DPOPreset:
    training = replace(preset.training, max_steps=2, eval_steps=1, seed=7)
    start = replace(preset.start, engine="unsloth", **changed)
    return replace(preset, start=start, training=training)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_a_preset_and_a_pair_come_back_from_json(preset: DPOPreset) -> None:
    assert pair_preset_from(json.loads(json.dumps(asdict(preset)))) == preset
    assert pair_from(json.loads(json.dumps(asdict(PAIRS[0])))) == PAIRS[0]


def test_the_worker_hands_everything_on(
    preset: DPOPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: dict[str, Any] = {}

    class FastLanguageModel:
        @staticmethod
        def from_pretrained(source: str, **options: Any) -> tuple[str, str]:
            calls["load"] = {"source": source, **options}
            return "model", "tokenizer"

        @staticmethod
        def get_peft_model(model: str, **options: Any) -> str:
            calls["peft"] = options
            return f"{model} with adapter"

    def fit(*parts: Any) -> EngineRun:
        calls["fit"] = parts
        return EngineRun([2.0, 1.0], 3.0, 40, tmp_path / "adapter", {0: 2.5, 2: 1.5})

    fake: Any = types.ModuleType("unsloth")
    fake.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", fake)
    monkeypatch.setattr(trl_engine, "fit_pairs", fit)
    for four_bit, checkpointing in ((True, False), (False, True)):
        given = replace(
            unsloth(preset, quantization="nf4" if four_bit else None),
            gradient_checkpointing=checkpointing,
        )
        job = {"preset": asdict(given), "pairs": [asdict(PAIRS[0])], "adapter": None,
               "validation": [asdict(PAIRS[1])]}  # fmt: skip
        (tmp_path / "job.json").write_text(json.dumps(job))
        unsloth_worker.main(tmp_path)
        assert calls["load"] == {
            "source": preset.start.model, "max_seq_length": 80, "dtype": torch.float32,
            "load_in_4bit": four_bit,
        }  # fmt: skip
        lora = given.start.lora
        assert calls["peft"] == {
            **asdict(lora), "target_modules": list(lora.target_modules), "random_state": 7,
            "use_gradient_checkpointing": "unsloth" if checkpointing else False,
        }  # fmt: skip
        assert calls["fit"] == (
            "model with adapter", "tokenizer", PAIRS[:1], given, tmp_path, PAIRS[1:2], None,
        )  # fmt: skip
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["losses"] == [2.0, 1.0] and result["validation"] == {"0": 2.5, "2": 1.5}


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("print('hello')\nraise RuntimeError('no kernel')", "ended with code 1: .*no kernel"),
        ("print('bye')\nraise SystemExit(0)", "ended with code 0: .*bye"),
    ],
)
def test_a_failing_process_is_quoted(
    code: str, sentence: str, preset: DPOPreset, monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:  # fmt: skip
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "unsloth.py").write_text(code)
    monkeypatch.setenv(
        "PYTHONPATH", f"{tmp_path / 'fake'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    )
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text('{"losses": []}')  # of an earlier run
    with pytest.raises(EngineError, match=rf"{sentence}.* \(all of it: ") as told:
        run_pairs_unsloth(unsloth(preset), PAIRS, folder, validation=PAIRS[:2])
    assert "\n" not in str(told.value)
    job = json.loads((folder / "job.json").read_text())
    assert len(job["pairs"]) == 8 and job["adapter"] is None


@needs_unsloth
@pytest.mark.slow
def test_unsloth_trains_a_given_adapter_in_four_bits(tmp_path: Path, tokenizer: Any) -> None:
    model = tiny_model(tmp_path / "model", tokenizer, qwen=False, width=64)
    preset = unsloth(small(model), quantization="nf4", dtype="bfloat16")
    run = run_pairs_unsloth(
        preset, PAIRS, tmp_path / "run", adapter=model / "sft", validation=PAIRS[:2]
    )
    assert len(run.losses) == 2 and sorted(run.validation) == [0, 1, 2]
    assert run.validation[0] == pytest.approx(math.log(2), abs=0.02)  # bfloat16
    assert run.validation[2] < run.validation[0]
