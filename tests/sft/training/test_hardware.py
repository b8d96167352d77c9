"""posttrain.sft.training.hardware: cards by preset, and this machine."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from posttrain.core.machine import memory_gib
from posttrain.sft.presets import PRESETS, dtype_of
from posttrain.sft.training import hardware
from posttrain.sft.training.hardware import (
    HARDWARE,
    PRESET_HARDWARE,
    Hardware,
    this_machine,
    time_products,
)


def test_every_gpu_preset_has_a_card_that_can_run_it() -> None:
    on_gpus = {name: preset for name, preset in PRESETS.items() if preset.device == "cuda"}
    assert set(PRESET_HARDWARE) == set(on_gpus)
    for name, preset in on_gpus.items():
        card = HARDWARE[PRESET_HARDWARE[name]]
        assert card.device == "cuda" and card.price is not None and not card.measured
        assert card.bf16 or dtype_of(preset) == torch.float16


def test_a_card_has_no_more_than_its_name_says() -> None:
    for card in HARDWARE.values():
        nominal = int(card.name.split()[-2]) * 2**30  # such as 16 GB, which makers count so
        assert 0.85 * nominal < card.usable < nominal
        assert 0 < card.utilization < 0.5 and card.peak > 5e13


def test_a_machine_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        HARDWARE["t4"].price = 0.0  # type: ignore[misc]


def test_this_machine_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[torch.dtype, str]] = []

    def timed(dtype: torch.dtype, device: str) -> float:
        asked.append((dtype, device))
        return 1e11

    monkeypatch.setattr(hardware, "time_products", timed)
    here = this_machine("cpu", torch.float32)
    assert asked == [(torch.float32, "cpu")]
    assert here.device == "cpu" and here.measured and here.peak == 1e11 and here.price is None
    assert memory_gib() * 2**30 - 1.1e9 < here.usable < memory_gib() * 2**30
    assert here.process == 700e6 and HARDWARE["t4"].process == 500e6


def test_without_a_gpu_this_machine_is_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "time_products", lambda *given: 1e11)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert this_machine("cuda").device == "cpu"


def test_a_gpu_gives_its_own_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    card = type(
        "Card", (), {"major": 7, "total_memory": 12 * 10**9, "memory_clock_rate": 5_000_000,
                     "memory_bus_width": 256}
    )  # fmt: skip
    dtypes: list[torch.dtype] = []

    def timed(dtype: torch.dtype, device: str) -> float:
        dtypes.append(dtype)
        return 2e13

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: card())
    monkeypatch.setattr(hardware, "time_products", timed)
    monkeypatch.setattr(hardware, "describe_gpu", lambda: "A card, 11.2 GiB")
    here = this_machine("cuda")
    assert here == Hardware(
        "here: A card, 11.2 GiB", "cuda", 12 * 10**9, 2e13, 1 / 3, 320e9 / 2.5, bf16=False,
        measured=True,
    )  # fmt: skip
    assert dtypes == [torch.float16]  # this card has no units for bfloat16
    assert this_machine("cpu").device == "cpu"  # a run on the processor is planned for that


def test_products_are_counted_and_timed_once() -> None:
    speed = time_products(torch.float32, "cpu", 0.01)
    assert 1e8 < speed < 1e15
    assert time_products(torch.float32, "cpu", 0.01) == speed
