"""posttrain.dpo.safety.prompts: the five classes, and a split that does not leak."""

from __future__ import annotations

from collections import Counter

import pytest

from posttrain.dpo.safety.prompts import (
    ALIKE,
    CATEGORIES,
    HarmfulPrompt,
    harmful_prompts,
    split_prompts,
)
from posttrain.sft.data.duplicates import find_leaks, in_words, near_duplicates

PROMPTS = harmful_prompts()


def test_the_classes_and_their_sizes() -> None:
    assert Counter(prompt.category for prompt in PROMPTS) == {
        "hateful": 176,
        "human-chatbot": 117,
        "information hazards": 247,  # one of 248 stands there twice
        "malicious uses": 243,
        "misinformation": 155,
    }
    assert {prompt.category for prompt in PROMPTS} == set(CATEGORIES)
    assert all(p.text and p.text == p.text.strip() for p in PROMPTS)
    assert near_duplicates([in_words(prompt.text) for prompt in PROMPTS]) == []


def test_a_prompt_is_not_shown() -> None:
    shown = repr(HarmfulPrompt("do not show me", "hateful", "a file"))
    assert "show me" not in shown and "hateful" in shown


@pytest.mark.parametrize("seed", range(5))
def test_the_split(seed: int) -> None:
    train, test = split_prompts(PROMPTS, seed=seed)
    assert sorted(p.text for p in (*train, *test)) == sorted(p.text for p in PROMPTS)
    sizes, held = (Counter(p.category for p in part) for part in (PROMPTS, test))
    assert all(abs(held[name] - 0.4 * sizes[name]) <= 1 for name in CATEGORIES)
    texts = {"train": train, "test": test}
    words = {name: [in_words(p.text) for p in part] for name, part in texts.items()}
    assert find_leaks(words, ALIKE) == []


def test_a_split_without_groups_leaks() -> None:
    texts = [in_words(prompt.text) for prompt in PROMPTS]
    assert find_leaks({"train": texts[::2], "test": texts[1::2]}, ALIKE)


def test_the_seed_decides() -> None:
    assert split_prompts(PROMPTS, seed=1) == split_prompts(PROMPTS, seed=1)
    assert split_prompts(PROMPTS, seed=1) != split_prompts(PROMPTS, seed=2)


def test_like_prompts_stay_together_over_chains() -> None:
    texts = ["How do I open the red box?", "How do I open that red box?", "Where is the sea?"]
    texts += [f"{word} and nothing else" for word in ("Apples", "Violins", "Rockets", "Dogs")]
    prompts = [HarmfulPrompt(text, "hateful", "") for text in texts]
    for seed in range(20):
        train, test = split_prompts(prompts, 0.5, seed)
        assert len({prompts[0] in part for part in (train, test)}) == 2
        assert (prompts[0] in train) == (prompts[1] in train)


def test_bad_arguments() -> None:
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="give a number between 0 and 1"):
            split_prompts(PROMPTS, share)
    with pytest.raises(ValueError, match=r"of 'hateful' a share of 0.4 leaves one side empty"):
        split_prompts(PROMPTS[:1])
