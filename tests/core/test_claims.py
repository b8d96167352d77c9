"""posttrain.core.claims: what holds, what is stored, what a cell says, what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.core.claims import BrokenClaim, Claims, broken_text, claim_id
from posttrain.core.goals import collect_goals
from posttrain.core.goals_table import result_text
from posttrain.core.stats import Estimate

CHAPTER = "sft/lora"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTTRAIN_GOALS", str(tmp_path / "goals"))
    return tmp_path / "goals"


def test_a_claim_that_holds_is_stored_and_says_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Claims(CHAPTER)("memory-halves", "ratio of bytes", np.float32(0.4), "<", 0.5)
    assert capsys.readouterr().out == ""
    (row,) = collect_goals()
    assert row["id"] == claim_id(CHAPTER, "memory-halves") == "sft.lora.memory-halves"
    assert (row["kind"], row["stage"], row["chapter"]) == ("claim", "sft", CHAPTER)
    assert row["passed"] and row["threshold"] == "< 0.5" and result_text(row) == "✓ holds"


def test_a_claim_that_does_not_hold_is_said_and_stops_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    claim = Claims(CHAPTER)
    claim("memory-halves", "ratio of bytes", 0.75, "<", 0.5)
    claim("same-text", "texts are equal", True)
    said = capsys.readouterr().out
    assert said.startswith("✗ sft.lora.memory-halves. Not on this machine: ratio of bytes:")
    assert "measured 0.75; the text needs < 0.5." in said and said.count("✗") == 1
    broken, kept = collect_goals()
    assert not broken["passed"] and kept["passed"] and "✗ does not hold" == result_text(broken)
    assert BrokenClaim(broken)._repr_markdown_().endswith(broken_text(broken))


@pytest.mark.parametrize(
    ("low", "high", "op", "holds"),
    [
        (0.1, 0.9, ">", True),
        (-0.1, 1.1, ">", False),
        (0.0, 1.0, ">", False),
        (0.0, 1.0, ">=", True),
        (-0.9, -0.1, "<", True),
        (-1.1, 0.1, "<", False),
    ],
)
def test_of_an_estimate_the_whole_interval_counts(
    low: float, high: float, op: str, holds: bool
) -> None:
    Claims(CHAPTER)("gain", "gain", Estimate((low + high) / 2, low, high, 5), op, 0)
    (row,) = collect_goals()
    assert row["passed"] is holds
    assert (row["ci"], row["n"], row["value"]) == ([low, high], 5, (low + high) / 2)


def test_a_cell_that_runs_again_replaces_its_claim_in_place() -> None:
    claim = Claims(CHAPTER)
    for value in (1, 2):
        claim("first", "first", value, "<", 9)
        claim("second", "second", value, "<", 9)
    assert [(row["goal"], row["value"]) for row in collect_goals()] == [
        ("first", 2),
        ("second", 2),
    ]


def test_pages_outside_of_stages_may_claim_too() -> None:
    Claims("index")("one", "one", True)
    assert [row["id"] for row in collect_goals()] == ["index.one"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Leak", "loss", 1, "<", 2), "the sentence id 'Leak' is malformed"),
        (("a_b", "loss", 1, "<", 2), "write lower-case letters, digits and dashes"),
        (("a", "loss", 1, "!=", 2), "unknown comparison"),
        (("a", " ", 1, "<", 2), "say what was measured"),
        (("a", "loss", Estimate(1, 0, 2, 3), "==", 1), "an interval cannot equal a number"),
    ],
)
def test_malformed_claims(arguments: tuple[Any, ...], says: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=says):
        Claims(CHAPTER)(*arguments)
    assert not folder.exists()


def test_a_malformed_chapter_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="the chapter 'SFT/lora' is malformed"):
        Claims("SFT/lora")


def test_not_a_number_never_holds(capsys: pytest.CaptureFixture[str]) -> None:
    Claims(CHAPTER)("loss", "loss", float("nan"), "<", 2)
    assert "measured not a number" in capsys.readouterr().out
    assert not collect_goals()[0]["passed"]
