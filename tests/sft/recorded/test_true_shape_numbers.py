"""posttrain.sft.recorded.true_shape_numbers: errors that are known."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.sft.recorded.true_shape_numbers import setting_of, summarize

NAMES = ("weights", "mapped", "adapter", "gradients", "optimizer", "activations", "logits",
         "workspace", "loading", "process")  # fmt: skip


def row(
    growth: int, engine: str = "trl", malloc: str = "returns", T: int = 8
) -> dict[str, Any]:
    sizes = dict.fromkeys(NAMES, 0) | {"weights": 600, "activations": 300, "logits": 100}
    return {
        "shape": "Llama-3.2-1B", "engine": engine, "quantization": None, "batch_size": 1,
        "T": T, "accumulation": 1, "malloc": malloc, "predicted": sizes, "growth": growth,
        "loaded": 70 + T, "seconds_step": 2.0, "seconds_step_predicted": float(T),
    }  # fmt: skip


def test_errors_are_relative_to_what_was_measured() -> None:
    found = summarize([row(800), row(1250, "by_hand"), row(2000, malloc="default")])
    assert [run["error"] for run in found["runs"]] == [0.25, pytest.approx(-0.2), -0.5]
    assert [run["predicted"] for run in found["runs"]] == [1000] * 3
    assert found["worst"] == 0.25 and found["n"] == 2  # malloc's own limits stand apart
    assert found["malloc_keeps"] == {"Llama-3.2-1B trl None 1 8 1": 1.5}


def test_an_underestimate_counts_as_much() -> None:
    assert summarize([row(1100), row(2000, T=9)])["worst"] == 0.5


def test_processes_and_times() -> None:
    found = summarize([row(1000), row(1000, T=12), row(1000, "unsloth", T=2)])
    assert found["loaded"] == {"trl": 82, "unsloth": 72}
    assert found["seconds"] == [1.0, 6.0]


def test_a_setting_is_the_same_however_malloc_behaves() -> None:
    one, other = setting_of(row(1)), setting_of(row(2, malloc="default"))
    assert one == other == ("Llama-3.2-1B", "trl", None, 1, 8, 1)
    assert setting_of(row(1, T=9)) != one
