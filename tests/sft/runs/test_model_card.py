"""posttrain.sft.runs.model_card: facts for programs, text for people."""

from pathlib import Path

import pytest
import yaml

from posttrain.sft.presets import CPU, T4
from posttrain.sft.runs.before_after import Measured, compare
from posttrain.sft.runs.model_card import CARD_NAME, write_card

DATA = {"source": "rows.jsonl", "format": "Alpaca", "sha256": "f00", "train_rows": 30,
        "held_out_rows": 3}  # fmt: skip
MACHINE = {"cpu": "a CPU", "gpu": None, "versions": {"torch": "2.13.0"}}


def head(card: str) -> dict[str, object]:
    found: dict[str, object] = yaml.safe_load(card.split("---")[1])
    return found


@pytest.mark.parametrize(
    "base", ["Qwen/Qwen2.5-1.5B-Instruct", "smollm2-135m-instruct", "/a/b"]
)
def test_a_card(base: str, tmp_path: Path) -> None:
    measured = compare(
        Measured([2.0, 3.0], ["a", "b"], ["a", "c"]),
        Measured([1.0, 1.0], ["a", "c"], ["a", "c"]),
    )
    write_card(tmp_path, T4, base=base, data=DATA, measured=measured, machine=MACHINE)
    card = (tmp_path / CARD_NAME).read_text()
    assert head(card).get("base_model") == (base if base.startswith("Qwen") else None)
    assert head(card)["library_name"] == "peft"
    expected = (
        "SHA-256 f00", "30 to train on, 3 held out", "4 bits (NF4)", "r = 16", "no GPU",
        "warm-up of 30 steps", "2.13.0", "loss per token", "not the seed",
    )  # fmt: skip
    for part in expected:
        assert part in card, part


def test_nothing_held_out_is_said(tmp_path: Path) -> None:
    write_card(tmp_path, CPU, base="x", data=DATA, measured=None, machine={})
    assert (
        "Nothing was held out, so nothing was measured." in (tmp_path / CARD_NAME).read_text()
    )
