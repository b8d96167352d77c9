"""The phrases: each of them is known to the detector, in the form in which it is listed."""

from __future__ import annotations

import random

import pytest

from posttrain.core.judges.refusal_phrases import (
    DECLINES,
    loosely,
    normalized,
    pattern_of,
    refusal_phrases,
)
from posttrain.core.judges.refusals import is_refusal


def test_each_phrase_is_listed_once_and_in_the_normal_form():
    phrases = refusal_phrases()
    assert len(set(phrases)) == len(phrases) > 1000
    assert all(phrase == normalized(phrase) for phrase in phrases)
    for phrase in (
        "i cannot help",
        "i am not able to assist",
        "my answer is no",
        "i must decline",
    ):
        assert phrase in phrases


def test_the_detector_knows_each_phrase():
    """Else a comparison with the list would be one with phrases that play no part."""
    for phrase in random.Random(0).sample(refusal_phrases(), 400):
        assert is_refusal(phrase[0].upper() + phrase[1:]).refused, phrase


def test_a_pattern_finds_all_that_its_parts_make():
    found = pattern_of([(("i", "we"), ("cannot", "will not"), ("help",))])
    assert found.search("so we will not help")
    assert found.search("i cannot really still help")
    assert not found.search("they cannot help") and not found.search("i help")
    assert not found.search("i cannot helper")
    assert pattern_of(DECLINES).search("i am truly not able to assist")


def test_an_adverb_may_stand_behind_the_verb():
    assert pattern_of([(("am not able to",),)]).search("am really not able to")
    assert loosely("see") == "see"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I can\u2019t, I CAN'T, I can not", "i cannot, i cannot, i cannot"),
        ("won't don\u2019t isn't", "will not do not is not"),
        ("I'm I've I'd I'll let's", "i am i have i would i will let us"),
        ("that's here\u2019s the dog's", "that is here is the dog's"),
        ("a \t b\nc", "a b\nc"),
        ("```", "```"),
    ],
)
def test_the_normal_form(text: str, expected: str):
    assert normalized(text) == expected == normalized(expected)
