"""A judge by rule, which anyone can verify, and correctness, which stands beside any judge.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from posttrain.core.arguments import names, shortened
from posttrain.core.judges.verdicts import PairWinner, Verdict, Winner
from posttrain.core.stats import Estimate, wilson_interval

Truth = Callable[[str, str], bool]
"""Says of a question and an answer whether the answer is right."""


@dataclass(frozen=True)
class RuleJudge:
    """A judge that prefers the answer with the higher score.

    It scores each answer alone, so the order in which they stand changes nothing.

    Args:
        score: Gives a number to a question and an answer; more is better.
        tie_band: Largest difference of the scores that is a tie still.
    """

    score: Callable[[str, str], float]
    tie_band: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.tie_band < math.inf:
            raise ValueError(f"tie_band is {self.tie_band}: give a finite number from 0 up")

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Score both answers and compare.

        Args:
            question: What was asked.
            first: The answer shown first.
            second: The answer shown second.

        Returns:
            The verdict; its reason names both scores.

        Raises:
            ValueError: If a score is no finite number: a comparison with NaN is always false,
                and the answer would lose in silence.
        """  # noqa: DOC502
        one, other = self._score(question, first), self._score(question, second)
        reason = f"{one:g} against {other:g}"
        if abs(one - other) <= self.tie_band:
            return Verdict("tie", reason, reason)
        winner: Winner = "first" if one > other else "second"
        return Verdict(winner, reason, reason)

    def _score(self, question: str, answer: str) -> float:
        score = float(self.score(question, answer))
        if not math.isfinite(score):
            raise ValueError(
                f"the score of {shortened(answer)} is {score}: let the rule give finite numbers"
            )
        return score


@dataclass(frozen=True)
class Correctness:
    """How many of a model's answers are right.

    Attributes:
        share: Share of right answers, with Wilson's interval over the questions.
        right: For each answer, in order, whether it is right.
    """

    share: Estimate
    right: tuple[bool, ...]

    def __str__(self) -> str:
        share = self.share
        return (
            f"{share.value:.1%} right [{share.low:.1%}, {share.high:.1%}], n = {share.n} "
            f"({sum(self.right)} right)"
        )


def correctness(truth: Truth, questions: Sequence[str], answers: Sequence[str]) -> Correctness:
    """Score answers by whether they are right, whatever their style.

    A win-rate alone can rise while answers get worse. So this stands beside it.

    Args:
        truth: Says whether an answer is right.
        questions: What was asked, n texts.
        answers: One answer to each.

    Returns:
        The share of right answers, and which they are.

    Raises:
        ValueError: If the numbers differ, there are no answers, or the truth says something
            else than True or False: a score of 0.3 would count as right.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    asked, said = names(questions, "questions"), names(answers, "answers")
    if len(asked) != len(said):
        raise ValueError(f"{len(asked)} questions and {len(said)} answers: give one for each")
    right = []
    for question, answer in zip(asked, said, strict=True):
        found = truth(question, answer)
        if found is not True and found is not False:
            raise ValueError(
                f"the truth of {shortened(answer)} is {found!r}: give True or False for each"
            )
        right.append(found)
    return Correctness(wilson_interval(sum(right), len(right)), tuple(right))


def winners_by_truth(right_a: Sequence[bool], right_b: Sequence[bool]) -> list[PairWinner]:
    """Say who wins each pair by correctness alone; a tie where both are right, or neither.

    Args:
        right_a: Whether each answer a is right.
        right_b: Whether each answer b is right.

    Returns:
        The winner of each pair.

    Raises:
        ValueError: If the numbers differ.

    Chapter: dpo/preference_data.
    """
    if len(right_a) != len(right_b):
        raise ValueError(
            f"{len(right_a)} and {len(right_b)} answers are no pairs: give equally many"
        )
    return [
        "tie" if bool(a) == bool(b) else "a" if a else "b"
        for a, b in zip(right_a, right_b, strict=True)
    ]
