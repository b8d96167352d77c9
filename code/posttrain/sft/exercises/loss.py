"""The grader of the exercise about the loss of a batch.

The reader writes a function and hands it to its grader, which names the mistake that it
recognizes. See ``posttrain.core.grading``.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers


def _batch_loss(token_losses: Tensor, mask: Tensor) -> float:
    return (token_losses[mask].sum() / mask.sum()).item()


def _row_means(losses: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row, NaN where nothing is trained; shape (B,)."""
    return (losses * mask).sum(dim=1) / mask.sum(dim=1)


_ROWS = (
    "You averaged each row, then the rows: a token of a short answer counts for more than one "
    "of a long answer. Divide the sum over the batch by the trained tokens of the batch."
)
BATCH_LOSS = [
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).mean().item()),
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).nanmean().item()),
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).nan_to_num().mean().item()),
    Mistake(
        "You divided by the number of all tokens: divide by the number of trained ones.",
        lambda losses, mask: (losses * mask).mean().item(),
    ),
    Mistake(
        "You returned the sum: divide it by the number of trained tokens.",
        lambda losses, mask: (losses * mask).sum().item(),
    ),
    Mistake(
        "You did not apply the mask: the prompt's tokens are in your mean.",
        lambda losses, mask: losses.mean().item(),
    ),
    Mistake(
        "You summed the losses of all tokens and divided by the number of trained ones: the "
        "mask belongs to the sum too.",
        lambda losses, mask: (losses.sum() / mask.sum()).item(),
    ),
    Mistake(
        "You divided by the number of rows: that is the loss of a conversation, and long "
        "answers make it large. Divide by the number of trained tokens.",
        lambda losses, mask: ((losses * mask).sum() / len(losses)).item(),
    ),
    Mistake(
        "Your mask is inverted: you averaged what is not trained.",
        lambda losses, mask: losses[~mask].mean().item(),
    ),
    Mistake(
        "You shifted the mask: entry t of the mask belongs to loss t.",
        lambda losses, mask: _batch_loss(losses[:, :-1], mask[:, 1:]),
    ),
    Mistake(
        "You shifted the mask: entry t of the mask belongs to loss t.",
        lambda losses, mask: _batch_loss(losses[:, 1:], mask[:, :-1]),
    ),
    Mistake(
        "You left out the first position: it counts where its mask is true. The shift of the "
        "labels was made before these losses were computed.",
        lambda losses, mask: _batch_loss(losses[:, 1:], mask[:, 1:]),
    ),
    Mistake(
        "You averaged each column, then the columns: divide the sum over the batch by the "
        "trained tokens of the batch.",
        lambda losses, mask: _row_means(losses.T, mask.T).nanmean().item(),
    ),
    Mistake(
        "Your sign is wrong: these are losses already, -log p.",
        lambda losses, mask: -_batch_loss(losses, mask),
    ),
    Mistake(
        "You divided by the number of rows that train something: that is the loss of a "
        "conversation. Divide by the number of trained tokens.",
        lambda losses, mask: ((losses * mask).sum() / mask.any(dim=1).sum()).item(),
    ),
    Mistake(
        "A row of the batch trains nothing, and its mean is 0/0, which is NaN: sum over the "
        "whole batch first, then divide once.",
        lambda losses, mask: (
            (_row_means(losses, mask) * mask.sum(dim=1)).sum() / mask.sum()
        ).item(),
    ),
]


def grade_batch_loss(fn: Callable[[Tensor, Tensor], float]) -> Grade:
    """Grade the mean loss per trained token of a batch.

    Args:
        fn: Takes the loss of each token in nats, float32, shape (B, T), and a boolean mask of
            that shape, true where the token is trained; returns the mean over the trained
            tokens of the batch, a float or a tensor of one number.

    Returns:
        The grade.

    Chapter: sft/fine_tuning.
    """
    masks = [
        [[0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0]],
        [[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]],
        [[0, 0, 1, 1, 0]],
        [[1, 1, 0, 1], [1, 0, 0, 0]],  # all that is left of two cut conversations
        [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]],  # the middle row trains nothing
    ]
    cases = []
    for seed, rows in enumerate(masks):
        mask = torch.tensor(rows, dtype=torch.bool)
        cases.append((4 * random_numbers(*mask.shape, seed=seed).abs(), mask))

    def reference(token_losses: Tensor, mask: Tensor) -> float:
        return _batch_loss(token_losses, mask)

    return grade(fn, reference, BATCH_LOSS, cases)
