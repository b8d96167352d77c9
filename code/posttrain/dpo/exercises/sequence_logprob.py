"""The grader of the exercise about the log-probability of an answer.

Chapter: dpo/losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.dpo.losses.logprobs import sequence_logps
from posttrain.sft.chat.masking import IGNORE_INDEX

_Logps = Callable[[Tensor, Tensor], Tensor]


def _sums(logits: Tensor, labels: Tensor) -> Tensor:
    return sequence_logps(logits, labels).sums


def _tokens(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probability of the label at each position, 0 for the id of what is left out."""
    return logits.log_softmax(dim=-1).gather(-1, labels.clamp(min=0)[..., None]).squeeze(-1)


def _masked(logits: Tensor, labels: Tensor) -> Tensor:
    """Log-probabilities after the shift, 0 outside the answer, shape (B, T - 1)."""
    return _tokens(logits[:, :-1], labels[:, 1:]) * (labels[:, 1:] != IGNORE_INDEX)


def _with_mask(mask: Callable[[Tensor], Tensor]) -> _Logps:
    """Make the sum with another mask over the shifted positions."""
    return lambda x, y: (_tokens(x[:, :-1], y[:, 1:]) * mask(y)).sum(dim=1)


def _span(labels: Tensor, row: int) -> tuple[int, int]:
    places = (labels[row] != IGNORE_INDEX).nonzero()
    return int(places[0]), int(places[-1]) + 1


def _mask_of_row_0(labels: Tensor) -> Tensor:
    return (labels[:1, 1:] != IGNORE_INDEX).expand_as(labels[:, 1:])


def _from_the_start_of_row_0(labels: Tensor) -> Tensor:
    """Count what stands behind the first row's prompt, padding too."""
    return (torch.arange(1, labels.shape[1]) >= _span(labels, 0)[0]).expand_as(labels[:, 1:])


def _to_the_end(labels: Tensor) -> Tensor:
    """Count from each row's first answer token on, padding on the right too."""
    starts = torch.tensor([_span(labels, row)[0] for row in range(len(labels))])
    return torch.arange(1, labels.shape[1])[None, :] >= starts[:, None]


def _last_positions(labels: Tensor) -> Tensor:
    """Count as many positions as the answer has, from the row's end."""
    T, counts = labels.shape[1], (labels != IGNORE_INDEX).sum(dim=1)
    return torch.arange(1, T)[None, :] >= T - counts[:, None]


_SHIFT = (
    "Your mask is off by one: the logits at position t predict the token at t + 1, so compare "
    "`logits[:, :-1]` with `labels[:, 1:]`."
)
_MASK_SHIFT = (
    "Your mask is off by one against the labels: after the shift, a position counts where "
    "`labels[:, 1:]` is not -100."
)
_PADDED = (
    "You took one mask for all rows: chosen and rejected answers are padded differently, and "
    "each row's own labels say where its answer stands."
)
_PADDING = (
    "You counted padding: an answer ends where its labels do, and rows are padded on either "
    "side."
)
SEQUENCE_LOGPROB = [
    Mistake(
        "You took the mean over the answer's tokens: DPO's equation has the probability of the "
        "whole answer, and its log is the sum.",
        lambda x, y: _masked(x, y).sum(dim=1) / (y[:, 1:] != IGNORE_INDEX).sum(dim=1),
    ),
    Mistake(
        "You took the mean over all positions, padding and prompt too: take the sum over the "
        "answer's tokens.",
        lambda x, y: _masked(x, y).mean(dim=1),
    ),
    Mistake(
        "You counted the prompt's tokens and padding: add up only where the label is not -100.",
        _with_mask(lambda y: torch.ones_like(y[:, 1:])),
    ),
    Mistake(_SHIFT, lambda x, y: (_tokens(x, y) * (y != IGNORE_INDEX)).sum(dim=1)),
    Mistake(
        "You shifted the wrong way: the logits at position t predict the token at t + 1, so "
        "drop the last logits and the first label.",
        lambda x, y: (_tokens(x[:, 1:], y[:, :-1]) * (y[:, :-1] != IGNORE_INDEX)).sum(dim=1),
    ),
    Mistake(_MASK_SHIFT, _with_mask(lambda y: y[:, :-1] != IGNORE_INDEX)),
    Mistake(
        "You left out the first token of each answer: the last logits of the prompt predict "
        "it, and it counts.",
        _with_mask(lambda y: (y[:, 1:] != IGNORE_INDEX) & (y[:, :-1] != IGNORE_INDEX)),
    ),
    Mistake(_PADDED, _with_mask(_mask_of_row_0)),
    Mistake(_PADDED, _with_mask(_from_the_start_of_row_0)),
    Mistake(_PADDING, _with_mask(_to_the_end)),
    Mistake(_PADDING, _with_mask(_last_positions)),
    Mistake(
        "You added up logits: they become log-probabilities through `log_softmax` over the "
        "vocabulary.",
        lambda x, y: (
            x[:, :-1].gather(-1, y[:, 1:].clamp(min=0)[..., None]).squeeze(-1)
            * (y[:, 1:] != IGNORE_INDEX)
        ).sum(dim=1),
    ),
    Mistake(
        "You added up probabilities: the log-probability of an answer is the sum of the logs.",
        lambda x, y: (_tokens(x[:, :-1], y[:, 1:]).exp() * (y[:, 1:] != IGNORE_INDEX)).sum(
            dim=1
        ),
    ),
    Mistake(
        "Your sign is wrong: you returned -log p, the loss, and a log-probability is below 0.",
        lambda x, y: -_masked(x, y).sum(dim=1),
    ),
    Mistake(
        "You added up the whole batch: return one number a row, shape (B,).",
        lambda x, y: _masked(x, y).sum(),
    ),
    Mistake(
        "You returned the log-probabilities of single tokens: add them up along each row.",
        _masked,
    ),
    Mistake(
        "Your mask is inverted: you added up what is no part of the answer.",
        _with_mask(lambda y: y[:, 1:] == IGNORE_INDEX),
    ),
]


def grade_sequence_logprob(fn: _Logps) -> Grade:
    """Grade the log-probability of each answer of a batch.

    Args:
        fn: Takes logits, float32, shape (B, T, V), and labels, int64, shape (B, T): the token
            ids themselves, not shifted, with -100 on the prompt and on padding, which may stand
            on either side. Returns the sums over each answer's tokens, in nats, shape (B,).

    Returns:
        The grade.

    Chapter: dpo/losses.
    """
    spans = [
        (9, [(3, 9), (4, 6)]),  # padded on the right
        (8, [(5, 8), (2, 8), (6, 8)]),  # padded on the left
        (7, [(2, 4)]),
        (10, [(1, 4), (6, 10), (3, 8), (5, 6)]),  # both
    ]
    cases = []
    for seed, (T, answers) in enumerate(spans):
        ids = torch.randint(
            11, (len(answers), T), generator=torch.Generator().manual_seed(seed)
        )
        labels = torch.full_like(ids, IGNORE_INDEX)
        for row, (start, end) in enumerate(answers):
            labels[row, start:end] = ids[row, start:end]
        cases.append((2 * random_numbers(len(answers), T, 11, seed=seed), labels))
    return grade(fn, _sums, SEQUENCE_LOGPROB, cases)
