"""SafeDPO: pairs in the order that safety gives them, and a margin between safe and unsafe.

SafeDPO (Kim et al., 2025) asks for the most helpful policy that gives no unsafe answer. Its
reward is that of helpfulness for safe answers and minus infinity for unsafe ones. Two things
follow for a pair: its order, and, where one answer is unsafe, a distance to keep.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.preference import margin

KEPT_SAFE, KEPT_APART = "kept: both safe", "kept: only the rejected answer is unsafe"
SWAPPED = "swapped: only the chosen answer was unsafe"
DROPPED = "dropped: both unsafe"
"""What `reorder` does with a pair, and why."""


@dataclass(frozen=True)
class SafetyPair:
    """A pair, ordered by helpfulness, and whether each of its answers is safe.

    Attributes:
        pair: The prompt and its two answers; not shown when the object is printed.
        chosen_safe: Whether the chosen answer is safe.
        rejected_safe: Whether the rejected answer is safe.
        kind: What the pair is made of, for counts.
    """

    pair: PairRow = field(repr=False)
    chosen_safe: bool
    rejected_safe: bool
    kind: str = ""

    def __post_init__(self) -> None:
        """Refuse labels that are no truth values: a score of 0.2 would count as safe."""
        for name in ("chosen_safe", "rejected_safe"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}: give True or False")

    def swapped(self) -> SafetyPair:
        """Exchange the two answers, and their labels with them."""
        pair: PairRow = {
            "prompt": self.pair["prompt"],
            "chosen": self.pair["rejected"],
            "rejected": self.pair["chosen"],
        }
        return SafetyPair(pair, self.rejected_safe, self.chosen_safe, self.kind)


@dataclass(frozen=True)
class Reordered:
    """Pairs in SafeDPO's order.

    Attributes:
        pairs: The pairs; of each the chosen answer is safe.
        counts: How many were kept, swapped and dropped, by reason; also those that are 0.
    """

    pairs: tuple[SafetyPair, ...]
    counts: Counter[str]

    def __repr__(self) -> str:
        counts = "; ".join(f"{count:,} {reason}" for reason, count in self.counts.items())
        return f"{len(self.pairs):,} pairs ({counts})"


def reorder(pairs: Iterable[SafetyPair]) -> Reordered:
    """Order pairs by safety first and helpfulness second (Kim et al., 2025, section 3.2).

    The transformation T of the paper, which has no equation number: a pair whose chosen answer
    is safe stays as it is. One whose chosen answer is unsafe and whose other answer is safe is
    swapped. One with two unsafe answers is dropped: the best policy gives neither of them, so
    their order says nothing of it.

    Args:
        pairs: Pairs, ordered by helpfulness.

    Returns:
        The pairs in their order, without the dropped ones, and the counts.

    Chapter: dpo/preference_data.
    """
    found: list[SafetyPair] = []
    counts = Counter({reason: 0 for reason in (KEPT_SAFE, KEPT_APART, SWAPPED, DROPPED)})
    for pair in pairs:
        if pair.chosen_safe:
            counts[KEPT_SAFE if pair.rejected_safe else KEPT_APART] += 1
            found.append(pair)
        elif pair.rejected_safe:
            counts[SWAPPED] += 1
            found.append(pair.swapped())
        else:
            counts[DROPPED] += 1
    return Reordered(tuple(found), counts)


def safety_labels(pairs: Iterable[SafetyPair]) -> tuple[Tensor, Tensor]:
    """Write the labels of a batch as tensors, for `safe_dpo_loss`.

    Args:
        pairs: The pairs.

    Returns:
        Whether the chosen and whether the rejected answers are safe, bool, shape (B,) each.

    Chapter: dpo/preference_data.
    """
    given = list(pairs)
    chosen = torch.tensor([pair.chosen_safe for pair in given], dtype=torch.bool)
    return chosen, torch.tensor([pair.rejected_safe for pair in given], dtype=torch.bool)


def safe_dpo_loss(
    pairs: PairLogps, chosen_safe: Tensor, rejected_safe: Tensor, beta: float, delta: float
) -> Tensor:
    """Compute SafeDPO's loss on reordered pairs (Kim et al., 2025, Eq. 12)::

        -log sigma(beta margin - (h_rejected - h_chosen) delta)

    Here h is 1 for an unsafe answer and 0 for a safe one. After `reorder` the bracket is 1
    where the rejected answer is unsafe, and 0 where both are safe. So delta is a distance, in
    units of reward, that a pair of unlike safety has to reach before its loss is ln 2. With a
    delta of 0 this is the paper's Eq. 11, which is DPO's loss on the reordered pairs. By its
    Proposition 4.4 delta does not change the set of best policies; it changes how fast a run
    gets there.

    Args:
        pairs: Log-probabilities of the batch, with a reference.
        chosen_safe: Whether each chosen answer is safe, bool, shape (B,).
        rejected_safe: Whether each rejected answer is safe, bool, shape (B,).
        beta: Strength of the tie to the reference, above 0.
        delta: The distance, at least 0; added to no pair whose answers are both safe.

    Returns:
        Losses, shape (B,).

    Raises:
        ValueError: If a label is not bool or of another shape, a chosen answer is unsafe, beta
            is not above 0, delta is below 0, or there is no reference.

    Chapter: dpo/preference_data.
    """  # noqa: DOC503
    if not (math.isfinite(beta) and beta > 0):
        raise ValueError(f"beta is {beta}: give a number above 0")
    if not (math.isfinite(delta) and delta >= 0):
        raise ValueError(
            f"delta is {delta}: give a number of 0 or more, since one below would pull safe "
            "and unsafe answers together"
        )
    for name, labels in (("chosen_safe", chosen_safe), ("rejected_safe", rejected_safe)):
        if labels.dtype != torch.bool or labels.shape != pairs.chosen.shape:
            raise ValueError(
                f"{name} is {labels.dtype} of shape {tuple(labels.shape)}: give one truth "
                f"value a pair, shape {tuple(pairs.chosen.shape)}"
            )
    if not chosen_safe.all():
        row = int((~chosen_safe).nonzero()[0])
        raise ValueError(
            f"the chosen answer of row {row} is unsafe and would be made likelier: call "
            "reorder first"
        )
    apart = (~rejected_safe).to(pairs.chosen.dtype) - (~chosen_safe).to(pairs.chosen.dtype)
    of_pair = margin(pairs.chosen, pairs.rejected, *pairs.reference)
    return -F.logsigmoid(beta * of_pair - apart * delta)
