import random
import subprocess
import sys

import pytest

from posttrain.sft.data import duplicates
from posttrain.sft.data.duplicates import (
    Leak,
    Pair,
    exact_duplicates,
    find_leaks,
    in_words,
    near_duplicates,
    near_repeats,
    normalize,
    same_words_key,
)

WORDS = (
    "river stone apple window garden silver morning paper engine candle forest market "
    "bridge letter winter summer pocket button coffee island mirror thunder"
).split()


def sentence(generator: random.Random, length: int = 24) -> list[str]:
    return [generator.choice(WORDS) for _ in range(length)]


def test_normalizing_leaves_words_and_numbers():
    assert normalize("  Convert 3 km,\tto  METERS! ") == "convert 3 km to meters"
    assert normalize("45.71 or 41?") == "45.71 or 41"
    assert normalize("3km") == "3 km"
    assert normalize("\ufb01ne \uff13") == "fine 3"  # a ligature and a full-width digit
    assert same_words_key("is it a? b b") == "a b b is it"


def test_exact_duplicates_are_paired_with_the_first():
    texts = ["Convert 3 km.", "other", "convert  3 KM", "km 3 convert", "CONVERT 3 km!"]
    assert exact_duplicates(texts) == [Pair(0, 2, 1.0), Pair(0, 4, 1.0)]


def test_other_numbers_and_other_words_are_other_questions():
    texts = ["Convert 3 km", "Convert 7 km", "Convert 3 miles", "Convert 33 km", "Convert km"]
    assert near_duplicates(texts) == []
    assert near_duplicates(texts, 0.3) == [Pair(0, 2, pytest.approx(7 / 16))]


def test_order_does_not_count():
    assert near_duplicates(["Sort 3, 1, 2", "sort: 1 2 3", "sort 1 2 2 3"]) == [Pair(0, 1, 1.0)]


def test_similarity_is_the_share_of_common_ngrams():
    # " abcdef " has 4 five-grams, " abcdex " shares the first 2 of its 4.
    assert near_duplicates(["abcdef", "abcdex"], 0.1) == [Pair(0, 1, pytest.approx(2 / 6))]
    assert near_duplicates(["abcdef", "abcdex"], 0.4) == []
    assert near_duplicates(["", "", "a"], 0.5) == [Pair(0, 1, 1.0)]


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], set[tuple[int, int]]]:
    """400 random sentences without numbers, and 60 copies with one word changed."""
    generator = random.Random(0)
    sentences = [sentence(generator) for _ in range(400)]
    planted = set()
    for original in range(0, 180, 3):
        copy = list(sentences[original])
        copy[generator.randrange(len(copy))] = "zebra"
        planted.add((original, len(sentences)))
        sentences.append(copy)
    return [" ".join(words) for words in sentences], planted


def test_minhash_finds_what_comparing_all_pairs_finds(corpus, monkeypatch):
    texts, planted = corpus
    hashed = near_duplicates(texts, 0.7)
    assert planted <= {(pair.first, pair.second) for pair in hashed}
    monkeypatch.setattr(duplicates, "_PAIRS_BY_HAND", 10**9)
    assert hashed == near_duplicates(texts, 0.7)
    monkeypatch.undo()
    monkeypatch.setattr(duplicates, "combinations", None)  # candidates come from few pairs
    with pytest.raises(TypeError):
        near_duplicates(texts, 0.7)


def test_minhash_compares_few_pairs(corpus):
    texts, planted = corpus
    ngrams = [duplicates._ngrams(normalize(text)) for text in texts]
    candidates = set(duplicates._candidates(range(len(texts)), ngrams))
    assert planted <= candidates and len(candidates) < 0.2 * len(texts) ** 2 / 2


