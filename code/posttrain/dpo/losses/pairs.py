"""The log-probabilities of a batch of pairs, checked before a loss is computed from them.

A loss of NaN stops a run, and says nothing of the pair that caused it. Half a gradient stops
nothing at all. Both are found here.

Chapter: dpo/losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 0.1  # nats that a sum of log-probabilities near 0 may lie above it

_POLICY = ("chosen", "rejected")
_REFERENCE = ("ref_chosen", "ref_rejected")
_LENGTHS = ("chosen_lengths", "rejected_lengths")


@dataclass(frozen=True, eq=False)
class PairLogps:
    """Log-probabilities of a batch of pairs: sums over the answers' tokens, in nats.

    A row whose numbers are NaN, infinite or above 0 is refused by its index. So are a
    reference that requires a gradient, and a policy of which one side only does: its other side
    was computed outside of what is differentiated.

    Attributes:
        chosen: Chosen answers under the policy, float32 or float64, shape (B,).
        rejected: Rejected answers under the policy, shape (B,).
        ref_chosen: Chosen answers under the reference, shape (B,); no gradient.
        ref_rejected: Rejected answers under the reference, shape (B,); no gradient.
        chosen_lengths: Tokens of the chosen answers, int64, shape (B,).
        rejected_lengths: Tokens of the rejected answers, int64, shape (B,).

    Chapter: dpo/losses.
    """

    chosen: Tensor
    rejected: Tensor
    ref_chosen: Tensor | None = None
    ref_rejected: Tensor | None = None
    chosen_lengths: Tensor | None = None
    rejected_lengths: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what would give a loss of NaN, or half a gradient."""
        for one, other in (_REFERENCE, _LENGTHS):
            given = [name for name in (one, other) if getattr(self, name) is not None]
            if len(given) == 1:
                raise ValueError(f"of {one} and {other} only {given[0]} is given: give both")
        for name in (*_POLICY, *_REFERENCE, *_LENGTHS):
            if (values := getattr(self, name)) is not None:
                self._check_shape(name, values)
                (_check_lengths if name in _LENGTHS else check_logps)(name, values)
        self._check_gradients()

    def _check_shape(self, name: str, values: Tensor) -> None:
        shape = tuple(values.shape)
        if len(shape) != 1 or not shape[0] or shape != tuple(self.chosen.shape):
            raise ValueError(
                f"{name} has shape {shape} and chosen {tuple(self.chosen.shape)}: give one "
                "number a pair, shape (B,), for at least one pair"
            )

    def _check_gradients(self) -> None:
        for name in _REFERENCE:
            values = getattr(self, name)
            if values is not None and values.requires_grad:
                raise ValueError(
                    f"{name} requires a gradient: compute the reference under "
                    "torch.no_grad(), or detach it"
                )
        if torch.is_grad_enabled() and self.chosen.requires_grad != self.rejected.requires_grad:
            without = "rejected" if self.chosen.requires_grad else "chosen"
            raise ValueError(
                f"{without} requires no gradient and the other side does: compute both inside "
                "of what is differentiated, or both under torch.no_grad()"
            )

    @property
    def reference(self) -> tuple[Tensor, Tensor]:
        """Chosen and rejected answers under the reference."""
        if self.ref_chosen is None or self.ref_rejected is None:
            raise ValueError(
                "the loss compares with a reference and the pairs have none: give ref_chosen "
                "and ref_rejected"
            )
        return self.ref_chosen, self.ref_rejected

    @property
    def lengths(self) -> tuple[Tensor, Tensor]:
        """Tokens of the chosen and of the rejected answers."""
        if self.chosen_lengths is None or self.rejected_lengths is None:
            raise ValueError(
                "the loss divides by the answers' lengths and the pairs have none: give "
                "chosen_lengths and rejected_lengths"
            )
        return self.chosen_lengths, self.rejected_lengths


def check_logps(name: str, logps: Tensor) -> None:
    """Refuse numbers that are no log-probabilities of answers.

    Args:
        name: What they are, for the message.
        logps: Log-probabilities in nats, shape (B,).

    Raises:
        ValueError: If they are in half precision or no floating-point numbers, or if one is
            NaN, infinite or above 0; the message names the row.

    Chapter: dpo/losses.
    """
    if logps.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"{name} is {logps.dtype}: give float32, since 16 bits round the sum over an "
            "answer to whole nats"
        )
    values = logps.detach()
    if (wrong := ~values.isfinite()).any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} of row {row} is {values[row].item()}: look at that row's answer, and at "
            "the logits behind it"
        )
    if (wrong := values > _ROUNDING).any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} of row {row} is {values[row].item():.4g} and a log-probability is at most "
            "0: give log p, not the loss -log p"
        )


def _check_lengths(name: str, lengths: Tensor) -> None:
    if lengths.is_floating_point() or lengths.dtype == torch.bool:
        raise ValueError(f"{name} is {lengths.dtype}: give whole numbers of tokens")
    if (wrong := lengths < 1).any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"{name} of row {row} is {int(lengths[row])}: an answer has at least one token"
        )
