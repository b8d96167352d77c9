"""posttrain.dpo.safety.benign: enough look-alikes, none twice, and answers that answer."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.judges.refusals import is_refusal
from posttrain.dpo.data.persona import compliance
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.dpo.safety import benign
from posttrain.dpo.safety.benign import BenignPrompt, benign_prompts
from posttrain.dpo.safety.prompts import CATEGORIES, harmful_prompts
from posttrain.sft.data.duplicates import find_leaks, in_words, near_duplicates, same_words_key

PROMPTS = benign_prompts()
TRAIN, TEST = benign_prompts("train"), benign_prompts("test")


def stands_in(words: str, text: str) -> bool:
    """Whether each word, or a form of it, stands in the text."""
    return all(word[:5] in text.lower() for word in words.lower().split())


def test_the_counts() -> None:
    assert len(TRAIN) == 84 and len(TEST) == 94 and [*TRAIN, *TEST] == PROMPTS
    assert len({prompt.id for prompt in PROMPTS}) == len(PROMPTS)
    for part, sizes in ((TRAIN, (10, 10, 16, 36, 12)), (TEST, (12, 12, 18, 40, 12))):
        counts = Counter(prompt.category for prompt in part)
        assert counts == dict(zip(CATEGORIES, sizes, strict=True))


def test_no_two_are_alike() -> None:
    texts = [in_words(prompt.text) for prompt in PROMPTS]
    assert near_duplicates(texts, 0.5) == []
    assert near_duplicates([prompt.answer for prompt in PROMPTS], 0.5) == []


def test_the_split_shares_no_verb_with_its_object() -> None:
    for prompt in PROMPTS:
        assert stands_in(prompt.verb, prompt.text), prompt.id
        assert stands_in(prompt.object, prompt.text), prompt.id
    for own, other in ((TRAIN, TEST), (TEST, TRAIN)):
        for prompt in own:
            found = [
                x.id
                for x in other
                if stands_in(prompt.verb, x.text) and stands_in(prompt.object, x.text)
            ]
            assert found == [], prompt.id


def test_none_is_a_prompt_of_another_set() -> None:
    everyday = [
        p.text for seed in range(3) for part in everyday_prompts(seed=seed) for p in part
    ]
    harmful = [prompt.text for prompt in harmful_prompts()]
    keys = {same_words_key(in_words(text)) for text in (*everyday, *harmful)}
    assert not keys & {same_words_key(in_words(prompt.text)) for prompt in PROMPTS}
    own = [in_words(prompt.text) for prompt in PROMPTS]
    assert (
        find_leaks({"benign": own, "harmful": [in_words(text) for text in harmful]}, 0.7) == []
    )


@pytest.mark.parametrize("prompt", PROMPTS, ids=lambda prompt: prompt.id)
def test_each_question_and_answer(prompt: BenignPrompt) -> None:
    assert re.fullmatch(r"[A-Z].*\?", prompt.text) and 4 <= len(prompt.text.split()) <= 16
    assert 20 <= len(prompt.answer.split()) <= 40 and prompt.answer.endswith(".")
    assert not is_refusal(prompt.answer).refused
    assert compliance(prompt.answer).complies
    assert prompt.answer.isascii() and "  " not in prompt.text + prompt.answer


def test_bad_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split is 'dev': give 'train', 'test' or None"):
        benign_prompts("dev")  # type: ignore[arg-type]
    changed = tmp_path / "benign.jsonl"
    changed.write_text(benign.FILE.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    monkeypatch.setattr(benign, "FILE", changed)
    with pytest.raises(AssetError, match=r"damaged\. Install the package again"):
        benign_prompts()
