"""posttrain.sft.exercises.loss: right answers, and every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.exercises import loss as exercises
from posttrain.sft.exercises.loss import BATCH_LOSS, grade_batch_loss
from posttrain.sft.training.loss import masked_nll


def in_python(losses: Tensor, mask: Tensor) -> float:
    pairs = zip(losses.flatten().tolist(), mask.flatten().tolist(), strict=True)
    trained = [loss for loss, one in pairs if one]
    return sum(trained) / len(trained)


def rows(losses: Tensor, mask: Tensor, empty: float | None) -> float:
    """Average rows; ``empty`` is the mean of a row that trains nothing, None skips it."""
    means = [in_python(x, m) if m.any() else empty for x, m in zip(losses, mask, strict=True)]
    kept = [mean for mean in means if mean is not None]
    return sum(kept) / len(kept)


def means(losses: Tensor, mask: Tensor) -> Tensor:
    return torch.stack([x[m].mean() for x, m in zip(losses, mask, strict=True)])


WRONG_LOSSES = [
    (lambda x, m: rows(x, m, math.nan), "You averaged each row, then the rows"),
    (lambda x, m: rows(x, m, None), "You averaged each row, then the rows"),
    (lambda x, m: rows(x, m, 0.0), "You averaged each row, then the rows"),
    (lambda x, m: torch.where(m, x, 0).mean(), "You divided by the number of all tokens"),
    (lambda x, m: x[m].sum(), "You returned the sum"),
    (lambda x, m: x.sum() / x.numel(), "You did not apply the mask"),
    (lambda x, m: float(x.sum()) / int(m.sum()), "You summed the losses of all tokens and"),
    (lambda x, m: x[m].sum() / x.shape[0], "You divided by the number of rows"),
    (lambda x, m: x[m.logical_not()].mean(), "Your mask is inverted"),
    (lambda x, m: x[:, :-1][m[:, 1:]].mean(), "You shifted the mask"),
    (lambda x, m: x[:, 1:][m[:, :-1]].mean(), "You shifted the mask"),
    (lambda x, m: x[:, 1:][m[:, 1:]].mean(), "You left out the first position"),
    (lambda x, m: rows(x.T, m.T, None), "You averaged each column"),
    (lambda x, m: -x[m].mean(), "Your sign is wrong"),
    (lambda x, m: x[m].sum() / sum(1 for r in m if r.any()), "You divided by the number of r"),
    (lambda x, m: (means(x, m) * m.sum(1) / m.sum()).sum(), "A row of the batch trains"),
]


def test_batch_loss() -> None:
    assert grade_batch_loss(in_python).passed
    assert grade_batch_loss(lambda x, m: (x * m).sum() / m.sum()).passed
    told = []
    for function, sentence in WRONG_LOSSES:
        result = grade_batch_loss(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in BATCH_LOSS}
    double = grade_batch_loss(lambda x, m: 2 * in_python(x, m))
    assert double.message.startswith("Your function returned ")
    assert double.message.endswith("token_losses of shape (2, 8), mask of shape (2, 8).")


def test_the_right_loss_is_the_one_of_masked_nll() -> None:
    labels = torch.tensor([[-100, 3, 1, 4, 1], [-100, -100, -100, 5, -100]])
    logits = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    total, count = masked_nll(logits, labels)
    losses = F.cross_entropy(logits.mT, labels.clamp(min=0), reduction="none")
    mean = exercises._batch_loss(losses, labels != IGNORE_INDEX)
    assert mean == pytest.approx(total.item() / count)
    assert mean != pytest.approx(rows(losses, labels != IGNORE_INDEX, None))