def test_the_result_is_the_same_in_every_process():
    code = (
        "from posttrain.sft.data.duplicates import _ngrams\n"
        "print(sum(_ngrams('any text at all')))"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(runs) == 1


@pytest.mark.parametrize("threshold", [0, -0.5, 1.1])
def test_a_threshold_out_of_range_is_refused(threshold: float):
    with pytest.raises(
        ValueError, match=r"threshold is .*: give a number above 0 and at most 1"
    ):
        near_duplicates(["a"], threshold)


def test_leaks_are_pairs_across_splits_only():
    splits = {
        "train": ["Convert 3 km", "Add 1 and 2", "convert 3 km"],
        "validation": ["Sort 5, 4"],
        "test": ["CONVERT 3 km?", "sort 4, 5", "Add 1 and 3"],
    }
    assert find_leaks(splits) == [
        Leak("train", 0, "test", 0, 1.0),
        Leak("validation", 0, "test", 1, 1.0),
    ]
    assert find_leaks({"train": ["a", "a"], "test": ["b"]}) == []
    text = "the quick brown fox jumps over the lazy dog"
    assert find_leaks({"a": [text], "b": [text + "s"]}) == []
    assert len(find_leaks({"a": [text], "b": [text + "s"]}, 0.8)) == 1


def test_pairs_and_leaks_read_well():
    assert repr(Pair(3, 8, 0.913)) == "3 ~ 8 (0.91)"
    assert repr(Leak("train", 3, "test", 8, 1.0)) == "train[3] ~ test[8] (1.00)"


# --- near repeats ---


def sentences(count: int, seed: int, length: int = 40) -> list[str]:
    generator = random.Random(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(generator.choices(letters, k=generator.randint(3, 9))) for _ in range(500)]
    return [" ".join(generator.choices(words, k=length)) for _ in range(count)]


def test_near_repeats_are_found_once_each() -> None:
    texts = sentences(300, 0)
    changed = [f"xyzzy {' '.join(text.split()[1:])}!" for text in texts[:100]]
    found = near_repeats([*texts, *changed])
    assert [(pair.first, pair.second) for pair in found] == [(i, 300 + i) for i in range(100)]
    assert all(0.8 <= pair.similarity < 1 for pair in found)
    against = near_repeats(changed, against=texts)
    assert [(pair.first, pair.second) for pair in against] == [(i, i) for i in range(100)]
    assert [pair.similarity for pair in against] == [pair.similarity for pair in found]
    assert near_repeats(texts, against=texts[:3]) == [Pair(i, i, 1.0) for i in range(3)]


def test_near_repeats_agree_with_near_duplicates() -> None:
    texts = sentences(80, 1, length=12)
    generator = random.Random(2)
    for text in texts[:40]:
        words = text.split()
        words[generator.randrange(12)] = generator.choice(["", "x", "yy"])
        texts.append(" ".join(words))
    slow = {(pair.first, pair.second): pair.similarity for pair in near_duplicates(texts, 0.8)}
    fast = {(pair.first, pair.second): pair.similarity for pair in near_repeats(texts, 0.8)}
    assert len(slow) > 20  # a run of characters in more than ten texts does not count
    assert fast == pytest.approx(slow, abs=0.01)


def test_what_a_template_shares_does_not_count() -> None:
    names = sentences(100, 3, length=3)
    order = "Translate the sentence that follows into French, and write nothing else, please"
    asked = [f"{order}: {name}" for name in names]
    assert len(near_duplicates(asked[:20], 0.6)) > 100
    assert near_repeats(asked, 0.6) == []
    twice = near_repeats([*asked, f"{asked[7]} xyz"], 0.6)
    assert [(pair.first, pair.second) for pair in twice] == [(7, 100)]


def test_near_repeats_need_the_same_numbers() -> None:
    text = sentences(1, 4)[0]
    assert near_repeats([f"{text} 3", f"{text} 4"]) == []
    assert near_repeats([f"3 {text}", f"{text} 3"]) == [Pair(0, 1, pytest.approx(1, abs=0.1))]


def test_near_repeats_of_little() -> None:
    assert near_repeats([]) == near_repeats(["a"]) == near_repeats(["", "", "?!"]) == []
    assert near_repeats(["a"], against=[]) == []
    assert near_repeats(["a", "A.", "b"]) == [Pair(0, 1, 1.0)]
    tail = "x" * 9
    assert near_repeats(["ab " * 700 + tail, "ab " * 700 + "y"]) == [Pair(0, 1, 1.0)]
    with pytest.raises(ValueError, match="threshold is 0: give a number above 0"):
        near_repeats(["a"], 0)


# --- signs ---


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3 - 5", "3 + 5"),
        ("3 - 5", "5 - 3"),
        ("3 * (4 + 2)", "3 + (4 * 2)"),
        ("2024-05-01", "2024-01-05"),
        ("1/2 cup", "2/1 cup"),
        ("👍", "👎"),
        ("+ -", "+ +"),
    ],
)
def test_signs_that_words_cannot_tell(one: str, other: str) -> None:
    assert same_words_key(one) == same_words_key(other)
    assert same_words_key(in_words(one)) != same_words_key(in_words(other))
    assert near_duplicates([in_words(text) for text in (one, f"{one} ", other)]) == [
        Pair(0, 1, 1)
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [("What is 3 - 5?", "what is 3-5"), ("3 + 5.", "3 + 5"), ("Well-known", "known, well")],
)
def test_what_stays_the_same(one: str, other: str) -> None:
    assert same_words_key(in_words(one)) == same_words_key(in_words(other))
    assert in_words("On page 3, a well-known (5) rule.") == "On page 3, a well-known (5) rule."
