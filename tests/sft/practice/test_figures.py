"""posttrain.sft.practice.figures: what they show, in words."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from posttrain.sft.practice.figures import forgetting_figure, row_counts_figure
from posttrain.sft.practice.forgetting import REMEDIES


def test_rows_and_what_they_bring() -> None:
    triple = {"50": [0.1, 0.05, 0.15], "100": [0.2, 0.1, 0.3]}
    record: Any = SimpleNamespace(summary={"accuracy": triple, "val_loss": triple})
    drawn = row_counts_figure(record, 0.25)
    assert "10% at 50, 20% at 100" in drawn.alt
    for words in ("training rows", "three examples", "held-out loss", "100"):
        assert words in drawn.svg, words


def test_remedies_stand_in_their_order() -> None:
    found = {"chats": [0.4, 0.3, 0.5], "plays": [0.2, 0.1, 0.3], "accuracy": [0.4, 0.38, 0.42]}
    record: Any = SimpleNamespace(summary={"remedies": dict.fromkeys(REMEDIES, found)})
    drawn = forgetting_figure(record)
    assert drawn.alt.index("no remedy") < drawn.alt.index("full training")
    assert "+0.40, +0.20 nats, 40% right" in drawn.alt
    for words in (*REMEDIES, "nats per token", "share of right answers"):
        assert words in drawn.svg, words
