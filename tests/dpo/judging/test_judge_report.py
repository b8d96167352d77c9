"""Right, wrong and tied pairs counted, way by way, and whether length decides."""

from __future__ import annotations

import math
from typing import Any

import pytest

from posttrain.core.stats import wilson_interval
from posttrain.dpo.judging.judge_pairs import WAYS, JudgePair, judge_pairs
from posttrain.dpo.judging.judge_report import RightCount, measure_judge

PAIRS = [
    JudgePair("a", "test", "A?", "one two three", "one", ("late",)),
    JudgePair("b", "test", "B?", "one", "one two", ("wrong",)),
    JudgePair("c", "test", "C?", "one two", "two one", ("wrong", "vague")),
    JudgePair("d", "test", "D?", "one two", "three", ("repeats", "off topic")),
]


def by_length(questions: Any, answers: Any) -> list[float]:
    return [float(len(answer.split())) for answer in answers]


def test_counts_by_hand():
    report = measure_judge(by_length, PAIRS)
    assert report.winners == ("a", "b", "tie", "a")
    assert report.all == RightCount(2, 1, 4) and report.all.accuracy == 2.5 / 4
    assert report.all.decided == wilson_interval(2, 3)
    assert tuple(report.by_way) == WAYS
    assert report.by_way["wrong"] == RightCount(0, 1, 2)
    assert report.by_way["vague"] == RightCount(0, 1, 1)
    assert report.by_way["vague"].decided is None and report.by_way["vague"].accuracy == 0.5
    assert report.by_way["late"] == report.by_way["repeats"] == RightCount(1, 0, 1)
    assert math.isnan(report.by_way["filler"].accuracy)
    assert report.in_form == RightCount(1, 0, 2)  # b and d
    assert report.length_correlation == pytest.approx(1)
    assert str(report).splitlines()[0] == "all pairs      62.5% of 4, 1 tied"
    assert str(report).splitlines()[-1] == "length         correlation +1.00"
    assert "filler         no pair" in str(report)


def test_a_flipped_sign_is_seen():
    report = measure_judge(lambda q, answers: [-x for x in by_length(q, answers)], PAIRS)
    assert report.winners == ("b", "a", "tie", "b")
    assert report.length_correlation == pytest.approx(-1)


def test_the_band_of_ties():
    winners = [measure_judge(by_length, PAIRS, band).winners for band in (0, 1, 2)]
    assert winners[1] == ("a", "tie", "tie", "tie") and winners[2] == ("tie",) * 4
    with pytest.raises(ValueError, match="tie_band is -1"):
        measure_judge(by_length, PAIRS, -1)


def test_each_answer_is_scored_beside_its_question():
    def right(questions: Any, answers: Any) -> list[float]:
        known = {(pair.question, pair.better) for pair in PAIRS}
        return [float(row in known) for row in zip(questions, answers, strict=True)]

    assert measure_judge(right, PAIRS).all.accuracy == 1


def test_the_longer_answer_is_no_better_in_the_pairs_of_the_book():
    report = measure_judge(by_length, judge_pairs())
    assert report.all.decided is not None
    assert report.all.decided.low < 0.5 < report.all.decided.high


def test_a_judge_that_never_differs_has_no_correlation():
    report = measure_judge(lambda questions, answers: [0.0] * len(answers), PAIRS)
    assert report.length_correlation is None and report.all.accuracy == 0.5
    assert "correlation" not in str(report)


@pytest.mark.parametrize(
    ("scores", "pairs", "message"),
    [
        (by_length, [], "there are no pairs"),
        (lambda q, a: [0.0], PAIRS, r"the scores of 8 answers have the shape \(1,\)"),
        (lambda q, a: [math.nan] * 8, PAIRS, "one of them is not finite"),
    ],
)
def test_bad_input(scores: Any, pairs: Any, message: str):
    with pytest.raises(ValueError, match=message):
        measure_judge(scores, pairs)
