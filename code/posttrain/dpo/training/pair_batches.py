"""Batches of pairs, laid end to end: each prompt once, then both of its answers.

A padded batch holds every prompt twice and its padding beside. Here a pair is one document, and
documents lie end to end as in Stage 1. The reference's log-probabilities come with the pairs:
the reference never changes, so they are computed once.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from posttrain.core.arguments import whole_number
from posttrain.core.training.identity import require_same
from posttrain.dpo.data.shared_prompt import CHOSEN, REJECTED, pack_pair
from posttrain.dpo.data.tokenizing import EncodedPair


@dataclass(frozen=True)
class ReferenceLogps:
    """What the reference says of some pairs.

    Attributes:
        chosen: Sum over each chosen answer, in nats, shape (B,), float32.
        rejected: Sum over each rejected answer, shape (B,), float32.
    """

    chosen: Tensor
    rejected: Tensor

    def __post_init__(self) -> None:
        """Refuse what a loss could not be compared with."""
        if self.chosen.shape != self.rejected.shape or self.chosen.dim() != 1:
            raise ValueError(
                f"chosen has shape {tuple(self.chosen.shape)} and rejected "
                f"{tuple(self.rejected.shape)}: give one number a pair, shape (B,)"
            )

    def __len__(self) -> int:
        return len(self.chosen)

    def rows(self, indices: Sequence[int]) -> ReferenceLogps:
        """Take some pairs.

        Args:
            indices: Which ones.

        Returns:
            Their log-probabilities, in that order.
        """
        chosen = torch.tensor(list(indices), dtype=torch.int64)
        return ReferenceLogps(self.chosen[chosen], self.rejected[chosen])


@dataclass(frozen=True)
class PackedPairs:
    """Pairs laid end to end; N tokens in all, of which M belong to answers.

    Attributes:
        input_ids: All tokens, shape (N,), int64.
        position_ids: Position of each token in its own sequence, shape (N,), int64.
        parts: ``PROMPT``, ``CHOSEN`` or ``REJECTED``, shape (N,), int64.
        lengths: Tokens of each pair.
        sources: Place of the token whose logits predict an answer's token, shape (M,), int64.
        targets: The answers' tokens, shape (M,), int64.
        owners: Whose they are, shape (M,), int64: ``b`` for the chosen answer of pair ``b``,
            ``B + b`` for its rejected one.
        reference: What the reference says of these pairs, where that is known.
    """

    input_ids: Tensor
    position_ids: Tensor
    parts: Tensor
    lengths: tuple[int, ...]
    sources: Tensor
    targets: Tensor
    owners: Tensor
    reference: ReferenceLogps | None = None

    @property
    def pairs(self) -> int:
        """Number of pairs, ``B``."""
        return len(self.lengths)

    @property
    def longest(self) -> int:
        """Tokens of the longest pair, ``T``."""
        return max(self.lengths)

    @cached_property
    def counts(self) -> Tensor:
        """Tokens of each answer, the chosen ones first, shape (2B,), int64."""
        return torch.bincount(self.owners, minlength=2 * self.pairs)

    @cached_property
    def slots(self) -> Tensor:
        """Where each token stands in a (B, ``T``) table, row by row, shape (N,)."""
        table = torch.arange(self.longest).repeat(self.pairs, 1)
        inside = table < torch.tensor(self.lengths)[:, None]
        return inside.flatten().nonzero()[:, 0].to(self.input_ids.device)

    def to(self, device: torch.device | str) -> PackedPairs:
        """Move the tensors.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        moved: dict[str, Any] = {
            field.name: value.to(device)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        if self.reference is not None:
            chosen, rejected = self.reference.chosen, self.reference.rejected
            moved["reference"] = ReferenceLogps(chosen.to(device), rejected.to(device))
        return replace(self, **moved)


def pack_pairs(
    pairs: Sequence[EncodedPair], reference: ReferenceLogps | None = None
) -> PackedPairs:
    """Lay pairs end to end.

    Args:
        pairs: The pairs.
        reference: What the reference says of them.

    Returns:
        The batch.

    Raises:
        ValueError: If there is no pair, or the reference has another number of them.

    Chapter: dpo/alignment.
    """
    if not pairs:
        raise ValueError("there is nothing to pack: give at least one pair")
    if reference is not None and len(reference) != len(pairs):
        raise ValueError(
            f"{len(reference)} log-probabilities of the reference for {len(pairs)} pairs: give "
            "one for each"
        )
    rows = [pack_pair(pair) for pair in pairs]
    sources, targets, owners = [], [], []
    start = 0
    for index, row in enumerate(rows):
        for part, owner in ((CHOSEN, index), (REJECTED, len(rows) + index)):
            own = row.parts == part
            sources.append(row.predicted_by[own] + start)
            targets.append(row.input_ids[own])
            owners.append(torch.full_like(targets[-1], owner))
        start += len(row.input_ids)
    return PackedPairs(
        input_ids=torch.cat([row.input_ids for row in rows]),
        position_ids=torch.cat([row.position_ids for row in rows]),
        parts=torch.cat([row.parts for row in rows]),
        lengths=tuple(len(row.input_ids) for row in rows),
        sources=torch.cat(sources),
        targets=torch.cat(targets),
        owners=torch.cat(owners),
        reference=reference,
    )


class PairBatches:
    """Endless batches of pairs, shuffled anew in each pass over the data.

    Args:
        pairs: The training set.
        batch_size: Pairs per batch; a pass drops the rest that does not fill one.
        seed: Seed of the order. ``None`` keeps the order of the pairs in every pass, as a
            comparison with another trainer needs it.
        reference: What the reference says of the pairs; a loss without a reference needs none.
        device: Where batches are delivered.

    Raises:
        ValueError: If a batch would be empty, the pairs do not fill one, or the reference has
            another number of pairs.

    Chapter: dpo/alignment.
    """

    def __init__(
        self,
        pairs: Sequence[EncodedPair],
        batch_size: int,
        seed: int | None = 0,
        reference: ReferenceLogps | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        if whole_number(batch_size, "batch_size", 1) > len(pairs):
            raise ValueError(
                f"batch_size is {batch_size}: give 1 to the number of pairs, {len(pairs)}"
            )
        if reference is not None and len(reference) != len(pairs):
            raise ValueError(
                f"{len(reference)} log-probabilities of the reference for {len(pairs)} pairs: "
                "give one for each"
            )
        self.pairs = pairs
        self.batch_size = batch_size
        self.seed = seed
        self.reference = reference
        self.device = device
        self.step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the data."""
        return len(self.pairs) // self.batch_size

    def rows(self) -> list[int]:
        """Say which pairs the next batch holds.

        Returns:
            Their indices.
        """
        epoch, within = divmod(self.step, self.steps_per_epoch)
        order = torch.arange(len(self.pairs))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.pairs), generator=generator)
        return order[within * self.batch_size :][: self.batch_size].tolist()

    def __iter__(self) -> PairBatches:
        return self

    def __next__(self) -> PackedPairs:
        rows = self.rows()
        reference = None if self.reference is None else self.reference.rows(rows)
        batch = pack_pairs([self.pairs[row] for row in rows], reference)
        self.step += 1
        return batch.to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and whose it is.

        Returns:
            The number of batches delivered; batch size, seed and a hash of the pairs and of
            what the reference says of them.
        """
        return {"step": self.step, **self._identity}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position.

        Args:
            state: What :meth:`state_dict` returned.

        Raises:
            ValueError: If it belongs to batches of another size, order or data.
        """  # noqa: DOC502
        require_same(state, self._identity)
        self.step = int(state["step"])

    @cached_property
    def _identity(self) -> dict[str, Any]:
        return {
            "batch_size": self.batch_size,
            "seed": self.seed,
            "data": pairs_digest(self.pairs, self.reference),
        }


def pairs_digest(pairs: Sequence[EncodedPair], reference: ReferenceLogps | None = None) -> str:
    """Hash pairs: their tokens, their order, and what the reference says of them.

    Args:
        pairs: Encoded pairs.
        reference: Log-probabilities of the reference.

    Returns:
        A SHA-256, in hexadecimal.

    Chapter: dpo/alignment.
    """
    digest = hashlib.sha256()
    for pair in pairs:
        for part in (pair.prompt_ids, pair.chosen_ids, pair.rejected_ids):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(torch.tensor(part, dtype=torch.int64).numpy().data)
    if reference is not None:
        for part_of in (reference.chosen, reference.rejected):
            digest.update(part_of.detach().float().cpu().numpy().data)
    return digest.hexdigest()
