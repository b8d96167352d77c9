"""sft.training.unsloth_engine: a job goes out, a result or a quoted log comes back."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import types
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.files import WEIGHTS_NAME, save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import PRESETS, SFTPreset
from posttrain.sft.training import trl_engine, unsloth_worker
from posttrain.sft.training.run import base_model
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.unsloth_engine import EngineError, preset_from, run_unsloth

EXAMPLES = [
    EncodedChat([1, 40 + i, 50, *range(60, 64 + i)], [0, 0, 0, *[1] * (4 + i)])
    for i in range(4)
]
needs_unsloth = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"
)


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(max_steps=2, learning_rate=0.02, min_lr_ratio=0.0, bf16=False)
    return replace(
        tiny_preset, engine="unsloth", quantization="nf4", dtype="bfloat16", training=training
    )


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Put another module in Unsloth's place, in processes that are started."""
    folder.mkdir()
    (folder / "unsloth.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(folder))


# --- the job ---


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_a_preset_comes_back_from_json(preset: SFTPreset) -> None:
    lora = replace(preset.lora, layers_to_transform=(1, 2))
    for given in (preset, replace(preset, lora=lora)):
        assert preset_from(json.loads(json.dumps(asdict(given)))) == given


def test_the_worker_hands_everything_on(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: dict[str, dict[str, Any]] = {}

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
        calls["fit"] = dict(enumerate(parts))
        return EngineRun([2.0, 1.0], 3.0, 40, tmp_path / "adapter", {0: 2.5, 2: 1.5})

    fake: Any = types.ModuleType("unsloth")
    fake.FastLanguageModel = FastLanguageModel
    monkeypatch.setitem(sys.modules, "unsloth", fake)
    monkeypatch.setattr(trl_engine, "fit", fit)
    lora = LoRAConfig(r=3, lora_alpha=5, lora_dropout=0.1, target_modules=("up_proj",),
                      use_rslora=True, use_dora=True, layers_to_transform=(1,))  # fmt: skip
    for four_bit, device in ((True, "cpu"), (False, "cuda")):
        given = replace(
            preset, lora=lora, device=device, quantization="nf4" if four_bit else None,
            training=replace(preset.training, seed=7),
        )  # fmt: skip
        job = {"preset": asdict(given), "examples": [asdict(EXAMPLES[0])], "adapter": None,
               "validation": [asdict(EXAMPLES[1])]}  # fmt: skip
        (tmp_path / "job.json").write_text(json.dumps(job))
        unsloth_worker.main(tmp_path)
        assert calls["load"] == {
            "source": preset.model, "max_seq_length": 32, "dtype": torch.bfloat16,
            "load_in_4bit": four_bit,
        }  # fmt: skip
        assert calls["peft"] == {
            **asdict(lora), "target_modules": ["up_proj"], "layers_to_transform": [1],
            "use_gradient_checkpointing": "unsloth" if device == "cuda" else False,
            "random_state": 7,
        }  # fmt: skip
        expected = (
            "model with adapter",
            "tokenizer",
            EXAMPLES[:1],
            given,
            tmp_path,
            EXAMPLES[1:2],
            None,
        )
        assert tuple(calls["fit"].values()) == expected
    result = json.loads((tmp_path / "result.json").read_text())
    assert result == {"losses": [2.0, 1.0], "seconds": 3.0, "tokens": 40,
                      "adapter": str(tmp_path / "adapter"),
                      "validation": {"0": 2.5, "2": 1.5}}  # fmt: skip


# --- a process that fails ---


def test_a_failing_process_is_quoted(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path / "fake", "print('hello')\nraise RuntimeError('no kernel')")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "result.json").write_text('{"losses": []}')  # of an earlier run
    with pytest.raises(EngineError) as caught:
        run_unsloth(preset, EXAMPLES, folder)
    sentence = str(caught.value)
    assert sentence.startswith("Unsloth's process ended with code 1: ")
    assert "RuntimeError: no kernel (all of it: " in sentence
    assert str(folder / "log.txt") in sentence and "\n" not in sentence
    assert "hello" in (folder / "log.txt").read_text()
    assert json.loads((folder / "job.json").read_text())["adapter"] is None


def test_a_process_that_ends_without_a_result_has_failed(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path / "fake", "print('bye')\nraise SystemExit(0)")
    with pytest.raises(EngineError, match=r"ended with code 0: .*bye.* \(all of it: "):
        run_unsloth(preset, EXAMPLES, tmp_path / "run")


@needs_unsloth
@pytest.mark.slow
def test_a_model_that_does_not_exist_is_named(preset: SFTPreset, tmp_path: Path) -> None:
    missing = replace(preset, model=str(tmp_path / "missing"))
    with pytest.raises(EngineError, match=r"Unsloth's process ended with code 1: .*missing"):
        run_unsloth(missing, EXAMPLES, tmp_path / "run")


# --- Unsloth itself ---


@needs_unsloth
@pytest.mark.slow
def test_unsloth_trains_a_given_adapter_in_four_bits(preset: SFTPreset, tmp_path: Path) -> None:
    model = base_model(preset)
    inject_lora(model, preset.lora, seed=0)
    save_adapter(model, preset.lora, tmp_path / "start", base_model_name=preset.model)
    preset = replace(preset, training=replace(preset.training, eval_steps=1))
    run = run_unsloth(
        preset, EXAMPLES, tmp_path / "run", adapter=tmp_path / "start", validation=EXAMPLES[:2]
    )
    assert len(run.losses) == 2 and all(map(math.isfinite, run.losses))
    assert sorted(run.validation) == [0, 1, 2] and run.validation[2] < run.validation[0]
    assert run.tokens == sum(len(example.input_ids) for example in EXAMPLES)
    start, end = (load_file(f / WEIGHTS_NAME) for f in (tmp_path / "start", run.adapter))
    assert start.keys() == end.keys()
    for name, tensor in end.items():
        moved = (tensor.float() - start[name]).abs().max()
        # two steps of Adam move a number by the rate at most, so this began at our adapter
        assert ("lora_A" in name or moved > 0.01) and moved < 0.05
