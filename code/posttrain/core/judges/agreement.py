"""How far a judge agrees with people, or with truth: this stands beside every rate it makes.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from posttrain.core.judges.verdicts import Outcome, PairWinner
from posttrain.core.stats import Estimate, wilson_interval

WINNERS: tuple[PairWinner, ...] = get_args(PairWinner)


@dataclass(frozen=True)
class Agreement:
    """A judge beside the labels of people, or of truth, on the same pairs.

    Attributes:
        share: Share of pairs on which both say the same; a tie agrees with a tie alone. A judge
            that is asked in both orders ties often, and loses here where the labels have none.
        decided: The same share among the pairs in which neither says tie; None if there are
            none. Half is chance. Read it with its n: it leaves out what the judge cannot tell.
        kappa: Cohen's kappa over the three answers: 1 is perfect, 0 is chance. None where one
            answer is all that both ever give: chance alone then agrees.
        consistency: Share of pairs for which the judge says the same in both orders; None where
            outcomes were given without their orders.
        counts: Number of pairs by (judge, label).
    """

    share: Estimate
    decided: Estimate | None
    kappa: Estimate | None
    consistency: Estimate | None
    counts: dict[tuple[PairWinner, PairWinner], int]

    def __str__(self) -> str:
        lines = [f"agreement      {_percent(self.share)}"]
        tied = self.share.n - (self.decided.n if self.decided else 0)
        shown = _percent(self.decided) if self.decided else "no pair"
        lines.append(f"  if both decide {shown} ({tied} pairs with a tie)")
        shown = (
            f"{self.kappa.value:.2f} [{self.kappa.low:.2f}, {self.kappa.high:.2f}]"
            if (self.kappa)
            else "not defined"
        )
        lines.append(f"Cohen's kappa  {shown}")
        if self.consistency:
            lines.append(f"both orders    {_percent(self.consistency)} say the same")
        return "\n".join(lines)


def agreement(
    found: Sequence[Outcome] | Sequence[PairWinner],
    labels: Sequence[PairWinner],
    confidence: float = 0.95,
) -> Agreement:
    """Compare a judge with labels.

    Shares have Wilson's interval. Kappa (Cohen, 1960) has the one of its large-sample standard
    error (Fleiss et al., 1969), cut at 1 and -1; it has no width where all agree, so read the
    share's interval there. All of them cover the draw of the pairs.

    Args:
        found: The judge's outcomes, from `judge_pairs`, or its winners alone.
        labels: What people or truth say of each pair: "a", "b" or "tie".
        confidence: Confidence level, between 0 and 1.

    Returns:
        The agreement; no pair is left out but where it says so.

    Raises:
        ValueError: If the numbers differ, there are no pairs, or a winner is unknown.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    if len(found) != len(labels):
        raise ValueError(f"{len(found)} outcomes and {len(labels)} labels: give one for each")
    if not found:
        raise ValueError("there are no pairs: give at least one")
    outcomes = [one for one in found if isinstance(one, Outcome)]
    if outcomes and len(outcomes) < len(found):
        raise ValueError(
            f"{len(outcomes)} of {len(found)} are outcomes, the others winners: give one kind"
        )
    said = [one.winner if isinstance(one, Outcome) else _winner(one, "found") for one in found]
    label = [_winner(one, "labels") for one in labels]
    pairs = list(zip(said, label, strict=True))
    counts = {(x, y): pairs.count((x, y)) for x in WINNERS for y in WINNERS}
    decided = [(x, y) for x, y in pairs if "tie" not in (x, y)]
    table = np.array([[counts[x, y] for y in WINNERS] for x in WINNERS], dtype=np.float64)
    return Agreement(
        share=_share(sum(x == y for x, y in pairs), len(pairs), confidence),
        decided=_share(sum(x == y for x, y in decided), len(decided), confidence)
        if decided
        else None,
        kappa=_kappa(table, confidence),
        consistency=_share(sum(o.is_consistent for o in outcomes), len(outcomes), confidence)
        if outcomes
        else None,
        counts=counts,
    )


def _winner(value: object, name: str) -> PairWinner:
    for winner in WINNERS:
        if value == winner:
            return winner
    raise ValueError(f"{name} holds {value!r}: give 'a', 'b' or 'tie'")


def _share(agreeing: int, count: int, confidence: float) -> Estimate:
    return wilson_interval(agreeing, count, confidence)


def _kappa(table: NDArray[np.float64], confidence: float) -> Estimate | None:
    """Compute Cohen's kappa of a table of counts, judge by label, shape (3, 3)."""
    count = table.sum()
    shares = table / count
    judge, label = shares.sum(axis=1), shares.sum(axis=0)
    observed, chance = float(np.trace(shares)), float(judge @ label)
    if 1 - chance < 1e-12:
        return None
    kappa = (observed - chance) / (1 - chance)
    rest = 1 - kappa
    same = np.diag(shares) * (1 - (judge + label) * rest) ** 2
    other = shares * (label[:, None] + judge[None, :]) ** 2
    other_sum = float(other.sum() - np.trace(other))
    variance = float(same.sum()) + rest**2 * other_sum - (kappa - chance * rest) ** 2
    error = np.sqrt(max(0.0, variance) / count) / (1 - chance)
    half = float(scipy.stats.norm.ppf((1 + confidence) / 2) * error)
    return Estimate(kappa, max(-1.0, kappa - half), min(1.0, kappa + half), int(count))


def _percent(share: Estimate) -> str:
    return f"{share.value:.1%} [{share.low:.1%}, {share.high:.1%}], n = {share.n}"
