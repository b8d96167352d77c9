"""Local models as judges: what they write, and the odds of their first token in both forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from posttrain.core.judges.errors import NoVerdictError
from posttrain.core.judges.local import FirstTokenJudge, WritingJudge, option_tokens
from posttrain.core.judges.prompts import LETTER_INSTRUCTIONS
from posttrain.core.judges.verdicts import both_orders

VOCABULARY = {"A": 1, "B": 2, " A": 3, " B": 4, "x": 5}


def encode(text: str) -> list[int]:
    return [VOCABULARY[text]]


def logits(**values: float) -> np.ndarray:
    names = {"A": 1, "B": 2, "_A": 3, "_B": 4, "x": 5}
    found = np.full(8, -30.0)
    for name, value in values.items():
        found[names[name]] = value
    return found


def judge(given, **settings) -> FirstTokenJudge:
    return FirstTokenJudge(lambda messages: given, encode, **settings)


# --- writing ---


def test_what_the_model_writes_is_read():
    seen = []
    found = WritingJudge(lambda messages: seen.append(messages) or "B is right. [[B]]")
    assert found.judge("Why?", "x", "y").winner == "second"
    assert "<answer_a>\nx\n</answer_a>" in seen[0][1]["content"]
    WritingJudge(lambda messages: seen.append(messages) or "[[A]]", "Short.").judge("", "", "")
    assert seen[1][0]["content"] == "Short."
    with pytest.raises(NoVerdictError):
        WritingJudge(lambda messages: "Yes").judge("Why?", "x", "y")


# --- the first token ---


@pytest.mark.parametrize(
    ("given", "winner"),
    [
        (logits(A=2, B=1), "first"),
        (logits(A=1, B=2), "second"),
        (logits(_A=2, _B=1), "first"),
        (logits(_A=1, _B=2), "second"),
        (logits(A=1, B=2, _A=9, _B=5), "first"),  # the model writes the form with the blank
        (logits(A=9, B=5, _A=1, _B=2), "first"),  # and here the one without
        (logits(x=50, _A=1, _B=2), "second"),
        (logits(A=1, B=1, _A=3, _B=3), "tie"),
    ],
)
def test_both_forms_of_a_letter_count(given: np.ndarray, winner: str):
    assert judge(given).judge("Why?", "x", "y").winner == winner


def test_log_odds_by_hand():
    a, b = math.log(math.exp(1) + math.exp(3)), math.log(math.exp(2) + math.exp(0.5))
    found = judge(logits(A=1, _A=3, B=2, _B=0.5)).log_odds("Why?", "x", "y")
    assert found == pytest.approx(a - b)
    shifted = judge(logits(A=1, _A=3, B=2, _B=0.5) + 1000).log_odds("Why?", "x", "y")
    assert shifted == pytest.approx(a - b)


def test_the_band_makes_ties():
    assert judge(logits(A=1.4, B=1), tie_band=0.5).judge("", "", "").winner == "tie"
    assert judge(logits(A=1.6, B=1), tie_band=0.5).judge("", "", "").winner == "first"
    with pytest.raises(ValueError, match="tie_band is -1"):
        judge(logits(), tie_band=-1)


def test_a_judge_that_always_prefers_a_decides_nothing():
    found = both_orders(judge(logits(A=3, B=1)), "Why?", "x", "y")
    assert found.winner == "tie" and found.place == "first"


def test_tensors_of_any_format_and_the_instructions():
    seen = []

    def first_token_logits(messages):
        seen.append(messages)
        given = torch.tensor(logits(A=1, B=2), dtype=torch.bfloat16)
        return given.requires_grad_()

    found = FirstTokenJudge(first_token_logits, encode)
    assert found.judge("Why?", "x", "y").winner == "second"
    assert seen[0][0]["content"] == LETTER_INSTRUCTIONS


@pytest.mark.parametrize(
    ("vocabulary", "tokens"),
    [
        (VOCABULARY, ([3, 1], [4, 2])),
        ({"A": [1], "B": [2], " A": [9, 1], " B": [9, 2]}, ([1], [2])),
        ({"A": [1], "B": [2], " A": [1], " B": [2]}, ([1], [2])),  # a blank is put before all
        ({"A": [7, 1], "B": [7, 2], " A": [3], " B": [4]}, ([3], [4])),
        ({"A": [1], "B": [2], " A": [3], " B": [9, 4]}, ([1], [2])),  # in the same forms
    ],
)
def test_the_tokens_of_the_letters(vocabulary: dict, tokens: tuple):
    def lookup(text: str) -> list[int]:
        found = vocabulary[text]
        return found if isinstance(found, list) else [found]

    assert option_tokens(lookup) == tokens


@pytest.mark.parametrize(
    ("vocabulary", "problem"),
    [
        (
            {"A": [0, 1], "B": [0, 2], " A": [0, 3], " B": [0, 4]},
            "let encode leave out special",
        ),
        ({"A": [5], "B": [5], " A": [5], " B": [5]}, "which overlap"),
    ],
)
def test_vocabularies_without_letters(vocabulary: dict, problem: str):
    with pytest.raises(ValueError, match=problem):
        FirstTokenJudge(lambda messages: logits(), vocabulary.__getitem__)


def test_a_real_vocabulary_has_both_forms(tokenizer):
    def real(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    a, b = option_tokens(real)
    assert [tokenizer.decode(ids) for ids in (a[0], a[1], b[0], b[1])] == [" A", "A", " B", "B"]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.zeros((1, 8)), r"the logits have the shape \(1, 8\), and token 4 is needed"),
        (np.zeros(4), r"the logits have the shape \(4,\)"),
        (logits(A=math.nan), "look for NaN in the model"),
    ],
)
def test_logits_that_cannot_be_judged(given: np.ndarray, problem: str):
    with pytest.raises(ValueError, match=problem):
        judge(given).judge("Why?", "x", "y")
