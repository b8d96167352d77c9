"""Texts that say the same: within a data set, and between its splits.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import math
import re
import unicodedata
import zlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

_TOKEN = re.compile(r"\d+(?:\.\d+)*|[^\W\d_]+")
_SUM = re.compile(r"\d[\d.,]*(?:\s*[-+*/×÷^−]\s*\(?\d[\d.,]*\)?)+")
_NGRAM = 5
_HASHES, _BANDS = 128, 32
_PAIRS_BY_HAND = 2_000  # below this many pairs, comparing all is faster than hashing
_PRIME = (1 << 31) - 1  # products of two hashes below it fit into 64 bits

_Hashes = np.ndarray[tuple[int], np.dtype[np.uint64]]
_LOOKED_AT, _BUCKET = 2_000, 8  # characters of a text, and texts of a bucket
_SHARED, _SHARED_LEAST = 0.02, 10  # n-grams in more texts than that belong to a template
_DRAWN = np.random.default_rng(0).integers(0, 1 << 63, (2, 64, 1), dtype=np.uint64)
_FACTORS, _OFFSETS = _DRAWN[0] * np.uint64(2) + np.uint64(1), _DRAWN[1]  # hashes modulo 2^64
_POWERS = np.random.default_rng(1).integers(0, 1 << 63, _NGRAM, dtype=np.uint64)


def normalize(text: str) -> str:
    """Strip a text of what does not make it another text: case, space, punctuation.

    Args:
        text: Any text.

    Returns:
        Its words and numbers in order, in lower case, with one space between them.

    Chapter: sft/fine_tuning.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(_TOKEN.findall(folded))


def same_words_key(text: str) -> str:
    """Return what two texts share when their words and their numbers agree in any order.

    Numbers count: "convert 3 km" and "convert 7 km" are two questions.

    Args:
        text: Any text.

    Returns:
        The sorted words and numbers of the text.

    Chapter: sft/fine_tuning.
    """
    return " ".join(sorted(normalize(text).split()))


def in_words(text: str) -> str:
    """Write a text so that its words alone tell it from another.

    The comparisons here look at words and numbers in any order. In free text that is right; yet
    "3 - 5", "3 + 5" and "5 - 3" are three questions, and so are two emoji.

    Args:
        text: Any text.

    Returns:
        The text, with one made-up word in place of each sum or date, and in place of each sign
        where there are neither words nor numbers.

    Chapter: sft/your_model.
    """
    text = _SUM.sub(lambda found: f" {_word(''.join(found[0].split()))} ", text)
    if normalize(text):
        return text
    return " ".join(_word(letter) for letter in text if not letter.isspace())


def _word(text: str) -> str:
    """Make a word of a text; different texts give different words."""
    digits = str(zlib.crc32(text.rstrip(".,").encode()))
    return "".join(chr(ord("a") + int(digit)) for digit in digits)


@dataclass(frozen=True, order=True)
class Pair:
    """Two texts that are alike.

    Attributes:
        first: Index of the earlier text.
        second: Index of the later text.
        similarity: 1 where the words and numbers agree, else the share of common n-grams.
    """

    first: int
    second: int
    similarity: float

    def __repr__(self) -> str:
        return f"{self.first} ~ {self.second} ({self.similarity:.2f})"


def exact_duplicates(texts: Sequence[str]) -> list[Pair]:
    """Find texts that are equal but for case, space and punctuation.

    Args:
        texts: Any texts.

    Returns:
        Each repetition, paired with the first text that it repeats.

    Chapter: sft/fine_tuning.
    """
    return _repetitions([normalize(text) for text in texts])


def near_duplicates(texts: Sequence[str], threshold: float = 1.0) -> list[Pair]:
    """Find texts that say the same thing with the same numbers.

    At the threshold 1, two texts are alike when their words and numbers agree in any order.
    That is right for questions made from a template, where one other word makes another
    question. A lower threshold also finds pairs with the same numbers whose character 5-grams
    have at least that Jaccard similarity: right for free text. Large sets are searched with
    MinHash (Broder, 1997) in 32 bands of 4 hashes: of pairs with the similarity s it misses the
    share (1 - s^4)^32, which is 1 in 7 000 for 0.7 and 1 in 8 for 0.5.

    Args:
        texts: Any texts.
        threshold: Least similarity, above 0 and at most 1.

    Returns:
        Pairs in order of their indices. Of texts with the same words, each repetition is
        paired with the first only.

    Raises:
        ValueError: If the threshold is out of its range.

    Chapter: sft/fine_tuning.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}: give a number above 0 and at most 1")
    keys = [same_words_key(text) for text in texts]
    pairs = _repetitions(keys)
    if threshold < 1:
        repeated = {pair.second for pair in pairs}
        buckets: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, key in enumerate(keys):
            if index not in repeated:
                buckets[tuple(w for w in key.split() if w[0].isdigit())].append(index)
        ngrams = [_ngrams(normalize(text)) for text in texts]
        for bucket in buckets.values():
            for i, j in _candidates(bucket, ngrams):
                similarity = _jaccard(ngrams[i], ngrams[j])
                if similarity >= threshold:
                    pairs.append(Pair(i, j, similarity))
    return sorted(pairs)


def near_repeats(
    texts: Sequence[str], threshold: float = 0.8, *, against: Sequence[str] | None = None
) -> list[Pair]:
    """Find texts that are nearly one that came before, in time that grows with their number.

    `near_duplicates` compares all pairs that may be alike, which are millions where thousands
    of texts are made from one template. Here each text is compared with a few candidates
    only, and runs of characters that many texts share do not count: two questions from a
    template are alike where what was filled in is. Numbers must agree. Of each text the first
    2,000 characters are looked at. Of pairs at the threshold 0.8 about 1 in 5,000 is missed.

    Args:
        texts: Any texts.
        threshold: Least Jaccard similarity of the 5-grams that count, above 0 and at most 1.
        against: Look among these, and not among the texts themselves.

    Returns:
        For each text that is alike an earlier one the most similar pair: ``first`` is the index
        of the earlier text, or of the one in ``against``. Texts with the same words are among
        them, unless all that they say is shared by many.

    Raises:
        ValueError: If the threshold is out of its range.

    Chapter: sft/your_model.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold is {threshold}: give a number above 0 and at most 1")
    others = [] if against is None else list(against)
    plain = [normalize(text[:_LOOKED_AT]) for text in (*others, *texts)]
    numbers = [" ".join(sorted(w for w in t.split() if w[0].isdigit())) for t in plain]
    grams = _distinctive(plain)
    tables: dict[tuple[str, int, bytes], list[int]] = defaultdict(list)
    pairs = []
    for index, values in enumerate(grams):
        if not len(values):
            continue
        bands = [(numbers[index], *band) for band in _bands(values)]
        if index >= len(others):
            near = {other for band in bands for other in tables.get(band, ())}
            alike = [Pair(o, index - len(others), _overlap(grams[o], values)) for o in near]
            best = min(alike, key=lambda pair: (-pair.similarity, pair.first), default=None)
            if best is not None and best.similarity >= threshold:
                pairs.append(best)
        if index < len(others) or against is None:
            for band in bands:
                if len(tables[band]) < _BUCKET:
                    tables[band].append(index)
    return pairs


