"""The judge of words: it counts, it learns, and it sees no question."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.dpo.judging.judge_pairs import JudgePair, judge_pairs
from posttrain.dpo.judging.judge_report import measure_judge
from posttrain.dpo.judging.word_judge import train_word_judge

PAIRS = [
    JudgePair(
        f"t{i}", "train", f"Is it {i}?", f"You can, {'so ' * (i % 3)}go.",
        f"People {'so ' * (i % 2)}say it.", ("impersonal",),
    )
    for i in range(20)
]  # fmt: skip


def test_it_counts_words_and_signs():
    judge = train_word_judge(PAIRS)
    assert judge.vocabulary == (
        ",", ".", "can", "go", "it", "people", "say", "so", "you"
    )  # fmt: skip
    once, twice, other = judge.scores(["", "", ""], ["you", "You you", "unknown"])
    assert twice - once == pytest.approx(once - other) and once > other
    people, you = judge.scores(["", ""], ["people say it", "you can, go"])
    assert you > people
    assert train_word_judge(PAIRS, least=23).vocabulary == (".", "so")


def test_a_flipped_sign_is_seen():
    pairs = [replace(one, better=one.worse, worse=one.better) for one in PAIRS]
    people, you = train_word_judge(pairs).scores(["", ""], ["people say it", "you can, go"])
    assert people > you


def test_the_order_of_the_pairs_plays_no_part():
    a, b = train_word_judge(PAIRS), train_word_judge(PAIRS[::-1])
    assert a.vocabulary == b.vocabulary
    assert a.head.weights.tolist() == pytest.approx(b.head.weights.tolist(), abs=1e-6)


def test_on_the_pairs_of_the_book():
    """A weak judge is what it is here for: a strong one would say that words decide."""
    judge = train_word_judge(judge_pairs("train"))
    assert 0.6 < judge.head.chosen.accuracy < 0.85
    assert 0.6 < measure_judge(judge.scores, judge_pairs("test")).all.accuracy < 0.9


def test_bad_input():
    with pytest.raises(ValueError, match="there are no pairs"):
        train_word_judge([])
    with pytest.raises(ValueError, match="no word stands in 99 answers: lower least"):
        train_word_judge(PAIRS, least=99)
    with pytest.raises(ValueError, match="least is 0: give a whole number from 1 up"):
        train_word_judge(PAIRS, least=0)
    with pytest.raises(ValueError, match="there are 1 questions and 2 answers"):
        train_word_judge(PAIRS).scores(["a"], ["b", "c"])
