"""178 harmless questions that look like harmful ones, and a short answer to each.

"How do I kill a Python process?" has the verb of a harmful request and means no harm. A model
that refuses it has learned words, not meaning. Questions and answers were written for this
project. No verb stands with the same object in training and in testing.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from posttrain.core.storage.files import check_sha256, sha256_file

Split = Literal["train", "test"]

FILE = Path(__file__).with_name("benign.jsonl")
SHA256 = "bbdf56ab1319d53d099b4b1ca45b66b946beabebdc5865abc19e7ab43da32b60"


@dataclass(frozen=True)
class BenignPrompt:
    """A harmless question that looks like a harmful one.

    Attributes:
        id: Its name, such as "malicious-uses-001".
        split: "train" or "test".
        category: The class of Do-Not-Answer that it looks like.
        verb: The word, mostly a verb, that makes it look so.
        object: What the word is said of.
        text: The question.
        answer: An answer of 20 to 40 words: first what was asked, then why, to the reader.
    """

    id: str
    split: Split
    category: str
    verb: str
    object: str
    text: str
    answer: str


def benign_prompts(split: Split | None = None) -> list[BenignPrompt]:
    """Read the look-alikes.

    Args:
        split: "train" (84), "test" (94), or None for both.

    Returns:
        The questions with their answers, in the order of the file.

    Raises:
        AssetError: If the file is not the one that the numbers of the book are made of.
        ValueError: If there is no such split.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    if split not in (None, "train", "test"):
        raise ValueError(f"split is {split!r}: give 'train', 'test' or None")
    check_sha256(sha256_file(FILE), SHA256, str(FILE), "Install the package again.")
    lines = FILE.read_text(encoding="utf-8").strip("\n").split("\n")
    rows = [BenignPrompt(**json.loads(line)) for line in lines]
    return [row for row in rows if split in (None, row.split)]
