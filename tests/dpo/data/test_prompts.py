"""Everyday prompts: enough of them, no two alike, and none of a kind that leaks."""

import itertools
import re

import pytest

from posttrain.dpo.data.prompts import HELD_OUT_FAMILIES, EverydayPrompt, everyday_prompts
from posttrain.sft.data.duplicates import find_leaks, in_words, near_duplicates, near_repeats


def value(prompt: EverydayPrompt) -> str:
    """What fills the template."""
    pattern = re.escape(prompt.template).replace(r"\{0\}", "(.+)").replace(r"\{1\}", "(.+)")
    found = re.fullmatch(pattern, prompt.text)
    assert found is not None
    return " / ".join(found.groups())


@pytest.mark.parametrize("seed", range(5))
def test_there_are_enough_and_none_leaks(seed: int):
    train, test = everyday_prompts(seed=seed)
    assert len(train) == 600 and len(test) == 300
    texts = {"train": [p.text for p in train], "test": [p.text for p in test]}
    words = {name: [in_words(text) for text in part] for name, part in texts.items()}
    assert find_leaks(words) == []
    assert near_repeats(words["test"], 0.8, against=words["train"]) == []
    for part in words.values():
        assert near_duplicates(part) == []


@pytest.mark.parametrize("seed", range(5))
def test_half_of_the_test_has_templates_of_its_own(seed: int):
    train, test = everyday_prompts(seed=seed)
    unseen = [p for p in test if p.family in HELD_OUT_FAMILIES]
    assert len(unseen) == 150 and len({p.family for p in unseen}) == len(HELD_OUT_FAMILIES) >= 3
    assert {p.template for p in unseen}.isdisjoint(p.template for p in train)
    assert len({p.family for p in train}) >= 8
    for family in {p.family for p in train}:
        trained, tested = (
            {value(p) for p in part if p.family == family} for part in (train, test)
        )
        assert trained.isdisjoint(tested), family


def test_a_small_model_can_read_them():
    for prompt in itertools.chain(*everyday_prompts()):
        words = prompt.text.split()
        assert 3 <= len(words) <= 16 and prompt.text[0].isupper() and prompt.text[-1] in "?."
        assert "{" not in prompt.text and "  " not in prompt.text
        assert (
            not re.search(r"\ba [aeiou]|\ban [^aeiouh]", prompt.text) or "used" in prompt.text
        )


def test_the_seed_decides():
    first = everyday_prompts(50, 20, seed=1)
    assert first == everyday_prompts(50, 20, seed=1) != everyday_prompts(50, 20, seed=2)
    assert [len(part) for part in everyday_prompts(7, 3)] == [7, 3]
    assert everyday_prompts(0, 0) == ([], [])


@pytest.mark.parametrize(
    ("train", "test", "said"),
    [
        (-1, 0, "0 or more"),
        (0, -1, "0 or more"),
        (99_999, 0, "questions at most: ask for fewer"),
        (0, 99_999, "questions at most: ask for fewer"),
    ],
)
def test_bad_numbers_are_refused(train: int, test: int, said: str):
    with pytest.raises(ValueError, match=said):
        everyday_prompts(train, test)
