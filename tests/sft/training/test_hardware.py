"""posttrain.sft.training.hardware: what machines have, and where each number comes from."""

import torch

from posttrain.sft.presets import PRESETS
from posttrain.sft.training import hardware as module
from posttrain.sft.training.hardware import (
    HARDWARE,
    PRESET_HARDWARE,
    this_machine,
    time_products,
)


def test_every_gpu_preset_has_its_card() -> None:
    gpus = {name for name, preset in PRESETS.items() if preset.device == "cuda"}
    assert set(PRESET_HARDWARE) == gpus and set(PRESET_HARDWARE.values()) <= set(HARDWARE)
    for card in HARDWARE.values():
        assert card.device == "cuda" and not card.measured and card.price
        assert 10e9 < card.usable < 100e9 and 0 < card.utilization < 1 and card.process > 0
    assert not HARDWARE["t4"].bf16 and HARDWARE["a100"].bf16


def test_this_machine_is_timed(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = []
    monkeypatch.setattr(module, "time_products", lambda *given: asked.append(given) or 1e11)
    machine = this_machine("cuda", torch.float32)
    assert machine.device == "cpu" and machine.measured and machine.peak == 1e11
    assert asked == [(torch.float32, "cpu")] and machine.price is None and machine.usable > 1e9


def test_products_take_time() -> None:
    speed = time_products(torch.float32, "cpu", 0.01)
    assert 1e8 < speed < 1e15
