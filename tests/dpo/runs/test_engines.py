"""posttrain.dpo.runs.engines and the engines themselves: one call, one result."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs import engines
from posttrain.dpo.runs.engines import PAIR_ENGINES, run_pair_engine
from posttrain.dpo.training import dpo_run

WEIGHTS = "adapter_model.safetensors"
PAIRS = [
    EncodedPair((10 + i, 50, 60 + i), (40 + i, 41, 2), (70, 71 + i, 72, 2)) for i in range(8)
]


def engine(preset: DPOPreset, name: str, **changed: Any) -> DPOPreset:
    start = replace(preset.start, engine=name)
    training = replace(
        preset.training, max_steps=3, eval_steps=1, save_steps=1, warmup_steps=0, **changed
    )
    return replace(preset, start=start, training=training)


@pytest.mark.parametrize("name", ["by_hand", "trl"])
def test_the_kept_adapter_is_the_best_after_a_step(
    name: str, preset: DPOPreset, llama: Path, tmp_path: Path
) -> None:
    """A rate that ruins the run: each evaluation is worse than the start."""
    run = run_pair_engine(
        engine(preset, name, learning_rate=5.0), PAIRS, tmp_path, adapter=llama / "sft",
        validation=PAIRS[:3][::-1],
    )  # fmt: skip
    assert len(run.losses) == 3 and sorted(run.validation) == [0, 1, 2, 3]
    assert run.validation[0] == pytest.approx(math.log(2), abs=1e-4)
    start, end = (load_file(f / WEIGHTS) for f in (llama / "sft", run.adapter))
    moved = max(float((end[key] - start[key]).abs().max()) for key in start)
    assert moved > 1
    assert run.adapter == tmp_path / "adapter"
    assert {file.name for file in tmp_path.iterdir()} == {"adapter"}


def test_activations_computed_twice_change_nothing(
    preset: DPOPreset, llama: Path, tmp_path: Path
) -> None:
    found = [
        run_pair_engine(
            replace(engine(preset, "trl"), gradient_checkpointing=again), PAIRS,
            tmp_path / str(again), adapter=llama / "sft", validation=PAIRS[:2],
        ).losses
        for again in (False, True)
    ]  # fmt: skip
    assert found[0] == pytest.approx(found[1], abs=1e-5)


def test_tokens_are_counted_once_by_hand_and_twice_by_trl(
    preset: DPOPreset, llama: Path, tmp_path: Path
) -> None:
    found = {
        name: run_pair_engine(
            engine(preset, name), PAIRS, tmp_path / name, adapter=llama / "sft",
            validation=PAIRS[:2],
        ).tokens
        for name in ("by_hand", "trl")
    }  # fmt: skip
    assert found == {"by_hand": 3 * 4 * 10, "trl": 3 * 4 * 13}


def test_a_run_that_diverges_says_so(
    preset: DPOPreset, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = dpo_run.preference_loss

    def ruined(*parts: Any) -> Any:
        losses = usual(*parts)
        return losses * math.nan if torch.is_grad_enabled() else losses

    monkeypatch.setattr(dpo_run, "preference_loss", ruined)
    with pytest.raises(
        TrainingDiverged, match=r"^training diverged at step 0: the loss is nan"
    ):
        run_pair_engine(
            engine(preset, "by_hand"), PAIRS, tmp_path, adapter=llama / "sft",
            validation=PAIRS[:2],
        )  # fmt: skip


def test_a_run_that_learns_nothing_is_none(
    preset: DPOPreset, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from posttrain.core.training import loop

    monkeypatch.setattr(loop, "learning_rate_at", lambda step, config: 0.0)
    with pytest.raises(TrainingIncomplete, match="the adapter is what it was"):
        run_pair_engine(
            engine(preset, "by_hand"), PAIRS, tmp_path, adapter=llama / "sft",
            validation=PAIRS[:2],
        )  # fmt: skip


def test_every_engine_refuses_the_same(preset: DPOPreset, tmp_path: Path) -> None:
    for name in PAIR_ENGINES:
        with pytest.raises(ValueError, match="3 pairs do not fill one step"):
            run_pair_engine(engine(preset, name), PAIRS[:3], tmp_path, validation=PAIRS)
        with pytest.raises(ValueError, match="at least one held-out pair"):
            run_pair_engine(engine(preset, name), PAIRS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_engine_that_is_named_is_called(
    preset: DPOPreset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PAIR_ENGINES:
        calls: list[Any] = []
        monkeypatch.setitem(engines.PAIR_ENGINES, name, lambda *a, **k: calls.append((a, k)))  # noqa: B023
        chosen = engine(preset, name)
        run_pair_engine(chosen, PAIRS, tmp_path, adapter=tmp_path, validation=PAIRS[:1])
        assert calls == [
            ((chosen, PAIRS, tmp_path),
             {"adapter": tmp_path, "validation": PAIRS[:1], "watching": None}),
        ]  # fmt: skip
    gpu = replace(preset, start=replace(preset.start, device="cuda"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="needs a GPU"):
        run_pair_engine(gpu, PAIRS, tmp_path, validation=PAIRS)
