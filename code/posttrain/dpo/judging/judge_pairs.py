"""241 pairs of answers, written one by one, that a judge of the persona learns from.

Stage 2's pairs are built by rules, and a win rate counted by the same rules would only say that
they were learned. So the judge learns from other verdicts. Each pair was written for it as a
whole: a question, an answer in the persona, and a worse one that fails in one or two ways.
Nobody labelled drawn answers, so the pairs are clearer than what two models write.

Better and worse answers are about equally long, in the mean and way by way, since a judge that
learns to prefer long answers would reward any model that rambles.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args

from posttrain.core.arguments import shortened
from posttrain.core.errors import AssetError
from posttrain.core.storage.files import check_sha256, sha256_file
from posttrain.core.storage.json_rows import read_json_rows

Part = Literal["train", "test"]
Way = Literal[
    "late", "no reason", "impersonal", "filler", "wrong", "off topic", "repeats", "vague"
]
"""How an answer fails: it comes late, has no reason, or speaks of people and not to the reader;
there is flattery or an offer of help; it is false, answers another question, goes round in
circles, or says nothing that could be used."""

WAYS: tuple[Way, ...] = get_args(Way)
CONTENT: frozenset[Way] = frozenset({"wrong", "off topic", "repeats"})
"""Ways in which an answer in perfect form can fail."""

FILE = Path(__file__).with_name("judge_pairs.jsonl")
SHA256 = "7e6b758d409da86170bce21750dade583d0ab57100ed64acc78ad6e6b05f0a63"


@dataclass(frozen=True)
class JudgePair:
    """A question and two answers, of which one is better.

    Attributes:
        id: Its name, such as "train-001".
        part: "train" to learn from, "test" to measure on.
        question: What was asked.
        better: The better answer.
        worse: The worse one.
        why: In which one or two ways it is worse, of `WAYS`.
    """

    id: str
    part: Part
    question: str
    better: str
    worse: str
    why: tuple[Way, ...]

    def __post_init__(self) -> None:
        for name in ("id", "question", "better", "worse"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name} is {shortened(value)}: give a text that is not blank")
        if self.part not in get_args(Part):
            raise ValueError(f"part is {shortened(self.part)}: give 'train' or 'test'")
        if self.better == self.worse:
            raise ValueError(f"both answers are {shortened(self.better)}: give two that differ")
        why = self.why
        known = isinstance(why, tuple) and all(way in WAYS for way in why)
        if not known or len(why) not in (1, 2) or len(set(why)) < len(why):
            raise ValueError(f"why is {shortened(why)}: give one or two of {', '.join(WAYS)}")

    @property
    def in_form(self) -> bool:
        """Whether the worse answer fails by its content alone."""
        return CONTENT.issuperset(self.why)


_FIELDS = tuple(field.name for field in fields(JudgePair))


def judge_pairs(part: Part | None = None) -> list[JudgePair]:
    """Read the pairs of this book.

    Args:
        part: "train", "test", or None for both.

    Returns:
        The pairs, in the order of the file.

    Raises:
        AssetError: If the file is not the one that the numbers of the book are made of.
        ValueError: If there is no such part.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    if part not in (None, *get_args(Part)):
        raise ValueError(f"part is {part!r}: give 'train', 'test' or None")
    check_sha256(sha256_file(FILE), SHA256, str(FILE), "Install the package again.")
    return [pair for pair in read_judge_pairs(FILE) if part in (None, pair.part)]


def read_judge_pairs(path: str | Path) -> list[JudgePair]:
    """Read pairs for a judge, those of this book or your own.

    Args:
        path: JSON Lines, with the attributes of `JudgePair` as keys; ``why`` is a list.

    Returns:
        The pairs, in order, at least one.

    Raises:
        AssetError: If the file cannot be read, a row is no pair, an id stands twice, or one
            question lies in both parts. It names the line.

    Chapter: dpo/alignment.
    """  # noqa: DOC503
    pairs: list[JudgePair] = []
    lines: dict[str, int] = {}
    asked: dict[str, tuple[str, int]] = {}
    for row in read_json_rows(path):
        try:
            if row.problem is not None:
                raise ValueError(row.problem)
            pair = _pair(row.value)
        except ValueError as error:
            raise AssetError(f"{path}, line {row.line}: {error}") from None
        first = lines.setdefault(pair.id, row.line)
        if first != row.line:
            raise AssetError(
                f"{path}, line {row.line}: the id {pair.id!r} stands in line {first} already: "
                "give each pair its own"
            )
        part, line = asked.setdefault(_key(pair.question), (pair.part, row.line))
        if part != pair.part:
            raise AssetError(
                f"{path}, line {row.line}: {shortened(pair.question)} is a question of the "
                f"part {part!r} in line {line}: ask each in one part only"
            )
        pairs.append(pair)
    return pairs


def training_rows(pairs: Sequence[JudgePair]) -> list[JudgePair]:
    """Check pairs to train on, and sort them.

    Args:
        pairs: The pairs.

    Returns:
        The same pairs, by their ids.

    Raises:
        ValueError: If there are none, two have the same id, or one is of the part "test".

    Chapter: dpo/alignment.
    """
    rows = sorted(pairs, key=lambda pair: pair.id)
    if not rows:
        raise ValueError("there are no pairs: give those of judge_pairs('train')")
    for row, following in pairwise(rows):
        if row.id == following.id:
            raise ValueError(f"two pairs have the id {row.id!r}: give each pair once")
    for row in rows:
        if row.part != "train":
            raise ValueError(
                f"{row.id!r} is a pair of the part {row.part!r}: train on 'train' alone, or "
                "nothing is left to measure on"
            )
    return rows


def _pair(value: Any) -> JudgePair:
    if not isinstance(value, Mapping) or set(value) != set(_FIELDS):
        keys = sorted(value) if isinstance(value, Mapping) else value
        raise ValueError(
            f"the row has {shortened(keys)}: give an object with {', '.join(_FIELDS)}"
        )
    why = value["why"]
    return JudgePair(**{**value, "why": tuple(why) if isinstance(why, list) else why})


def _key(question: str) -> str:
    return " ".join(question.lower().split())
