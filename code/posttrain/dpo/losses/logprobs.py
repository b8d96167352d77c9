"""The log-probability of an answer: what every preference loss is computed from.

Chapter: dpo/losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from posttrain.sft.chat.masking import IGNORE_INDEX


@dataclass(frozen=True)
class SequenceLogps:
    """Log-probabilities of answers.

    Attributes:
        sums: Sum over the answer's tokens, in nats, shape (B,); float32, or float64
            where the logits are.
        counts: Tokens of each answer, int64, shape (B,).

    Chapter: dpo/losses.
    """

    sums: Tensor
    counts: Tensor

    @property
    def means(self) -> Tensor:
        """The log-probability of the average token, in nats, shape (B,)."""
        return self.sums / self.counts


def sequence_logps(logits: Tensor, labels: Tensor) -> SequenceLogps:
    """Sum the log-probabilities of each answer's tokens.

    The shift is made here: ``logits[:, t]`` predict ``labels[:, t + 1]``. So labels are the
    token ids themselves, with ``IGNORE_INDEX`` wherever a token is no part of the answer. Only
    logits that predict an answer's token are copied to float32, one row at a time. Those of the
    prompt and of padding are not read, and may be anything.

    Args:
        logits: Shape (B, T, V).
        labels: Token ids, or ``IGNORE_INDEX`` outside the answer, int64, shape (B, T).

    Returns:
        Sums and counts. The sums carry the gradient.

    Raises:
        ValueError: If the shapes do not fit, if a row has no answer, if an answer begins at
            position 0, where no logits predict it, or if a label is no token of the vocabulary.

    Chapter: dpo/losses.
    """
    if logits.dim() != 3 or labels.shape != logits.shape[:2]:
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and labels {tuple(labels.shape)}: give "
            "(B, T, V) and (B, T)"
        )
    answer = labels != IGNORE_INDEX  # (B, T)
    _check_answers(labels, answer, logits.shape[-1])
    sums = []
    for row_logits, row_labels, row in zip(
        logits[:, :-1], labels[:, 1:], answer[:, 1:], strict=True
    ):
        kept = row_logits[row]  # (m, V)
        kept = kept.to(torch.promote_types(kept.dtype, torch.float32))
        own = kept.gather(-1, row_labels[row, None]).squeeze(-1)  # (m,)
        sums.append((own - kept.logsumexp(dim=-1)).sum())
    return SequenceLogps(torch.stack(sums), answer.sum(dim=1))


def _check_answers(labels: Tensor, answer: Tensor, vocab_size: int) -> None:
    if not len(labels):
        raise ValueError("the batch has no rows: give at least one")
    if (empty := ~answer.any(dim=1)).any():
        raise ValueError(
            f"row {_first(empty)} has no answer: all its labels are {IGNORE_INDEX}, as "
            "after a cut that left the prompt alone; drop the row"
        )
    if answer[:, 0].any():
        raise ValueError(
            f"row {_first(answer[:, 0])} is an answer from position 0 on, and no logits "
            "predict that token: put at least one token, such as BOS, before it"
        )
    outside = (answer & ((labels < 0) | (labels >= vocab_size))).any(dim=1)
    if outside.any():
        raise ValueError(
            f"row {_first(outside)} has a label outside the vocabulary of {vocab_size} tokens: "
            f"give token ids, or {IGNORE_INDEX} outside the answer"
        )


def _first(rows: Tensor) -> int:
    return int(rows.nonzero()[0])
