"""Conversations laid end to end: no padding, and no attention across their borders.

A batch of rows is usually padded to its longest row, and the padding is computed like any other
token. Here the tokens of all documents form one row without a gap. Every layer but attention
works on single positions and never notices. Attention is given each document by itself.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from posttrain.core.arguments import whole_number
from posttrain.core.training.identity import require_same
from posttrain.sft.chat.masking import IGNORE_INDEX, check_encoded, labels_of
from posttrain.sft.chat.template import EncodedChat


@dataclass(frozen=True)
class PackedBatch:
    """Documents laid end to end.

    Attributes:
        input_ids: All tokens, document after document, shape (N,), int64.
        labels: The token that follows within the same document, where it is trained on, and
            ``IGNORE_INDEX`` elsewhere, shape (N,), int64. A document's last position has none.
        lengths: Tokens of each document, in order.
        stream: Residual stream before ``first_block``, where that is known already, shape
            (N, C).
        first_block: The first block that still has to run.
    """

    input_ids: Tensor
    labels: Tensor
    lengths: tuple[int, ...]
    stream: Tensor | None = None
    first_block: int = 0

    @property
    def longest(self) -> int:
        """Tokens of the longest document, ``T``."""
        return max(self.lengths)

    @property
    def trained_tokens(self) -> int:
        """Positions that have a label."""
        return int((self.labels != IGNORE_INDEX).sum())

    @cached_property
    def slots(self) -> Tensor:
        """Where each token stands in a (documents, ``T``) table, row by row, shape (N,)."""
        table = torch.arange(self.longest).repeat(len(self.lengths), 1)
        inside = table < torch.tensor(self.lengths)[:, None]
        return inside.flatten().nonzero()[:, 0].to(self.input_ids.device)

    def to(self, device: torch.device | str) -> PackedBatch:
        """Move the tensors.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        stream = None if self.stream is None else self.stream.to(device)
        return replace(
            self, input_ids=self.input_ids.to(device), labels=self.labels.to(device),
            stream=stream,
        )  # fmt: skip


