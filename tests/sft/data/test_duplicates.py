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
    near_duplicates,
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
