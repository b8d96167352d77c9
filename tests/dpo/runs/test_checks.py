"""posttrain.dpo.runs.checks: what no engine may ignore, and what is no training."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import PRESETS, DPOPreset
from posttrain.dpo.runs.checks import check_pair_engine, check_pair_outcome, check_run_pairs

PAIRS = [EncodedPair((1, 2, i), (3, 4), (5,)) for i in range(8)]


def with_start(preset: DPOPreset, **changed: Any) -> DPOPreset:
    return replace(preset, start=replace(preset.start, **changed))


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_every_preset_can_be_run(preset: DPOPreset) -> None:
    check_pair_engine(preset)


def test_what_an_engine_would_ignore_is_refused(preset: DPOPreset) -> None:
    recomputed = replace(preset, gradient_checkpointing=True)
    with pytest.raises(ValueError, match="gradient_checkpointing is true and the run by hand"):
        check_pair_engine(recomputed)
    dropped = with_start(preset, lora=replace(preset.start.lora, lora_dropout=0.1))
    check_pair_engine(dropped)
    simpo = replace(preset, loss=PreferenceLossConfig(loss_type="simpo", simpo_gamma=0.5))
    check_pair_engine(simpo)
    for engine in ("trl", "unsloth"):
        check_pair_engine(with_start(recomputed, engine=engine))
        with pytest.raises(
            ValueError, match=f"lora_dropout is 0.1 and .* engine {engine} runs"
        ):
            check_pair_engine(with_start(dropped, engine=engine))
        with pytest.raises(ValueError, match="does not train SimPO"):
            check_pair_engine(with_start(simpo, engine=engine))


def test_pairs_that_make_no_run(preset: DPOPreset) -> None:
    check_run_pairs(PAIRS, PAIRS[:1], preset)
    training = replace(preset.training, gradient_accumulation_steps=3)
    with pytest.raises(
        ValueError, match=r"8 pairs do not fill one step of batch_size 4 x .* 12"
    ):
        check_run_pairs(PAIRS, PAIRS[:1], replace(preset, training=training))
    with pytest.raises(ValueError, match="at least one held-out pair"):
        check_run_pairs(PAIRS, [], preset)
    long = EncodedPair((1,) * 70, (2,) * 11, (3,))
    for parts, part in (
        ((PAIRS, [long]), "held-out pair 0"),
        (([*PAIRS, long], PAIRS), "g pair 8"),
    ):
        with pytest.raises(ValueError, match=f"{part}, counted from 0, has 81 tokens"):
            check_run_pairs(*parts, preset)


def test_what_is_no_training(preset: DPOPreset) -> None:
    start = {"A": torch.ones(2), "B": torch.zeros(2)}
    moved = {"A": torch.ones(2), "B": torch.tensor([0.0, 0.1])}
    steps = preset.training.max_steps
    check_pair_outcome(steps, preset, start, moved)
    with pytest.raises(TrainingIncomplete, match=f"ended after {steps - 1} of {steps} steps"):
        check_pair_outcome(steps - 1, preset, start, moved)
    with pytest.raises(TrainingIncomplete, match="the adapter is what it was before the first"):
        check_pair_outcome(steps, preset, start, dict(start))
    with pytest.raises(TrainingDiverged, match="holds NaN or infinity"):
        check_pair_outcome(steps, preset, start, {**moved, "A": torch.tensor([1.0, torch.nan])})
