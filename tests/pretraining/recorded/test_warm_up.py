"""posttrain.pretraining.recorded.warm_up: pairs that differ in the warm-up alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.pretraining.presets import NANO
from posttrain.pretraining.recorded import warm_up
from posttrain.pretraining.recorded.warm_up import LENGTHS, SETTINGS, parts, run, warmed


def test_a_pair_differs_in_its_warm_up_alone():
    one, *_, other = (warmed(2, 1e-2, length) for length in LENGTHS)
    assert replace(one.training, warmup_steps=0) == replace(other.training, warmup_steps=0)
    assert one.model == other.model and one.training.warmup_steps > 0
    assert warmed(8, 1e-2, 0).model.num_hidden_layers == 8


def test_each_setting_runs_with_each_seed_on_both_processors():
    found = {(p["seed"], p["layers"], p["rate"], p["processor"]) for p in parts((0, 1))}
    assert len(found) == len(parts((0, 1))) == 2 * 2 * len(SETTINGS)


def test_a_row_for_each_length(monkeypatch: pytest.MonkeyPatch):
    assert LENGTHS[-1] == 0
    tiny = replace(
        NANO.model, hidden_size=8, intermediate_size=8, num_attention_heads=1,
        max_position_embeddings=8,
    )  # fmt: skip
    monkeypatch.setattr(warm_up, "NANO", replace(NANO, model=tiny, batch_size=2))
    monkeypatch.setattr(warm_up, "STEPS", 40)
    monkeypatch.setattr("posttrain.pretraining.training.run._EVALUATION_WINDOWS", 4)
    part = {"seed": 3, "layers": 1, "rate": 1e-2, "processor": "native", "environment": {}}
    monkeypatch.setattr(warm_up, "LENGTHS", (20, 10, 0))
    with_one, shorter, without = run(part)
    assert [row["warmup_steps"] for row in (with_one, shorter, without)] == [20, 10, 0]
    assert with_one["first"] == without["first"]  # the same weights and the same batch
    assert with_one["losses"][-1] != without["losses"][-1]
    assert without["peak"] == max(without["losses"][1:])
    assert len(without["losses"]) == 40 and without["val_loss"] is not None
