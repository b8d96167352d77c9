"""posttrain.pretraining.recorded.explosion: what is run, and what a row of it says."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.pretraining.presets import NANO
from posttrain.pretraining.recorded import explosion
from posttrain.pretraining.recorded.explosion import AVX2, RATES, exploding, parts, run


def test_only_the_rate_differs_from_the_nano_preset():
    preset = exploding(3.0)
    same = replace(preset.training, learning_rate=NANO.training.learning_rate)
    assert same == NANO.training and preset.model == NANO.model
    assert exploding(3.0, bf16=False).training.use_bf16 is False


def test_each_rate_runs_on_both_processors():
    found = parts((0, 1))
    assert {(p["rate"], bool(p["environment"])) for p in found} == {
        (rate, limited) for rate in RATES for limited in (False, True)
    }
    assert all(p["seeds"] == [0, 1] for p in found)
    assert [p["environment"] for p in found if p["environment"]] == [AVX2] * len(RATES)


def test_a_run_that_explodes_and_one_that_does_not(monkeypatch: pytest.MonkeyPatch):
    tiny = replace(
        NANO.model, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, max_position_embeddings=8,
    )  # fmt: skip
    training = replace(NANO.training, max_steps=24, warmup_steps=0)
    small = replace(NANO, model=tiny, batch_size=2, training=training)
    monkeypatch.setattr(explosion, "NANO", small)
    monkeypatch.setattr("posttrain.pretraining.training.run._EVALUATION_WINDOWS", 4)
    part = {"processor": "native", "environment": {}, "seeds": [0, 1]}
    wild = run({**part, "rate": 30.0})
    calm = run({**part, "rate": 1e-3})
    assert [row["seed"] for row in wild] == [0, 1]
    for row in wild:
        assert row["stopped_at"] == 20 and row["worst"] > 1.5 * row["start"]
        assert len(row["losses"]) == 20
    for row in calm:
        assert row["stopped_at"] is None and len(row["losses"]) == 24
        assert row["worst"] < 1.1 * row["start"]
        assert row["start"] == pytest.approx(sum(row["losses"][:10]) / 10, rel=1e-4)
