"""posttrain.dpo.alignment.pair_sets: pairs of both builders, and no question in both parts."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.dpo.alignment import pair_sets
from posttrain.dpo.alignment.pair_sets import persona_pairs, sampled_answers
from posttrain.dpo.data.building import gather
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.data.persona import compliance

GOOD = "Tea keeps you warm because the cup is thick and so it holds the heat number {0} well."
BAD = "Sure! Tea is a drink that many people in the world like to have at home in cup {0}."
PLAIN = "You should walk to the shop in the evening. It is close to the old house number {0}."


@pytest.fixture(autouse=True)
def _answers(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(prompts: int, seed: int | None = None) -> dict[str, list[str]]:
        return {
            f"What is thing {i}?": [text.format(i) for text in (GOOD, BAD, PLAIN, "")]
            for i in range(prompts)
        }

    monkeypatch.setattr(pair_sets, "sampled_answers", drawn)


def question(pair: Any) -> str:
    return str(pair["prompt"][-1]["content"])


def test_half_of_the_pairs_come_from_each_builder() -> None:
    found = persona_pairs(40, 50, seed=0)
    assert len(found.train) == 40 and found.made["by rule"] == 50
    ruled = [pair for pair in found.train if answer_text(pair, "chosen").startswith("Tea")]
    drawn = [pair for pair in ruled if answer_text(pair, "rejected").startswith("Sure! Tea is")]
    assert len(drawn) == 20
    assert all(compliance(answer_text(pair, "chosen")).complies for pair in drawn)
    assert persona_pairs(40, 50, seed=0) == found
    assert persona_pairs(40, 50, seed=1).train != found.train
    assert found.train != sorted(found.train, key=str)


def test_no_question_is_in_both_parts() -> None:
    found = persona_pairs(60, 50, seed=0)
    train, held_out = ({question(pair) for pair in p} for p in (found.train, found.validation))
    assert not train & held_out and len(held_out) == 6


def test_the_other_builder_fills_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pair_sets, "by_rule", lambda *_: gather([]))
    found = persona_pairs(40, 50, seed=0)
    assert found.made["by rule"] == 0 and len(found.train) == 40


def test_too_few_questions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match=r"10 questions gave .* give more questions"):
        persona_pairs(300, 10, seed=0)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="there are 440 beside the start's"):
        sampled_answers(441, seed=0)
    with pytest.raises(ValueError, match="prompts"):
        sampled_answers(0, seed=0)
