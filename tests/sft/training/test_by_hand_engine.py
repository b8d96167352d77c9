"""sft.training.by_hand_engine: one's own examples, trained by the book's own code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.core.errors import ArtifactError, TrainingIncomplete
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.files import WEIGHTS_NAME, save_adapter
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training import by_hand_engine
from posttrain.sft.training.by_hand_engine import run_by_hand
from posttrain.sft.training.packing import PackedBatches
from posttrain.sft.training.run import base_model

EXAMPLES = [
    EncodedChat([1, 40 + i, 50, *range(60 + i, 64 + 2 * i)], [0, 0, 0, *[1] * (4 + i)])
    for i in range(6)
]


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(
        max_steps=4, learning_rate=0.02, bf16=False, eval_steps=2, save_steps=1
    )
    return replace(tiny_preset, engine="by_hand", training=training)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS_NAME)


def start(preset: SFTPreset, folder: Path, seed: int) -> Path:
    model = base_model(preset)
    inject_lora(model, preset.lora, seed)
    save_adapter(model, preset.lora, folder, base_model_name=preset.model)
    return folder


def interrupted(run: Callable[[], Any], monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    draw, drawn = PackedBatches.__next__, []

    def interrupt(self: PackedBatches) -> Any:
        drawn.append(1)
        if len(drawn) == at:
            raise KeyboardInterrupt
        return draw(self)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(PackedBatches, "__next__", interrupt)
        run()


def test_a_run_goes_on_only_as_itself(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments: dict[str, Any] = {"examples": EXAMPLES, "validation": EXAMPLES[:1]}
    interrupted(lambda: run_by_hand(preset, folder=folder, **arguments), monkeypatch, at=4)
    lora = replace(preset.lora, lora_alpha=8)
    others: dict[str, tuple[SFTPreset, dict[str, Any]]] = {
        "lora.lora_alpha": (replace(preset, lora=lora), {}),
        "batch_size": (replace(preset, batch_size=3), {}),
        "validation": (preset, {"validation": EXAMPLES[:2]}),
        "start": (preset, {"adapter": start(preset, tmp_path / "start", seed=9)}),
    }
    for names, (other, changes) in others.items():
        with pytest.raises(ArtifactError, match=rf"another configuration \({names} differ\)"):
            run_by_hand(other, folder=folder, **{**arguments, **changes})
    with pytest.raises(ArtifactError, match=r"these batches \(data differ from what is stored"):
        run_by_hand(preset, folder=folder, **{**arguments, "examples": EXAMPLES[::-1]})
    run = run_by_hand(preset, folder=folder, **arguments)
    whole = run_by_hand(preset, folder=tmp_path / "whole", **arguments)
    assert run.losses == whole.losses and len(run.losses) == 4
    found, expected = weights(run.adapter), weights(whole.adapter)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_another_start_is_another_run(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, other = (start(preset, tmp_path / str(seed), seed) for seed in (1, 2))
    folder = tmp_path / "run"
    interrupted(lambda: run_by_hand(preset, EXAMPLES, folder, adapter=one), monkeypatch, at=3)
    with pytest.raises(ArtifactError, match=r"\(start differ\)"):
        run_by_hand(preset, EXAMPLES, folder, adapter=other)
    assert len(run_by_hand(preset, EXAMPLES, folder, adapter=one).losses) == 4


def test_an_adapter_that_did_not_move_is_never_the_best(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The loss before the first step may be the lowest; its adapter is no adapter."""
    script = iter([1.0, 5.0, 4.0])  # at steps 0, 2, 4
    monkeypatch.setattr(by_hand_engine, "mean_loss", lambda *parts: next(script))
    run = run_by_hand(preset, EXAMPLES, tmp_path, validation=EXAMPLES[:1])
    assert run.validation == {0: 1.0, 2: 5.0, 4: 4.0}
    tensors = weights(run.adapter)
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)


def test_a_run_without_an_effect_is_no_success(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(TrainingIncomplete, match=r"after 4 steps every B .* is still zero"):
        run_by_hand(preset, EXAMPLES, tmp_path, validation=EXAMPLES[:1])
    assert not (tmp_path / "adapter").exists()


def test_an_adapter_of_another_shape_is_no_start(preset: SFTPreset, tmp_path: Path) -> None:
    folder = start(preset, tmp_path / "start", seed=0)
    other = replace(preset, lora=LoRAConfig(r=3, lora_alpha=4))
    with pytest.raises(ValueError, match=r"r is 2 in the adapter of .* and 3 in the settings"):
        run_by_hand(other, EXAMPLES, tmp_path / "run", adapter=folder)
