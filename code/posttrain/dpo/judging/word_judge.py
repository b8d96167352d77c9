"""The judge to beat: a linear reward on the words of an answer, without any language model.

A judge of hidden states that does no better has learned which words the persona uses, and those
could be counted for less.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from posttrain.core.arguments import names, whole_number
from posttrain.dpo.judging.judge_pairs import JudgePair, training_rows
from posttrain.dpo.judging.preference_head import L2, PreferenceHead, fit_head

_WORD = re.compile(r"[a-z']+|[0-9]+|[.,:;!?]")


@dataclass(frozen=True)
class WordJudge:
    """A linear reward on counts of words and signs.

    Attributes:
        vocabulary: What is counted, in the order of the weights.
        head: The reward, and what cross-validation found.
    """

    vocabulary: tuple[str, ...] = field(repr=False)
    head: PreferenceHead = field(repr=False)

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Return the rewards of answers; the questions play no part.

        Args:
            questions: What was asked, n texts.
            answers: An answer to each.

        Returns:
            n rewards, in nats.

        Raises:
            ValueError: If the numbers differ.
        """
        texts = names(answers, "answers")
        if len(questions) != len(texts):
            raise ValueError(
                f"there are {len(questions)} questions and {len(texts)} answers: give one for "
                "each"
            )
        rewards: list[float] = self.head.rewards(_counts(texts, self.vocabulary)).tolist()
        return rewards


def train_word_judge(
    pairs: Sequence[JudgePair],
    *,
    least: int = 3,
    l2: float | Sequence[float] = L2,
    folds: int = 5,
) -> WordJudge:
    """Train the judge of words on pairs, as `train_preference_judge` does it with states.

    Args:
        pairs: Pairs of the part "train".
        least: In how many answers a word must stand to be counted.
        l2: Strengths of the penalty to choose from.
        folds: Parts of cross-validation.

    Returns:
        The judge.

    Raises:
        ValueError: If there are no pairs, no word stands in so many answers, or see
            `train_preference_judge`.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    rows = training_rows(pairs)
    least = whole_number(least, "least", 1)
    texts = [row.better for row in rows] + [row.worse for row in rows]
    found = Counter(word for text in texts for word in set(_words(text)))
    vocabulary = tuple(sorted(word for word, count in found.items() if count >= least))
    if not vocabulary:
        raise ValueError(f"no word stands in {least} answers: lower least, or give more pairs")
    counts = _counts(texts, vocabulary)
    return WordJudge(vocabulary, fit_head(counts[: len(rows)], counts[len(rows) :], l2, folds))


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _counts(texts: Sequence[str], vocabulary: Sequence[str]) -> Tensor:
    """Count words, shape (n, V)."""
    place = {word: column for column, word in enumerate(vocabulary)}
    counts = torch.zeros(len(texts), len(vocabulary), dtype=torch.float64)
    for row, text in enumerate(texts):
        for word in _words(text):
            if word in place:
                counts[row, place[word]] += 1
    return counts
