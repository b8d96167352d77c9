"""posttrain.dpo.exercises.sequence_logprob: right answers, and every named wrong one."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from posttrain.dpo.exercises.sequence_logprob import SEQUENCE_LOGPROB, grade_sequence_logprob


def in_loops(logits: Tensor, labels: Tensor) -> Tensor:
    sums = []
    for x, y in zip(logits, labels, strict=True):
        terms = [x[t - 1].log_softmax(0)[y[t]] for t in range(1, len(y)) if y[t] != -100]
        sums.append(torch.stack(terms).sum())
    return torch.stack(sums)


def by_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return -F.cross_entropy(logits[:, :-1].mT, labels[:, 1:], reduction="none").sum(dim=1)


def logps(x: Tensor, y: Tensor) -> Tensor:
    """Log-probability of label t under logits t; any number where the label is -100."""
    return torch.take_along_dim(x.log_softmax(-1), y.clamp(0)[..., None], -1)[..., 0]


def shifted(x: Tensor, y: Tensor) -> Tensor:
    return logps(x[:, :-1], y[:, 1:])


def by_slices(x: Tensor, y: Tensor, spans) -> Tensor:
    return torch.stack(
        [shifted(x, y)[row, a - 1 : b - 1].sum() for row, (a, b) in enumerate(spans)]
    )


def span(y: Tensor) -> tuple[int, int]:
    places = [t for t, label in enumerate(y.tolist()) if label != -100]
    return places[0], places[-1] + 1


def answer(y: Tensor) -> Tensor:
    return (y[:, 1:] != -100).float()


WRONG = [
    (
        lambda x, y: (shifted(x, y) * answer(y)).sum(1) / answer(y).sum(1),
        "You took the mean over the answer",
    ),
    (lambda x, y: (shifted(x, y) * answer(y)).mean(1), "You took the mean over all positions"),
    (lambda x, y: shifted(x, y).sum(1), "You counted the prompt's tokens and padding"),
    (
        lambda x, y: (logps(x, y) * (y != -100)).sum(1),
        "Your mask is off by one: the logits at position",
    ),
    (
        lambda x, y: (logps(x[:, 1:], y[:, :-1]) * (y[:, :-1] != -100)).sum(1),
        "You shifted the wrong way",
    ),
    (
        lambda x, y: (shifted(x, y) * (y[:, :-1] != -100)).sum(1),
        "Your mask is off by one against the labels",
    ),
    (
        lambda x, y: by_slices(x, y, [(a + 1, b) for a, b in map(span, y)]),
        "You left out the first token",
    ),
    (lambda x, y: by_slices(x, y, [span(y[0])] * len(y)), "You took one mask for all rows"),
    (
        lambda x, y: by_slices(x, y, [(span(y[0])[0], y.shape[1])] * len(y)),
        "You took one mask for all rows",
    ),
    (
        lambda x, y: by_slices(x, y, [(span(row)[0], len(row)) for row in y]),
        "You counted padding",
    ),
    (
        lambda x, y: by_slices(
            x, y, [(len(row) - b + a, len(row)) for row in y for a, b in [span(row)]]
        ),
        "You counted padding",
    ),
    (
        lambda x, y: (
            torch.take_along_dim(x[:, :-1], y[:, 1:].clamp(0)[..., None], -1)[..., 0]
            * answer(y)
        ).sum(1),
        "You added up logits",
    ),
    (lambda x, y: (shifted(x, y).exp() * answer(y)).sum(1), "You added up probabilities"),
    (lambda x, y: -in_loops(x, y), "Your sign is wrong"),
    (lambda x, y: in_loops(x, y).sum(), "You added up the whole batch"),
    (
        lambda x, y: shifted(x, y).masked_fill(y[:, 1:] == -100, 0),
        "You returned the log-probabilities of si",
    ),
    (lambda x, y: (shifted(x, y) * (1 - answer(y))).sum(1), "Your mask is inverted"),
]


def test_right_answers_pass() -> None:
    for function in (in_loops, by_cross_entropy):
        result = grade_sequence_logprob(function)
        assert result.passed, result.message


@pytest.mark.parametrize(("function", "sentence"), WRONG)
def test_a_wrong_answer_is_named(function, sentence: str) -> None:
    result = grade_sequence_logprob(function)
    assert not result.passed and result.message.startswith(sentence), result.message


def test_every_named_mistake_is_reached() -> None:
    told = {grade_sequence_logprob(function).message for function, _ in WRONG}
    assert told == {mistake.sentence for mistake in SEQUENCE_LOGPROB}
