"""posttrain.dpo.losses.logprobs: sums over the answer's tokens, and over no others."""

import math
import random

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from posttrain.dpo.losses.logprobs import sequence_logps

V = 13


def draw(seed: int) -> tuple[Tensor, Tensor, list[tuple[int, int]]]:
    """Logits, labels, and where each answer stands; padding on either side or both."""
    generator = random.Random(seed)
    B, T = generator.randint(1, 4), generator.randint(2, 10)
    torch.manual_seed(seed)
    labels = torch.full((B, T), -100)
    spans = []
    for row in range(B):
        start = generator.randint(1, T - 1)
        end = generator.randint(start + 1, T)
        labels[row, start:end] = torch.randint(V, (end - start,))
        spans.append((start, end))
    return 3 * torch.randn(B, T, V), labels, spans


def by_hand(logits: Tensor, labels: Tensor, row: int, start: int, end: int) -> float:
    total = 0.0
    for t in range(start, end):
        scores = logits[row, t - 1].double().tolist()
        total += scores[labels[row, t]] - math.log(sum(math.exp(score) for score in scores))
    return total


@pytest.mark.parametrize("seed", range(40))
def test_sums_and_counts_equal_those_by_hand(seed: int) -> None:
    logits, labels, spans = draw(seed)
    found = sequence_logps(logits, labels)
    expected = [by_hand(logits, labels, row, *span) for row, span in enumerate(spans)]
    assert_close(found.sums, torch.tensor(expected), atol=1e-4, rtol=1e-5)
    assert found.counts.tolist() == [end - start for start, end in spans]
    assert_close(found.means, found.sums / found.counts)


@pytest.mark.parametrize("seed", range(20))
def test_what_is_outside_of_the_answer_does_not_matter(seed: int) -> None:
    """Not even NaN there, in value or gradient: attention over padding alone can give it."""
    logits, labels, spans = draw(seed)
    broken = torch.full_like(logits, math.nan)
    for row, (start, end) in enumerate(spans):
        broken[row, start - 1 : end - 1] = logits[row, start - 1 : end - 1]
    one, other = (values.requires_grad_() for values in (logits, broken))
    for values in (one, other):
        sequence_logps(values, labels).sums.sum().backward()
    assert_close(sequence_logps(one, labels).sums, sequence_logps(other, labels).sums)
    assert_close(one.grad, other.grad)
    for row, (start, end) in enumerate(spans):
        outside = torch.ones(logits.shape[1], dtype=torch.bool)
        outside[start - 1 : end - 1] = False
        assert not other.grad[row, outside].any() and one.grad[row, ~outside].any()


@pytest.mark.parametrize("seed", range(20))
def test_padding_on_either_side_changes_nothing(seed: int) -> None:
    logits, labels, _ = draw(seed)
    B = len(labels)
    for before, after in ((3, 0), (0, 3), (2, 1)):
        filler = torch.randn(B, before, V), torch.randn(B, after, V)
        edge = labels.new_full((B, before), -100), labels.new_full((B, after), -100)
        padded = sequence_logps(
            torch.cat([filler[0], logits, filler[1]], dim=1),
            torch.cat([edge[0], labels, edge[1]], dim=1),
        )
        assert_close(padded.sums, sequence_logps(logits, labels).sums)


def test_16_bit_logits_are_summed_in_float32() -> None:
    logits, labels, _ = draw(3)
    found = sequence_logps(logits.bfloat16(), labels).sums
    assert found.dtype == torch.float32
    assert_close(found, sequence_logps(logits.bfloat16().float(), labels).sums)
    assert sequence_logps(logits.double(), labels).sums.dtype == torch.float64


class LargestFloat32(TorchDispatchMode):
    """Notes the largest float32 tensor that an operation makes."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, Tensor) and value.dtype == torch.float32:
                self.size = max(self.size, value.numel())
        return out


def test_no_float32_copy_of_all_logits_is_made() -> None:
    B, T = 4, 50
    logits = torch.randn(B, T, 100, dtype=torch.bfloat16, requires_grad=True)
    labels = torch.full((B, T), -100)
    labels[:, -3:] = 7
    with LargestFloat32() as noted:
        sequence_logps(logits, labels).sums.sum().backward()
    assert 0 < noted.size <= 3 * 100
    with LargestFloat32() as noted:  # the plain way
        logits.float().log_softmax(dim=-1)
    assert noted.size == B * T * 100


def test_an_empty_answer_is_named() -> None:
    logits, labels = torch.randn(3, 5, V), torch.full((3, 5), -100)
    labels[0, 2:4] = labels[2, 3:] = 1
    with pytest.raises(ValueError, match=r"^row 1 has no answer: all its labels are -100"):
        sequence_logps(logits, labels)
    labels[1, 0] = 4  # which no logits predict
    with pytest.raises(ValueError, match=r"^row 1 is an answer from position 0 on"):
        sequence_logps(logits, labels)
    labels[1] = labels[0]
    assert sequence_logps(logits, labels).counts.tolist() == [2, 2, 2]


def test_what_does_not_fit_is_refused() -> None:
    logits, labels = torch.randn(2, 5, V), torch.full((2, 5), 1)
    labels[:, 0] = -100
    for wrong in (labels[:, :-1], labels[0], labels[:1]):
        with pytest.raises(ValueError, match=r"^logits have shape \(2, 5, 13\) and labels"):
            sequence_logps(logits, wrong)
    with pytest.raises(ValueError, match="the batch has no rows"):
        sequence_logps(logits[:0], labels[:0])
    for label in (V, -1):
        labels[1, 3] = label
        with pytest.raises(
            ValueError, match=r"^row 1 has a label outside the vocabulary of 13"
        ):
            sequence_logps(logits, labels)
