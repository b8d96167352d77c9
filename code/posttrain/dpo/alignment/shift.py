"""How far a model's manner has moved: the persona's criteria on the same questions, paired.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from posttrain.core.stats import Estimate, McNemar, mcnemar_exact, wilson_interval
from posttrain.dpo.data.persona import CRITERIA, compliance

COMPLIES = "all four"


@dataclass(frozen=True)
class Manner:
    """How a model answers.

    Attributes:
        shares: Share of answers that meet each criterion, and all four of them, with Wilson's
            intervals over the questions.
        complies: For each answer, whether it meets all four.
        scores: For each answer, how many it meets.
        words: Mean number of words of an answer.
    """

    shares: dict[str, Estimate]
    complies: tuple[bool, ...]
    scores: tuple[int, ...]
    words: float


def manner_of(texts: Sequence[str]) -> Manner:
    """Judge answers by the persona's rules.

    Args:
        texts: The answers.

    Returns:
        What was found.

    Raises:
        ValueError: If there are no answers.

    Chapter: dpo/alignment.
    """
    if not texts:
        raise ValueError("there are no answers to judge: give at least one")
    verdicts = [compliance(text) for text in texts]
    shares = {
        name: wilson_interval(sum(getattr(v, name) for v in verdicts), len(verdicts))
        for name in CRITERIA
    }
    complies = tuple(verdict.complies for verdict in verdicts)
    return Manner(
        shares | {COMPLIES: wilson_interval(sum(complies), len(complies))},
        complies,
        tuple(verdict.score for verdict in verdicts),
        fmean(len(text.split()) for text in texts),
    )


def compare_manners(before: Manner, after: Manner) -> McNemar:
    """Test whether two models comply equally often on the same questions.

    Args:
        before: The first model.
        after: The second, on the same questions in the same order.

    Returns:
        The counts of questions on which only one of them complies, and the exact p-value.

    Raises:
        ValueError: If the numbers of answers differ.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    return mcnemar_exact(before.complies, after.complies)
