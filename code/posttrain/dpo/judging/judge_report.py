"""How often a judge is right on held-out pairs: way by way, and whether length decides.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from posttrain.core.judges.verdicts import PairWinner
from posttrain.core.stats import Estimate, wilson_interval
from posttrain.dpo.data.checks import count_words
from posttrain.dpo.judging.judge_pairs import WAYS, JudgePair
from posttrain.dpo.judging.preference_head import check_tie_band

Scores = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
"""Gives the score of each answer, out of questions and answers."""


@dataclass(frozen=True)
class RightCount:
    """How many pairs are in the right order.

    Attributes:
        right: Pairs whose better answer has the higher score.
        ties: Pairs whose scores are tied.
        n: All pairs.
    """

    right: int
    ties: int
    n: int

    @property
    def accuracy(self) -> float:
        """Share of the pairs in the right order, a tie as half of one; NaN without pairs."""
        return (self.right + self.ties / 2) / self.n if self.n else math.nan

    @property
    def decided(self) -> Estimate | None:
        """Wilson's interval of the share among pairs without a tie; None if none is left."""
        decided = self.n - self.ties
        return wilson_interval(self.right, decided) if decided else None

    def __str__(self) -> str:
        if not self.n:
            return "no pair"
        text = f"{self.accuracy:.1%} of {self.n}"
        if self.decided is not None and not self.ties:
            return f"{text} [{self.decided.low:.1%}, {self.decided.high:.1%}]"
        return f"{text}, {self.ties} tied"


@dataclass(frozen=True)
class JudgeReport:
    """A judge on pairs whose better answer is known.

    Attributes:
        all: All pairs.
        by_way: The pairs whose worse answer fails in that way, perhaps in another one too.
        in_form: The pairs whose worse answer fails by its content alone.
        length_correlation: Of the difference of scores with the difference of words, about
            zero; None where one of them is always zero.
        winners: For each pair "a" where the better answer wins, "b" where the worse one does,
            or "tie": what `posttrain.core.judges.agreement.agreement` takes.
    """

    all: RightCount
    by_way: dict[str, RightCount]
    in_form: RightCount
    length_correlation: float | None
    winners: tuple[PairWinner, ...]

    def __str__(self) -> str:
        rows = {"all pairs": self.all, **self.by_way, "content alone": self.in_form}
        lines = [f"{name:<15}{count}" for name, count in rows.items()]
        if self.length_correlation is not None:
            lines.append(f"{'length':<15}correlation {self.length_correlation:+.2f}")
        return "\n".join(lines)


def measure_judge(
    scores: Scores, pairs: Sequence[JudgePair], tie_band: float = 0.0
) -> JudgeReport:
    """Count how often scores put the better answer first.

    The correlation is about zero and not about the means: which answer of a pair comes first in
    the difference is arbitrary, and so only the signs of both differences together count.

    Args:
        scores: Such as ``judge.scores`` of a `PreferenceJudge`.
        pairs: Held-out pairs.
        tie_band: Largest difference of two scores that is a tie still.

    Returns:
        The report.

    Raises:
        ValueError: If there are no pairs, a score is not finite, there is not one for each
            answer, or the band is none.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    check_tie_band(tie_band)
    if not pairs:
        raise ValueError("there are no pairs: give those of judge_pairs('test')")
    n = len(pairs)
    questions = [pair.question for pair in pairs]
    answers = [pair.better for pair in pairs] + [pair.worse for pair in pairs]
    found = np.asarray(scores(questions * 2, answers), dtype=np.float64)
    if found.shape != (2 * n,) or not np.isfinite(found).all():
        raise ValueError(
            f"the scores of {2 * n} answers have the shape {found.shape}, or one of them is "
            "not finite: give one finite number for each answer"
        )
    margins = found[:n] - found[n:]
    winners: list[PairWinner] = [
        "tie" if abs(margin) <= tie_band else "a" if margin > 0 else "b" for margin in margins
    ]
    longer = [count_words(pair.better) - count_words(pair.worse) for pair in pairs]
    return JudgeReport(
        all=_count(winners),
        by_way={
            way: _count([w for w, pair in zip(winners, pairs, strict=True) if way in pair.why])
            for way in WAYS
        },
        in_form=_count([w for w, pair in zip(winners, pairs, strict=True) if pair.in_form]),
        length_correlation=_correlation(margins, np.asarray(longer, dtype=np.float64)),
        winners=tuple(winners),
    )


def _count(winners: Sequence[PairWinner]) -> RightCount:
    return RightCount(winners.count("a"), winners.count("tie"), len(winners))


def _correlation(a: Any, b: Any) -> float | None:
    size = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / size if size else None
