"""posttrain.pretraining.exercises.model: right answers, and every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.core.grading import Mistake
from posttrain.pretraining.exercises.model import (
    ATTENTION_WEIGHTS,
    CAUSAL_MASK,
    PARAMETER_COUNT,
    grade_attention_weights,
    grade_causal_mask,
    grade_parameter_count,
)
from posttrain.pretraining.model.config import GPTConfig


def softmax(x: Tensor, axis: int = -1) -> Tensor:
    powers = (x - x.amax(dim=axis, keepdim=True)).exp()
    return powers / powers.sum(dim=axis, keepdim=True)


def weights(
    scale: Callable[[int], float], axis: int = -1
) -> Callable[[Tensor, Tensor], Tensor]:
    def function(q: Tensor, k: Tensor) -> Tensor:
        return softmax(torch.einsum("bhtd,bhsd->bhts", q, k) * scale(q.shape[3]), axis)

    return function


def root(D: int) -> float:
    return 1 / math.sqrt(D)


def naive(q: Tensor, k: Tensor) -> Tensor:
    powers = torch.exp(torch.matmul(q, k.mT) / math.sqrt(q.size(-1)))
    return powers / powers.sum(-1, keepdim=True)


WRONG_WEIGHTS = [
    (weights(lambda D: 1), "You did not scale the scores"),
    (weights(lambda D: 1 / D), "You divided the scores by D, not by its square root"),
    (weights(lambda D: D**0.5), "You multiplied the scores by √D"),
    (weights(root, axis=2), "Your softmax runs over the queries"),
    (weights(root, axis=1), "Your softmax runs over the heads"),
    (lambda q, k: weights(lambda D: 1)(q, k) / q.shape[3] ** 0.5, "You scaled after the"),
    (lambda q, k: torch.matmul(q, k.mT) / math.sqrt(q.size(-1)), "You returned the scores"),
    (naive, "Your softmax overflows where scores are large"),
]  # fmt: skip


def from_rows(T: int, S: int, sees: Callable[[int, int], bool]) -> Tensor:
    """Query t is position S - T + t."""
    return torch.tensor([[sees(S - T + t, s) for s in range(S)] for t in range(T)])


WRONG_MASKS = [
    (lambda T, S: from_rows(T, S, lambda t, s: s <= t).transpose(0, 1), "Your mask is transp"),
    (lambda T, S: from_rows(T, S, lambda t, s: s >= t), "Your mask is transposed"),
    (lambda T, S: from_rows(T, S, lambda t, s: s < t), "Your mask leaves the diagonal out"),
    (lambda T, S: from_rows(T, S, lambda t, s: s <= t + 1), "Your mask is one position too"),
    (lambda T, S: from_rows(T, S, lambda t, s: s > t), "Your mask is inverted"),
    (lambda T, S: from_rows(T, S, lambda t, s: s <= t - (S - T)), "Your mask forgets the cac"),
    (lambda T, S: 1.0 * from_rows(T, S, lambda t, s: s <= t), "Your mask has the right ones"),
    (lambda T, S: torch.where(from_rows(T, S, lambda t, s: s <= t), 0.0, -torch.inf),
     "You returned what is added to the scores"),
]  # fmt: skip


def count(config: GPTConfig, **changes: Any) -> int:
    """Count as a reader would; ``changes`` are what he gets wrong."""
    C, L = config.hidden_size, changes.get("layers", config.num_hidden_layers)
    D = changes.get("head_dim", config.channels_per_head)
    queries, keys = config.num_attention_heads * D, changes.get("kv", config.kv_heads) * D
    attention = C * (queries + 2 * keys) + changes.get("output", queries * C)
    mlp = changes.get("matrices", 3) * C * config.intermediate_size
    total = L * (attention + mlp + changes.get("norms", 2 * C)) + changes.get("final", C)
    heads = 0 if config.tie_word_embeddings else 1
    return config.vocab_size * C * (1 + changes.get("heads", heads)) + total


WRONG_COUNTS = [
    (lambda c: count(c, heads=1), "You counted a tied head"),
    (lambda c: count(c, heads=0), "You forgot the output head"),
    (lambda c: count(c, kv=c.num_attention_heads), "You made keys and values as wide as the"),
    (lambda c: count(c, matrices=2), "You forgot the gate"),
    (lambda c: count(c, output=0), "You forgot the attention's output projection"),
    (lambda c: count(c, norms=0, final=0), "You forgot the norms"),
    (lambda c: count(c, final=0), "You forgot the final norm"),
    (lambda c: count(c, head_dim=c.hidden_size // c.num_attention_heads), "You took every"),
    (lambda c: count(c, layers=1), "You counted one layer"),
]  # fmt: skip

GRADERS: list[tuple[Any, list[Mistake], Any, list[tuple[Any, str]]]] = [
    (grade_attention_weights, ATTENTION_WEIGHTS, weights(root), WRONG_WEIGHTS),
    (grade_causal_mask, CAUSAL_MASK,
     lambda T, S: torch.arange(S)[None, :] <= torch.arange(S - T, S)[:, None], WRONG_MASKS),
    (grade_parameter_count, PARAMETER_COUNT, count, WRONG_COUNTS),
]  # fmt: skip


@pytest.mark.parametrize(("grader", "mistakes", "right", "wrong"), GRADERS)
def test_right_and_wrong_answers(grader: Any, mistakes: Any, right: Any, wrong: Any) -> None:
    assert grader(right).passed
    told = []
    for function, sentence in wrong:
        result = grader(function)
        assert not result.passed
        assert result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in mistakes}  # none is untested


def test_a_lucky_constant_does_not_pass() -> None:
    # Right for the first input only, where D is 8.
    result = grade_attention_weights(weights(lambda D: 1 / math.sqrt(8)))
    assert not result.passed and result.message.startswith("At index ")


def test_two_mistakes_at_once_are_shown_by_their_numbers() -> None:
    result = grade_parameter_count(lambda c: count(c, matrices=2, final=0))
    assert not result.passed
    assert result.message.startswith("Your function returned ") and "too few" in result.message


def test_nan_in_the_weights_is_found() -> None:
    result = grade_attention_weights(lambda q, k: weights(root)(q, k) * torch.nan)
    assert result.message.startswith("At index [0, 0, 0, 0] your output is NaN")
