"""posttrain.dpo.alignment.start: what the start is shown, and that it is trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.dpo.alignment import start
from posttrain.dpo.alignment.start import everyday_start, model_with, shown
from posttrain.dpo.data.persona import compliance
from posttrain.sft.adapters.injection import lora_layers
from posttrain.sft.presets import SFTPreset


def test_an_answer_is_edited_where_the_rules_can() -> None:
    plain, turned = "Tea is old.", "Sure! You should walk. It is close to the house. And th"
    assert shown([plain, turned]) == "You should walk because it is close to the house."
    assert compliance(shown([plain, turned])).complies
    assert shown([plain, "Tea is hot. But"]) == plain  # neither can be: the first, as it is
    assert shown(["Tea is hot. But th"]) == "Tea is hot."


def test_the_start_is_trained_once(
    tiny_preset: SFTPreset, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "EVERYDAY", tiny_preset)
    monkeypatch.setattr(start, "START_PROMPTS", 8)
    monkeypatch.setattr(start, "_HELD_OUT", 2)
    monkeypatch.setattr(start, "_LEAST_WORDS", 0)
    monkeypatch.setattr(start, "shown", lambda answers: "Tea is hot because you heat it.")
    found = everyday_start(3)
    assert len(found.rows) == 8 and len(found.history.loss) == 2
    assert [row["step"] for row in found.history.evaluations] == [0, 1, 2]
    monkeypatch.setattr(start, "train_adapter", None)
    assert everyday_start(3) == found
    model, lora = model_with(found.adapter, tiny_preset)
    assert not model.training and lora.r == 2 and lora_layers(model)
    plain, lora = model_with(None, tiny_preset)
    assert lora == tiny_preset.lora
    with pytest.raises(ValueError, match="no LoRA layer"):
        lora_layers(plain)
