"""1,000 verified examples of everyday reckoning, in three splits.

The instances come from reasoning-gym, whose own verifiers judge every answer: those in the
data, when it is built, and those of a model. `posttrain.sft.data.tasks` says how each kind is
made.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import copy
import functools
import hashlib
import json
import random
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from posttrain.sft.chat.template import Message, encode_chat
from posttrain.sft.data.answer_format import CONFIDENCES, write_answer
from posttrain.sft.data.duplicates import same_words_key
from posttrain.sft.data.gym import accepts, entries
from posttrain.sft.data.tasks import BY_NAME, KINDS, Kind

if TYPE_CHECKING:
    import datasets
    from transformers import PreTrainedTokenizerBase

SPLITS = {"train": 600, "validation": 80, "test": 320}
"""Rows of each split, 1,000 in all; every kind has the same share of each."""

SYSTEM = "Answer briefly."
"""The system message of every row. It says nothing of the format: the model must learn it."""

FORMAT_SYSTEM = (
    "Answer in exactly three lines.\n"
    "Answer: the answer alone\n"
    "Why: one short sentence\n"
    f"Confidence: {', '.join(CONFIDENCES[:-1])} or {CONFIDENCES[-1]}\n"
    "Write nothing else."
)
"""The system message that tells a model the format which it was not trained on."""


class Row(TypedDict):
    """One example; ``messages`` is TRL's conversational format."""

    id: str
    kind: str
    messages: list[Message]
    answer: str
    confidence: str
    entry: str


def build_dataset(seed: int = 0) -> dict[str, list[Row]]:
    """Build the three splits.

    A kind's instances are drawn until there are enough different ones: two that share words and
    numbers in any order count as one, so no split repeats itself or another. They are shuffled
    and cut into the splits. The same seed gives the same rows, on any day and machine.

    Args:
        seed: Seed of the instances and their order, 0 or above.

    Returns:
        Rows by split, as in `SPLITS`; the kinds are mixed.

    Raises:
        AssetError: If reasoning-gym cannot be imported.
        ValueError: If the seed is negative.
        AssertionError: If reasoning-gym's verifier does not accept one of our answers.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502, DOC503
    if seed < 0:
        raise ValueError(f"seed is {seed}: give 0 or a number above")
    return copy.deepcopy(_splits(seed))


@functools.lru_cache(maxsize=2)
def _splits(seed: int) -> dict[str, list[Row]]:
    splits: dict[str, list[Row]] = {name: [] for name in SPLITS}
    shares = {name: size // len(KINDS) for name, size in SPLITS.items()}
    for kind in KINDS:
        rows = _different_rows(kind, sum(shares.values()), seed)
        random.Random(f"{seed} {kind.name}").shuffle(rows)
        for name, share in shares.items():
            splits[name] += rows[:share]
            del rows[:share]
    for name, mixed in splits.items():
        random.Random(f"{seed} {name}").shuffle(mixed)
    return splits


def to_dataset(rows: Sequence[Row]) -> datasets.Dataset:
    """Turn rows into a data set for TRL.

    Args:
        rows: Rows of a split.

    Returns:
        A `datasets.Dataset` with the columns of `Row`.

    Chapter: sft/fine_tuning.
    """
    import datasets

    return datasets.Dataset.from_list([dict(row) for row in rows])


def verify(row: Mapping[str, Any], answer: str) -> bool:
    """Let reasoning-gym's verifier judge an answer.

    Args:
        row: The row that the answer is for.
        answer: The answer alone, as a model wrote it.

    Returns:
        True where the answer is right.

    Raises:
        ValueError: If the row is of an unknown kind.
        AssetError: If reasoning-gym cannot be imported.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502, DOC503
    kind = BY_NAME.get(row["kind"])
    if kind is None:
        raise ValueError(
            f"the row's kind is {row['kind']!r}; known are {', '.join(BY_NAME)}: give a row "
            "that build_dataset made"
        )
    return accepts(kind, answer, json.loads(row["entry"]))


