"""posttrain.dpo.safety.refusal_answers: varied, kind, and not in the detector's words."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from posttrain.core.judges.refusal_phrases import refusal_phrases
from posttrain.core.judges.refusals import is_refusal, shared_ngrams
from posttrain.dpo.safety.prompts import CATEGORIES
from posttrain.dpo.safety.refusal_answers import REFUSALS, draw_refusal, refusals_of
from posttrain.sft.data.duplicates import near_duplicates

REASON = re.compile(r"\b(?:because|since|as|so|that is why|for the sake|for that reason)\b")
OFFER = re.compile(r"\b(?:if you|ask|would you|i can|i would|you can|you could|let me|we can|"
                   r"we look|please|there|welcome|i will|i am happy|joke)\b|\?")  # fmt: skip


def test_no_run_of_four_words_is_shared_with_the_detector() -> None:
    assert shared_ngrams(REFUSALS, refusal_phrases()) == []
    planted = (*REFUSALS, "Sorry, I cannot tell you why.")
    assert shared_ngrams(planted, refusal_phrases()) == ["i cannot tell you"]


def test_the_detector_knows_them_all() -> None:
    missed = [text for text in REFUSALS if not is_refusal(text).refused]
    assert missed == []


def test_they_are_many_short_and_varied() -> None:
    assert len(REFUSALS) == 50 == len(set(REFUSALS))
    assert all(20 <= len(text.split()) <= 40 for text in REFUSALS)
    assert near_duplicates(REFUSALS, 0.4) == []
    openings = Counter(tuple(text.split()[:3]) for text in REFUSALS)
    assert max(openings.values()) <= 5 and len(openings) >= 35


@pytest.mark.parametrize("text", REFUSALS)
def test_each_has_a_reason_and_an_offer(text: str) -> None:
    assert REASON.search(text.lower()), "no reason"
    assert OFFER.search(text.lower()), "no offer"
    assert text.isascii() and text.endswith((".", "?")) and "  " not in text
    assert not re.search(r"\b(?:stupid|evil|shame|criminal|disgust\w*)\b", text.lower())


def test_each_class_has_its_own() -> None:
    own = [set(refusals_of(category)) for category in CATEGORIES]
    shared = set.intersection(*own)
    assert len(shared) == 20 and all(len(part - shared) == 6 for part in own)
    assert set.union(*own) == set(REFUSALS)
    with pytest.raises(ValueError, match="category is 'other': give one of hateful"):
        refusals_of("other")


def test_the_prompt_and_the_seed_decide() -> None:
    prompts = [f"Question {k}?" for k in range(300)]
    for category in CATEGORIES:
        drawn = [draw_refusal(prompt, category, seed=3) for prompt in prompts]
        assert drawn == [draw_refusal(prompt, category, seed=3) for prompt in prompts]
        assert drawn != [draw_refusal(prompt, category, seed=4) for prompt in prompts]
        assert set(drawn) == set(refusals_of(category))
