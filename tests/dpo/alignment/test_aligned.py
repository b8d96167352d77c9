"""posttrain.dpo.alignment.aligned: the run begins at its start, is watched, and made once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posttrain.core.training.checkpoints import History
from posttrain.dpo.alignment import aligned as module
from posttrain.dpo.alignment.aligned import WATCHED, aligned, encoded
from posttrain.dpo.alignment.pair_sets import PairSet
from posttrain.dpo.alignment.start import Start
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.presets import CPU, T4, DPOPreset
from posttrain.sft.adapters.files import save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.run import base_model


def row(i: int) -> PairRow:
    return {
        "prompt": [{"role": "user", "content": f"What is {i}?"}],
        "chosen": [{"role": "assistant", "content": "You know it."}],
        "rejected": [{"role": "assistant", "content": "It is a number."}],
    }


PAIRS = PairSet([row(i) for i in range(4)], [row(i) for i in range(4, 6)], {}, {})


@pytest.fixture
def preset(
    tiny_preset: SFTPreset, tmp_path: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> DPOPreset:
    model = base_model(tiny_preset)
    inject_lora(model, tiny_preset.lora, 0)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    adapter = tmp_path / "run" / "best"
    save_adapter(model, tiny_preset.lora, adapter, base_model_name=tiny_preset.model)
    start = Start(adapter, [], History(), tiny_preset)
    monkeypatch.setattr(module, "everyday_start", lambda seed: start)
    monkeypatch.setattr(module, "WATCHED", WATCHED[:1])
    training = replace(
        CPU.training,
        max_steps=4,
        warmup_steps=0,
        eval_steps=2,
        save_steps=0,
        learning_rate=1e-2,
    )
    return replace(CPU, start=tiny_preset, batch_size=2, training=training)


def test_a_run_begins_at_its_start_and_is_made_once(
    preset: DPOPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = aligned(preset, 0, PAIRS)
    first = run.history.evaluations[0]
    assert first["kl"] == 0 and abs(first["margin"]) < 1e-5
    assert run.end["kl"] > 0 and run.end["margin"] > first["margin"]
    steps = [sample["step"] for sample in run.samples]
    assert steps == [0, 2, 4] and len(run.samples[0]["texts"]) == 1
    assert run.samples[0]["texts"] != run.samples[-1]["texts"]
    assert (run.adapter / "adapter_config.json").is_file() and run.diverged is None
    monkeypatch.setattr(module, "train_pairs", None)
    assert aligned(preset, 0, PAIRS) == run


def test_other_pairs_are_another_run(preset: DPOPreset) -> None:
    run = aligned(preset, 0, PAIRS)
    swapped: list[PairRow] = [
        {"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]}
        for p in PAIRS.train
    ]
    other = aligned(preset, 0, replace(PAIRS, train=swapped))
    assert other.folder != run.folder and other.end["margin"] < 0 < run.end["margin"]


def test_pairs_are_read_as_the_presets_model_reads_them() -> None:
    pairs = encoded(PAIRS.train)
    assert len(pairs) == 4 and len({pair.chosen_ids for pair in pairs}) == 1
    long = replace(CPU, max_length=len(pairs[0].prompt_ids))
    with pytest.raises(ValueError, match="none of 4 pairs is left"):
        encoded(PAIRS.train, long)


def test_another_engine_is_refused() -> None:
    with pytest.raises(ValueError, match="run posttrain dpo --preset t4"):
        aligned(T4, 0, PAIRS)
