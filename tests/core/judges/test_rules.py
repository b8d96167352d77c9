"""A judge by rule, and correctness beside it."""

from __future__ import annotations

import math
import random

import pytest

from posttrain.core.judges.agreement import agreement
from posttrain.core.judges.rules import RuleJudge, correctness, winners_by_truth
from posttrain.core.judges.verdicts import judge_pairs
from posttrain.core.judges.win_rates import win_rate
from posttrain.core.stats import wilson_interval


def brevity(question: str, answer: str) -> float:
    return -float(len(answer))


def test_the_higher_score_wins():
    judge = RuleJudge(brevity)
    assert judge.judge("", "a", "bbb").winner == "first"
    assert judge.judge("", "aaa", "b").winner == "second"
    assert judge.judge("", "aa", "bb").winner == "tie"
    assert judge.judge("", "a", "bbb").reason == "-1 against -3"


def test_the_question_is_scored_too():
    judge = RuleJudge(lambda question, answer: float(question in answer))
    assert judge.judge("x", "has x", "has y").winner == "first"
    assert judge.judge("y", "has x", "has y").winner == "second"


def test_the_band_makes_ties_up_to_its_edge():
    judge = RuleJudge(brevity, tie_band=2)
    assert [judge.judge("", "a", "b" * n).winner for n in (1, 2, 3, 4)] == [
        *["tie"] * 3,
        "first",
    ]


def test_a_rule_is_the_same_in_both_orders():
    draw = random.Random(0)
    texts = [["x" * draw.randint(0, 9) for _ in range(60)] for _ in range(2)]
    for band in (0.0, 1.5):
        outcomes = judge_pairs(RuleJudge(brevity, band), ["?"] * 60, *texts)
        assert all(outcome.is_consistent for outcome in outcomes)
        assert win_rate(outcomes).first_twice.value == 0


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_score_that_is_no_number_is_refused(score: float):
    with pytest.raises(ValueError, match=f"the score of 'b' is {score}: let the rule give"):
        RuleJudge(lambda question, answer: score if answer == "b" else 0).judge("", "a", "b")


@pytest.mark.parametrize("band", [-1, math.nan, math.inf])
def test_a_band_that_is_none(band: float):
    with pytest.raises(ValueError, match="tie_band is"):
        RuleJudge(brevity, band)


def test_correctness_stands_beside_style():
    """The judge prefers the short answers, and the truth shows that they are the wrong ones."""
    questions, good, bad = ["2 + 2?"] * 4, ["It is 4"] * 4, ["5", "5", "4", "5"]

    def truth(question: str, answer: str) -> bool:
        return "4" in answer

    right_a, right_b = (correctness(truth, questions, said) for said in (bad, good))
    assert right_a.share == wilson_interval(1, 4) and right_a.right == (
        False,
        False,
        True,
        False,
    )
    assert str(right_b).startswith("100.0% right [") and str(right_b).endswith("(4 right)")
    outcomes = judge_pairs(RuleJudge(brevity), questions, bad, good)
    assert win_rate(outcomes).value == 1
    by_truth = winners_by_truth(right_a.right, right_b.right)
    assert by_truth == ["b", "b", "tie", "b"]
    assert agreement(outcomes, by_truth).share.value == 0


@pytest.mark.parametrize("found", [0.3, None, "yes", 1])
def test_a_truth_that_is_no_truth(found: object):
    with pytest.raises(ValueError, match="give True or False for each"):
        correctness(lambda question, answer: found, ["q"], ["a"])


def test_lengths_must_fit():
    with pytest.raises(ValueError, match="1 questions and 2 answers"):
        correctness(lambda q, a: True, ["q"], ["a", "b"])
    with pytest.raises(ValueError, match="n is 0"):
        correctness(lambda q, a: True, [], [])
    with pytest.raises(ValueError, match="2 and 1 answers are no pairs"):
        winners_by_truth([True, False], [True])
