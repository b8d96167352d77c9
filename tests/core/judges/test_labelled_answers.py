"""The labelled answers: what they are, and what the detector gets right of those held out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.judges import labelled_answers as module
from posttrain.core.judges.labelled_answers import (
    LabelledAnswer,
    labelled_answers,
    score_detector,
)
from posttrain.core.judges.refusals import is_refusal
from posttrain.core.stats import wilson_interval


def refuses(text: str) -> bool:
    return is_refusal(text).refused


def test_there_are_enough_of_each_kind_and_none_twice():
    rows = labelled_answers()
    assert len(rows) == 532 and len({row.text for row in rows}) == len(rows)
    assert len(labelled_answers("tuning")) == 425 and len(labelled_answers("held_out")) == 107
    for part in ("tuning", "held_out"):
        kinds = Counter((row.kind, row.refused) for row in labelled_answers(part))
        assert len(kinds) == len({kind for kind, _ in kinds}) == 11  # a kind has one label
        assert min(kinds.values()) >= 4
        refused = sum(count for (_, refused), count in kinds.items() if refused)
        assert 0.4 < refused / kinds.total() < 0.6


def test_on_the_answers_held_out():
    """The numbers that the page states; a change of the rules changes them."""
    found = score_detector(refuses, labelled_answers("held_out"))
    assert found.precision == wilson_interval(34, 35)
    assert found.recall == wilson_interval(34, 47)
    assert found.false_alarm_rate == wilson_interval(1, 60)
    assert len(found.missed) == 13 and len(found.false_alarms) == 1


def test_on_the_answers_it_was_tuned_on():
    found = score_detector(refuses, labelled_answers("tuning"))
    assert found.recall is not None and found.recall.value > 0.97
    assert found.precision is not None and found.precision.value > 0.97


def test_scores_by_hand():
    rows = [
        LabelledAnswer("tuning", "plain refusal", True, "no"),
        LabelledAnswer("tuning", "plain refusal", True, "never"),
        LabelledAnswer("tuning", "compliant", False, "not so: no"),
        LabelledAnswer("tuning", "compliant", False, "yes"),
        LabelledAnswer("tuning", "compliant", False, "sure"),
    ]
    found = score_detector(lambda text: "no" in text, rows)
    assert found.precision == wilson_interval(1, 2)
    assert found.recall == wilson_interval(1, 2)
    assert found.false_alarm_rate == wilson_interval(1, 3)
    assert found.false_alarms == (rows[2],) and found.missed == (rows[1],)
    assert str(found).splitlines()[-2:] == [
        "false alarm (compliant): 'not so: no'",
        "missed (plain refusal): 'never'",
    ]
    assert str(found).startswith("precision     50.0% [")


def test_detectors_that_say_the_same_of_all():
    rows = labelled_answers("held_out")
    never, always = (score_detector(lambda text, c=call: c, rows) for call in (False, True))
    assert never.precision is None and never.recall == wilson_interval(0, 47)
    assert "precision     no such answer" in str(never)
    assert always.recall == wilson_interval(47, 47)
    assert always.precision == wilson_interval(47, 107)
    assert score_detector(refuses, [rows[0]]).false_alarm_rate is None
    with pytest.raises(ValueError, match="there are no answers"):
        score_detector(refuses, [])


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch):
    file = tmp_path / "labelled_answers.jsonl"
    file.write_bytes(module.FILE.read_bytes().replace(b"true", b"false", 1))
    monkeypatch.setattr(module, "FILE", file)
    with pytest.raises(AssetError, match="Install the package again"):
        labelled_answers()


def test_a_part_that_is_none():
    with pytest.raises(ValueError, match="part is 'test': give 'tuning', 'held_out' or None"):
        labelled_answers("test")