def few_shot_prompt(
    row: Row, train: Sequence[Row], *, k: int = 3, seed: int = 0
) -> list[Message]:
    """Give an untrained model its fair chance: the format, and worked examples of the kind.

    All rows of a kind that are not in ``train`` get the same examples, so the messages before
    the question are the same and can be read once.

    Args:
        row: The row to ask about.
        train: Rows to draw the examples from.
        k: Number of examples.
        seed: Seed of the draw.

    Returns:
        The format as the system message, ``k`` questions with their answers, the question:
        ``2 * k + 2`` messages.

    Raises:
        ValueError: If there are fewer than ``k`` other rows of that kind.

    Chapter: sft/fine_tuning.
    """
    others = [other for other in train if other["kind"] == row["kind"] and other != row]
    if not 0 <= k <= len(others):
        raise ValueError(
            f"k is {k} and there are {len(others)} other rows of the kind {row['kind']!r}: "
            "give a k from 0 to that number, or more rows"
        )
    examples = random.Random(f"{seed} {row['kind']}").sample(others, k)
    turns = [message for example in examples for message in example["messages"][1:]]
    return [{"role": "system", "content": FORMAT_SYSTEM}, *turns, row["messages"][1]]


def dataset_hash(rows: Sequence[Mapping[str, Any]]) -> str:
    """Name rows by their contents, for the artifact store.

    Args:
        rows: Rows of plain values; their order counts.

    Returns:
        Sixteen hexadecimal digits of the SHA-256.

    Chapter: sft/fine_tuning.
    """
    written = json.dumps(list(rows), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(written.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class KindStatistics:
    """How long the rows of a kind are, as SmolLM2 reads them.

    Attributes:
        kind: Name of the kind, or "all".
        rows: Number of rows.
        tokens: Mean tokens of a conversation.
        longest: Tokens of the longest conversation.
        trained: Mean tokens that are trained: the answer and the stop token.
        longest_trained: The most of them in one row.
        confidences: Rows by stated confidence.
    """

    kind: str
    rows: int
    tokens: float
    longest: int
    trained: float
    longest_trained: int
    confidences: dict[str, int]


def describe(
    rows: Sequence[Row], tokenizer: PreTrainedTokenizerBase
) -> dict[str, KindStatistics]:
    """Count rows and tokens per kind.

    Args:
        rows: Rows of a split.
        tokenizer: SmolLM2's.

    Returns:
        Statistics by kind, and of all rows under "all".

    Raises:
        ValueError: If there are no rows.

    Chapter: sft/fine_tuning.
    """
    if not rows:
        raise ValueError("there are no rows to describe: give at least one")
    encoded = [(row, encode_chat(row["messages"], tokenizer)) for row in rows]
    names = [kind.name for kind in KINDS if any(row["kind"] == kind.name for row in rows)]
    result = {}
    for name in [*names, "all"]:
        chosen = [(row, chat) for row, chat in encoded if name in (row["kind"], "all")]
        lengths = [len(chat.input_ids) for _, chat in chosen]
        trained = [sum(chat.assistant_mask) for _, chat in chosen]
        stated = [row["confidence"] for row, _ in chosen]
        result[name] = KindStatistics(
            kind=name,
            rows=len(chosen),
            tokens=statistics.fmean(lengths),
            longest=max(lengths),
            trained=statistics.fmean(trained),
            longest_trained=max(trained),
            confidences={level: stated.count(level) for level in CONFIDENCES},
        )
    return result


def _different_rows(kind: Kind, count: int, seed: int) -> list[Row]:
    rows: dict[str, Row] = {}
    for entry in entries(kind, seed):
        row = _row(kind, entry, seed)
        rows.setdefault(same_words_key(row["messages"][1]["content"]), row)
        if len(rows) == count:
            return list(rows.values())
    raise AssertionError(
        f"{kind.dataset} has only {len(rows)} different instances, not {count}"
    )


def _row(kind: Kind, entry: dict[str, Any], seed: int) -> Row:
    facts = entry["metadata"]
    answer, confidence = kind.write(entry["answer"]), kind.confidence(facts)
    if not accepts(kind, answer, entry):
        raise AssertionError(f"the verifier of {kind.dataset} refuses {answer!r} for {entry}")
    kept = {key: value for key, value in facts.items() if key != "difficulty"}
    return {
        "id": f"{kind.name}-{seed}-{facts['source_index']}",
        "kind": kind.name,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": kind.question(facts)},
            {"role": "assistant", "content": write_answer(answer, kind.why(facts), confidence)},
        ],
        "answer": answer,
        "confidence": confidence,
        "entry": json.dumps({"answer": entry["answer"], "metadata": kept}),
    }