def pack(
    examples: Sequence[EncodedChat],
    streams: Sequence[Tensor] | None = None,
    first_block: int = 0,
) -> PackedBatch:
    """Lay conversations end to end.

    Args:
        examples: Token ids, and which of them are trained on.
        streams: Each example's residual stream before ``first_block``, where the blocks below
            are frozen and were run once for all, shape (its tokens, C) each.
        first_block: The first block that still has to run.

    Returns:
        The batch. The first token of a document is never a label: nothing in the document
        stands before it.

    Raises:
        ValueError: If there is no example, one of them has no token to train on, or the streams
            are not those of these examples.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    if not examples:
        raise ValueError("there is nothing to pack: give at least one encoded conversation")
    _check_streams(examples, streams, first_block)
    input_ids: list[int] = []
    labels: list[int] = []
    for example in examples:
        check_encoded(example)
        input_ids += example.input_ids
        labels += [*labels_of(example)[1:], IGNORE_INDEX]  # what follows each position
    return PackedBatch(
        torch.tensor(input_ids),
        torch.tensor(labels),
        tuple(len(example.input_ids) for example in examples),
        None if streams is None else torch.cat(list(streams)),
        first_block,
    )


def _check_streams(
    examples: Sequence[EncodedChat], streams: Sequence[Tensor] | None, first_block: int
) -> None:
    if streams is None:
        if first_block:
            raise ValueError(
                f"first_block is {first_block}, and nothing says what the blocks below give: "
                "pass the streams of frozen_streams too"
            )
        return
    given = [len(stream) for stream in streams]
    needed = [len(example.input_ids) for example in examples]
    if given != needed:
        raise ValueError(
            f"the streams have {given} rows and the examples {needed} tokens: give one stream "
            "for each example, in the same order"
        )


class PackedBatches:
    """Endless batches of whole conversations, shuffled anew in each pass over the data.

    Args:
        examples: The training set.
        batch_size: Conversations per batch; a pass drops the rest that does not fill one.
        seed: Seed of the order. ``None`` keeps the order of the examples in every pass, as a
            comparison with another trainer needs it.
        device: Where batches are delivered.
        streams: See :func:`pack`; one for each example.
        first_block: See :func:`pack`.

    Raises:
        ValueError: If a batch would be empty, the examples do not fill one, or there is not
            one stream for each.

    Chapter: sft/fine_tuning.
    """

    def __init__(
        self,
        examples: Sequence[EncodedChat],
        batch_size: int,
        seed: int | None = 0,
        device: torch.device | str = "cpu",
        streams: Sequence[Tensor] | None = None,
        first_block: int = 0,
    ) -> None:
        if whole_number(batch_size, "batch_size", 1) > len(examples):
            raise ValueError(
                f"batch_size is {batch_size}: give 1 to the number of examples, {len(examples)}"
            )
        if streams is not None and len(streams) != len(examples):
            raise ValueError(
                f"{len(streams)} streams for {len(examples)} examples: give one for each"
            )
        self.examples = examples
        self.batch_size = batch_size
        self.seed = seed
        self.device = device
        self.streams = streams
        self.first_block = first_block
        self.step = 0

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the data."""
        return len(self.examples) // self.batch_size

    def rows(self) -> list[int]:
        """Say which examples the next batch holds.

        Returns:
            Their indices.
        """
        epoch, within = divmod(self.step, self.steps_per_epoch)
        order = torch.arange(len(self.examples))
        if self.seed is not None:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            order = torch.randperm(len(self.examples), generator=generator)
        return order[within * self.batch_size :][: self.batch_size].tolist()

    def __iter__(self) -> PackedBatches:
        return self

    def __next__(self) -> PackedBatch:
        rows = self.rows()
        streams = None if self.streams is None else [self.streams[row] for row in rows]
        batch = pack([self.examples[row] for row in rows], streams, self.first_block)
        self.step += 1
        return batch.to(self.device)

    def state_dict(self) -> dict[str, Any]:
        """Return the position, and whose it is.

        Returns:
            The number of batches delivered; batch size, seed, first block and a hash of the
            examples.
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
            "first_block": self.first_block,
            "data": examples_digest(self.examples),
        }


def examples_digest(examples: Sequence[EncodedChat]) -> str:
    """Hash encoded conversations: their tokens, what is trained of them, and their order.

    Args:
        examples: Encoded conversations.

    Returns:
        A SHA-256, in hexadecimal.

    Chapter: sft/your_model.
    """
    digest = hashlib.sha256()
    for example in examples:
        for part in (example.input_ids, example.assistant_mask):
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(torch.tensor(part, dtype=torch.int64).numpy().data)
    return digest.hexdigest()


def by_length(
    examples: Sequence[EncodedChat], batch_size: int, seed: int = 0, *, pool: int = 50
) -> list[EncodedChat]:
    """Order conversations so that those of a padded batch are of nearly the same length.

    A trainer that pads fills each batch to its longest row. Conversations are shuffled and cut
    into pools of some batches; each pool is sorted by length and cut into batches, and the
    batches are shuffled. The batch that needs the most memory comes first, so that a run which
    does not fit fails at once. What does not fill a batch stands at the end.

    Args:
        examples: Encoded conversations.
        batch_size: Conversations of a micro-batch.
        seed: Seed of the order.
        pool: Batches that are sorted together; 1 leaves the order to chance.

    Returns:
        The same conversations in another order.

    Raises:
        ValueError: If ``batch_size`` or ``pool`` is below 1.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    batch_size, pool = whole_number(batch_size, "batch_size", 1), whole_number(pool, "pool", 1)
    rng = random.Random(seed)
    order = rng.sample(list(examples), len(examples))
    full = len(order) - len(order) % batch_size
    batches: list[list[EncodedChat]] = []
    for start in range(0, full, pool * batch_size):
        together = order[start : min(start + pool * batch_size, full)]
        together.sort(key=lambda example: len(example.input_ids))
        batches += [together[i : i + batch_size] for i in range(0, len(together), batch_size)]
    rng.shuffle(batches)
    if batches:
        widest = max(range(len(batches)), key=lambda i: len(batches[i][-1].input_ids))
        batches[0], batches[widest] = batches[widest], batches[0]
    return [example for batch in batches for example in batch] + order[full:]
