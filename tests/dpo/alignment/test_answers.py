"""posttrain.dpo.alignment.answers: answers once, and the best of several."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.dpo.alignment import answers
from posttrain.dpo.alignment.answers import (
    ModelAnswers,
    best_of,
    drawn_answers,
    held_out_answers,
    held_out_questions,
)
from posttrain.dpo.alignment.start import model_with
from posttrain.dpo.data.prompts import HELD_OUT_FAMILIES, everyday_prompts
from posttrain.sft.presets import SFTPreset

SETS = [ModelAnswers(["q", "r"], [f"a{k}", f"b{k}"], [True, k > 0]) for k in range(3)]


def test_the_best_is_kept_question_by_question() -> None:
    best = best_of(SETS, [[0.0, 3.0], [2.0, 1.0], [1.0, 3.0]])
    assert best.texts == ["a1", "b0"]  # of equal scores the first
    assert best.finished == [True, False]


def test_what_has_no_best_is_refused() -> None:
    other = ModelAnswers(["q", "s"], ["a", "b"], [True, True])
    with pytest.raises(ValueError, match="answers to the same ones"):
        best_of([*SETS, other], [[0.0, 0.0]] * 4)
    with pytest.raises(ValueError, match="answers to the same ones"):
        best_of([], [])
    for scores in ([[0.0, 0.0]] * 2, [[0.0]] * 3):
        with pytest.raises(ValueError, match="give one for each"):
            best_of(SETS, scores)
    with pytest.raises(ValueError, match="give one of each"):
        ModelAnswers(["q"], ["a"], [])


def test_questions_are_held_out() -> None:
    asked = held_out_questions(300)
    train, test = everyday_prompts()
    assert len(set(asked)) == 300 and not {prompt.text for prompt in train} & set(asked)
    assert sum(prompt.family in HELD_OUT_FAMILIES for prompt in test) == 150


def test_answers_are_drawn_once(
    tiny_preset: SFTPreset, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "EVERYDAY", tiny_preset)
    monkeypatch.setattr(answers, "LONGEST_ANSWER", 6)
    monkeypatch.setattr(answers, "model_with", lambda adapter: model_with(adapter, tiny_preset))
    monkeypatch.setattr(answers, "to_last_sentence", lambda text: text[:-1])
    plain = held_out_answers(None, 4)
    asked = held_out_answers(None, 4, system="Be brief.")
    drawn = drawn_answers(None, 4, 2, seed=0)
    assert len(plain.texts) == len(asked.texts) == 4 and plain.texts != asked.texts
    assert not any(plain.finished)  # a letter was cut from each
    assert len(drawn) == 2 and drawn[0].texts != drawn[1].texts
    monkeypatch.setattr(answers, "sample_answers", None)
    assert held_out_answers(None, 4) == plain and drawn_answers(None, 4, 2, seed=0) == drawn