def _distinctive(texts: Sequence[str]) -> list[_Hashes]:
    """Hash the character n-grams of each text, without those that many texts share."""
    hashed = []
    for text in texts:
        padded = f" {text} ".ljust(_NGRAM)
        letters = np.frombuffer(padded.encode("utf-32-le"), np.uint32).astype(np.uint64)
        windows = np.lib.stride_tricks.sliding_window_view(letters, _NGRAM)
        hashed.append(np.unique(windows @ _POWERS if text else letters[:0]))
    if not hashed:
        return []
    _, inverse, counts = np.unique(
        np.concatenate(hashed), return_inverse=True, return_counts=True
    )
    rare = (counts <= max(_SHARED_LEAST, _SHARED * len(texts)))[inverse]
    ends = np.cumsum([len(grams) for grams in hashed])[:-1]
    return [grams[kept] for grams, kept in zip(hashed, np.split(rare, ends), strict=True)]


def _bands(values: _Hashes) -> list[tuple[int, bytes]]:
    signature = ((_FACTORS * values + _OFFSETS) >> np.uint64(32)).min(axis=1)
    return [(i, band.tobytes()) for i, band in enumerate(signature.reshape(-1, 4))]


def _overlap(a: _Hashes, b: _Hashes) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    return both / (len(a) + len(b) - both)


def _repetitions(keys: Sequence[str]) -> list[Pair]:
    first: dict[str, int] = {}
    return [
        Pair(first[key], index, 1.0)
        for index, key in enumerate(keys)
        if first.setdefault(key, index) != index
    ]


def _ngrams(text: str) -> set[int]:
    """Hash the character n-grams of a text, the same in every process."""
    padded = f" {text} ".ljust(_NGRAM)
    return {
        zlib.crc32(padded[i : i + _NGRAM].encode()) for i in range(len(padded) - _NGRAM + 1)
    }


def _jaccard(a: set[int], b: set[int]) -> float:
    return len(a & b) / len(a | b)


def _candidates(bucket: Sequence[int], ngrams: Sequence[set[int]]) -> Iterable[tuple[int, int]]:
    """Give the pairs of a bucket, or where these are many, those that share a MinHash band."""
    if math.comb(len(bucket), 2) <= _PAIRS_BY_HAND:
        return combinations(bucket, 2)
    generator = np.random.default_rng(0)
    a, b = generator.integers(1, _PRIME, (2, _HASHES, 1), dtype=np.int64)
    tables: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for index in bucket:
        values = np.fromiter(ngrams[index], np.int64, len(ngrams[index]))
        signature = ((a * (values % _PRIME) + b) % _PRIME).min(axis=1)
        for band, rows in enumerate(np.split(signature, _BANDS)):
            tables[band, rows.tobytes()].append(index)
    return {pair for members in tables.values() for pair in combinations(members, 2)}


@dataclass(frozen=True, order=True)
class Leak:
    """A text of one split that another split holds too.

    Attributes:
        split: Name of the earlier split.
        index: Index of the text in it.
        other_split: Name of the later split.
        other_index: Index of the text in it.
        similarity: As in `Pair`.
    """

    split: str
    index: int
    other_split: str
    other_index: int
    similarity: float

    def __repr__(self) -> str:
        return (
            f"{self.split}[{self.index}] ~ {self.other_split}[{self.other_index}] "
            f"({self.similarity:.2f})"
        )


def find_leaks(splits: Mapping[str, Sequence[str]], threshold: float = 1.0) -> list[Leak]:
    """Find texts that two splits share.

    Args:
        splits: The texts of each split, training first.
        threshold: As in `near_duplicates`, which does the search.

    Returns:
        The pairs whose two texts lie in different splits; empty where nothing leaks.

    Raises:
        ValueError: If the threshold is out of its range.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    places = [(name, i) for name, texts in splits.items() for i in range(len(texts))]
    everything = [text for texts in splits.values() for text in texts]
    pairs = [
        (*places[pair.first], *places[pair.second], pair.similarity)
        for pair in near_duplicates(everything, threshold)
    ]
    return [Leak(*pair) for pair in pairs if pair[0] != pair[2]]
