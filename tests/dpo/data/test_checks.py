"""What length gives away, repeats and leaks, agreement of labels, and noise of a known size."""

import math
import random
from typing import Any

import pytest

from posttrain.dpo.data.checks import (
    agreement,
    answer_lengths,
    count_words,
    find_prompt_leaks,
    find_repeats,
    flip_labels,
    pair_lengths,
    prompts_of,
)
from posttrain.dpo.data.pair_formats import PairRow, answer_text, make_pair


def pairs(*rows: tuple[str, str, str]) -> list[PairRow]:
    return [make_pair(*row) for row in rows]


# --- length ---


def test_lengths_are_compared():
    found = pair_lengths([5, 7, 3, 4], [3, 7, 4, 1], unit="words")
    assert found.difference.value == pytest.approx((2 + 0 - 1 + 3) / 4)
    assert found.difference.low <= 1 <= found.difference.high and found.difference.n == 4
    assert found.longer.value == 0.5 and found.longer.n == 4 and found.same == 1
    assert found.longer_wins is not None
    assert found.longer_wins.value == pytest.approx(2 / 3) and found.longer_wins.n == 3
    assert found.warning is None and " words; chosen is longer in 0.5 [" in repr(found)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ([9] * 30, [3] * 30, "the longer answer is the chosen one in 100% of 30 pairs"),
        ([3] * 30, [9] * 30, "the shorter answer is the chosen one in 100% of 30 pairs"),
        ([9] * 24 + [1] * 6, [3] * 30, "the longer answer is the chosen one in 80% of 30"),
        ([9] * 15 + [1] * 15, [3] * 30, None),
        ([9] * 3, [3] * 3, None),  # three pairs show nothing
        ([3] * 30, [3] * 30, None),
    ],
)
def test_a_label_that_length_predicts_is_said(chosen: Any, rejected: Any, expected: Any):
    found = pair_lengths(chosen, rejected)
    if expected is None:
        assert found.warning is None
    else:
        assert found.warning is not None and expected in found.warning
        assert found.warning in repr(found)
    assert (found.longer_wins is None) == (chosen == rejected)


def test_lengths_of_answers_and_bad_lengths():
    made = pairs(("a", "one two  three", "x"), ("b", "y", "four\nfive"))
    assert answer_lengths(made) == ([3, 1], [1, 2])
    assert answer_lengths(made, len) == ([14, 1], [1, 9])
    assert count_words(" a\n b ") == 2
    for chosen, rejected in (([1], [1]), ([1, 2], [1]), ([1, -1], [1, 2]), ([], [])):
        with pytest.raises(ValueError, match="for at least two pairs, each 0 or more"):
            pair_lengths(chosen, rejected)


# --- repeats ---


def test_repeats_and_contradictions_are_found():
    found = find_repeats(
        pairs(
            ("Why?", "So.", "No."),
            ("Why?", "So.", "Maybe."),
            ("why", "so!", "no"),  # the first once more
            ("Why?", "No.", "So."),  # and its opposite
            ("Who?", "So.", "No."),
            ("3 - 5?", "So.", "No."),
            ("3 + 5?", "So.", "No."),
        )
    )
    assert found.repeated == [(0, 2)] and found.contradicted == [(0, 3)]
    assert found.same_prompt == 3
    clean = find_repeats(pairs(("a", "b", "c"), ("d", "b", "c")))
    assert not clean.repeated and not clean.contradicted and clean.same_prompt == 0


def test_prompts_that_two_splits_share_are_found():
    train = pairs(("What is tea?", "a", "b"), ("Why 3 + 5?", "a", "b"))
    test = pairs(("Why 3 - 5?", "a", "b"), ("what is TEA", "x", "y"))
    found = find_prompt_leaks({"train": train, "test": test})
    assert [(leak.index, leak.other_index) for leak in found] == [(0, 1)]
    assert not find_prompt_leaks({"train": train, "test": test[:1]})
    assert prompts_of(train[:1], test[1:]) == [["What is tea?"], ["what is TEA"]]


# --- labels ---


def test_agreement_by_hand():
    """The example of two readers of 50 applications: 20 yes-yes, 5, 10, 15 no-no."""
    a = ["yes"] * 25 + ["no"] * 25
    b = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = agreement(a, b)
    assert found.share.value == 0.7 and found.share.n == 50
    assert found.kappa is not None and found.kappa.value == pytest.approx(0.4)
    assert found.table["yes", "no"] == 5 and found.table["no", "yes"] == 10
    assert repr(found).startswith("same label: 0.7 [") and "; kappa: 0.4 [" in repr(found)


def test_agreement_is_that_of_statsmodels():
    inter_rater = pytest.importorskip("statsmodels.stats.inter_rater")
    generator = random.Random(0)
    labels = ["first", "second", "tie"]
    for _ in range(40):
        n = generator.randint(10, 200)
        a = generator.choices(labels, [3, 2, 1], k=n)
        b = [x if generator.random() < 0.6 else generator.choice(labels) for x in a]
        theirs = inter_rater.cohens_kappa(
            [[sum((x, y) == pair for pair in zip(a, b, strict=True)) for y in labels]
             for x in labels]
        )  # fmt: skip
        ours = agreement(a, b).kappa
        assert ours is not None
        assert ours.value == pytest.approx(theirs.kappa)
        assert (ours.low, ours.high) == pytest.approx((theirs.kappa_low, theirs.kappa_upp))


def test_agreement_without_variety():
    assert agreement(["a"] * 9, ["a"] * 9).kappa is None
    assert "undefined" in repr(agreement(["a"], ["a"]))
    for other in (["b"] * 9, ["a"] * 8 + ["b"]):
        kappa = agreement(["a"] * 9, other).kappa
        assert kappa is not None and kappa.value == 0 and not math.isnan(kappa.low)
    perfect = agreement(["a", "b"] * 9, ["a", "b"] * 9)
    assert perfect.kappa is not None and perfect.kappa.value == 1 == perfect.share.value
    for a, b in (([], []), (["a"], ["a", "b"])):
        with pytest.raises(ValueError, match="one of each for every item"):
            agreement(a, b)


@pytest.mark.parametrize("share", [0, 0.1, 0.3, 0.5, 1])
def test_an_exact_number_of_labels_is_flipped(share: float):
    made = pairs(*((f"q{i}", f"yes {i}", f"no {i}") for i in range(37)))
    for seed in range(20):
        noisy = flip_labels(made, share, seed)
        assert sum(noisy.flipped) == round(share * 37)
        for before, after, flipped in zip(made, noisy.pairs, noisy.flipped, strict=True):
            assert after["prompt"] == before["prompt"]
            assert answer_text(after, "chosen").startswith("no" if flipped else "yes")
            assert answer_text(after, "rejected").startswith("yes" if flipped else "no")
        assert flip_labels(made, share, seed) == noisy
    assert all(answer_text(pair, "chosen").startswith("yes") for pair in made)


def test_flips_grow_from_smaller_ones_and_differ_between_seeds():
    made = pairs(*((f"q{i}", f"yes {i}", f"no {i}") for i in range(50)))
    few, many = (flip_labels(made, share, 3).flipped for share in (0.1, 0.3))
    assert all(b for a, b in zip(few, many, strict=True) if a)
    assert len({flip_labels(made, 0.3, seed).flipped for seed in range(20)}) == 20
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="give a number from 0 to 1"):
            flip_labels(made, share)
