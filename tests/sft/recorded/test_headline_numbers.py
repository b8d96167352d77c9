"""posttrain.sft.recorded.headline_numbers: two runs of four questions, counted by hand."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.sft.recorded.headline_numbers import bits, summarize


def outcome(seed: int, base: str, tuned: str) -> dict[str, Any]:
    return {
        "seed": seed, "ids": list("abcd"), "kinds": ["x", "x", "y", "y"], "base_right": base,
        "tuned_right": tuned, "base_format": "0000", "tuned_format": "1110",
    }  # fmt: skip


def test_runs_are_compared_question_by_question_and_then_averaged():
    found = summarize([outcome(0, "1000", "0111"), outcome(1, "1000", "1111")])
    first, second = found["runs"]
    assert (first["base"], first["tuned"], first["format"]) == (0.25, 0.75, 0.75)
    assert (first["only_base"], first["only_tuned"], first["n"]) == (1, 3, 4)
    assert first["p_value"] == pytest.approx(2 * (1 + 4) / 2**4)
    assert second["p_value"] == pytest.approx(2 / 2**3)
    assert found["gain"][0] == pytest.approx((0.5 + 0.75) / 2)
    assert found["gain"][1] < 0.5 < 0.75 < found["gain"][2]  # two seeds: a wide interval
    assert found["format"] == pytest.approx([0.75] * 3)
    assert found["by_kind"] == {"x": [0.5, 0.75], "y": [0.0, 1.0]}


def test_digits():
    assert bits("0110") == [0, 1, 1, 0]
