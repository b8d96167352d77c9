"""Our losses and TRL's trainers on the same drawn batches: values, and every gradient.

A batch goes through TRL's own collator and ``compute_loss``, and through our masks, sums and
losses with padding of our own. Model and reference are the same objects in both. Most batches
use a table as the model: the logits of a token's successor are a row of it. It is a language
model small enough to compare hundreds of batches in seconds. Some use a Llama of transformers,
in float64: in float32 its attention rounds otherwise under another padding, and a small beta of
IPO multiplies that.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.kto import kl_estimate, kto_loss, mismatched_rows
from posttrain.dpo.losses.logprobs import SequenceLogps, sequence_logps
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.parity_draws import (
    DrawnBatch,
    Row,
    draw_batch,
    llama_pair,
    table_pair,
)
from posttrain.dpo.losses.parity_trl import trl_loss
from posttrain.dpo.losses.preference import preference_loss
from posttrain.sft.chat.masking import IGNORE_INDEX

MODELS = {"table": table_pair, "llama": llama_pair}
_PAD = 0  # a token like any other too: nothing may be read off an id


@dataclass(frozen=True)
class ParityRow:
    """One drawn batch through both.

    Attributes:
        variant: One of ``VARIANTS``.
        config: The loss with its drawn settings.
        model: One of ``MODELS``.
        answers: Answers in the batch.
        value: Difference of the losses, as a share of 1 + theirs.
        gradient: Largest difference of a gradient's entry, as a share of 1 + theirs. The
            reference's parameters are among them, where theirs is 0.
        gradient_size: Largest entry of their gradient, which says what the difference means.

    Chapter: dpo/losses.
    """

    variant: str
    config: PreferenceLossConfig
    model: str
    answers: int
    value: float
    gradient: float
    gradient_size: float


def compare(seed: int, model: str = "table") -> ParityRow:
    """Draw a batch, a model and a reference, and compare loss and gradients with TRL's.

    Args:
        seed: Seed of all draws.
        model: One of ``MODELS``.

    Returns:
        What was found.

    Raises:
        ValueError: If there is no such model.

    Chapter: dpo/losses.
    """
    if model not in MODELS:
        raise ValueError(f"there is no model {model!r}: choose one of {', '.join(MODELS)}")
    batch = draw_batch(seed)
    policy, reference = MODELS[model](seed)
    parameters = [*policy.parameters(), *reference.parameters()]
    own, theirs = our_loss(batch, policy, reference), trl_loss(batch, policy, reference)
    pairs = list(zip(_gradients(own, parameters), _gradients(theirs, parameters), strict=True))
    return ParityRow(
        variant=batch.variant,
        config=batch.config,
        model=model,
        answers=len(batch.rows),
        value=_worst(own, theirs),
        gradient=max(_worst(one, other) for one, other in pairs),
        gradient_size=max(other.abs().max().item() for _, other in pairs),
    )


def summary(rows: Iterable[ParityRow]) -> tuple[int, float, float]:
    """Sum up comparisons: their number, and the worst differences.

    Args:
        rows: What :func:`compare` gave, at least one.

    Returns:
        Number of batches, worst difference in value, worst difference in gradient.

    Chapter: dpo/losses.
    """
    found = list(rows)
    return len(found), max(row.value for row in found), max(row.gradient for row in found)


def _gradients(loss: Tensor, parameters: list[nn.Parameter]) -> list[Tensor]:
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return [torch.zeros_like(p) if gradient is None else gradient for gradient, p in pairs]


def _worst(own: Tensor, theirs: Tensor) -> float:
    """NaN is larger than any bound here, so that it fails the comparison."""
    gap = ((own - theirs).abs() / (1 + theirs.abs())).max().item()
    return gap if gap == gap else float("inf")


def our_loss(batch: DrawnBatch, policy: nn.Module, reference: nn.Module) -> Tensor:
    """Compute our mean loss of a batch, chosen and rejected answers padded apart.

    Args:
        batch: The batch.
        policy: The model that is trained: takes token ids and returns logits.
        reference: The model to compare with.

    Returns:
        The loss, a scalar.

    Chapter: dpo/losses.
    """
    rows, side, config = batch.rows, batch.padding_side, batch.config
    if batch.variant == "kto":
        moved = [
            (prompt, rows[other][1])
            for (prompt, _), other in zip(rows, mismatched_rows(range(len(rows))), strict=True)
        ]
        kl = kl_estimate(
            _frozen(policy, moved, side).sums, _frozen(reference, moved, side).sums
        )
        losses = kto_loss(
            _answers(policy, rows, side).sums, _frozen(reference, rows, side).sums,
            torch.tensor(batch.desirable), kl, config.beta,
            config.desirable_weight, config.undesirable_weight,
        )  # fmt: skip
        return losses.mean()
    n = len(rows) // 2
    chosen, rejected = _answers(policy, rows[:n], side), _answers(policy, rows[n:], side)
    pairs = PairLogps(
        chosen.sums,
        rejected.sums,
        _frozen(reference, rows[:n], side).sums if config.needs.reference else None,
        _frozen(reference, rows[n:], side).sums if config.needs.reference else None,
        chosen.counts,
        rejected.counts,
    )
    return preference_loss(config, pairs).mean()


def _answers(model: nn.Module, rows: Sequence[Row], side: str) -> SequenceLogps:
    """Run rows as one padded batch."""
    length = max(len(prompt) + len(answer) for prompt, answer in rows)

    def padded(values: list[int], filler: int) -> Tensor:
        gap = length - len(values)
        before, after = (gap, 0) if side == "left" else (0, gap)
        return F.pad(torch.tensor(values), (before, after), value=filler)

    ids = torch.stack([padded([*prompt, *answer], _PAD) for prompt, answer in rows])
    mask = torch.stack([padded([1] * len(prompt + answer), 0) for prompt, answer in rows])
    labels = torch.stack(
        [padded([IGNORE_INDEX] * len(p) + answer, IGNORE_INDEX) for p, answer in rows]
    )
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    return sequence_logps(logits, labels)


def _frozen(model: nn.Module, rows: Sequence[Row], side: str) -> SequenceLogps:
    with torch.no_grad():
        return _answers(model, rows, side)
