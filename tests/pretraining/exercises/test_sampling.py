"""posttrain.pretraining.exercises.sampling: right answers, every named wrong one.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from posttrain.pretraining.exercises.sampling import (
    CACHED_POSITIONS,
    NUCLEUS,
    grade_cached_positions,
    grade_nucleus,
)

WRONG_POSITIONS = [
    (lambda n, T: list(range(T)), "Your positions start at 0"),
    (lambda n, T: [n + 1 + t for t in range(T)], "Your positions start one too high"),
    (lambda n, T: [n - 1 + t for t in range(T)], "Your positions start one too low"),
    (lambda n, T: [T - 1 - t for t in range(T)], "Your positions count back from the end"),
    (lambda n, T: [t - T for t in range(T)], "Your positions are negative"),
    (lambda n, T: [n + T - 1 - t for t in range(T)], "Your positions run backwards"),
    (lambda n, T: list(range(n + T)), "You returned the positions of the cached tokens too"),
]


def test_cached_positions() -> None:
    assert grade_cached_positions(lambda n, T: n + torch.arange(T, dtype=torch.int32)).passed
    told = []
    for positions, sentence in WRONG_POSITIONS:
        result = grade_cached_positions(lambda n, T, f=positions: torch.tensor(f(n, T)))
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in CACHED_POSITIONS}


def test_positions_of_another_kind() -> None:
    floats = grade_cached_positions(lambda n, T: torch.arange(n, n + T).float())
    assert floats.message.startswith("Your output is `torch.float32` where `torch.int64` is")
    batch = grade_cached_positions(lambda n, T: torch.arange(n, n + T)[None])
    assert batch.message.startswith("Your output has shape (1, 3) where (3,) is expected.")
    no_tensor = grade_cached_positions(lambda n, T: range(n, n + T))
    assert no_tensor.message.startswith(
        "Your function returned `range` where `torch.Tensor` is"
    )


def token_by_token(
    logits: Tensor,
    temperature: float,
    top_p: float,
    *,
    crossing: bool = True,
    at_least_one: bool = True,
    ascending: bool = False,
    dropped: float = -torch.inf,
) -> Tensor:
    """Build the nucleus one token at a time."""
    tempered = logits / temperature
    out = torch.full_like(tempered, dropped)
    for row, probabilities in enumerate(tempered.softmax(dim=-1)):
        mass = 0.0
        order = probabilities.argsort(descending=not ascending).tolist()
        for rank, token in enumerate(order):
            mass += probabilities[token].item()
            first = at_least_one and rank == 0
            if mass > top_p and not crossing and not first:
                break
            if first or crossing or mass <= top_p:
                out[row, token] = tempered[row, token]
            if mass >= top_p:
                break
    return out


def wrong(**changes: object) -> Callable[[Tensor, float, float], Tensor]:
    return lambda logits, t, p: token_by_token(logits, t, p, **changes)


WRONG_NUCLEI = [
    (lambda x, t, p: token_by_token(x, 1.0, p) / t, "You applied the temperature after top-p"),
    (wrong(crossing=False), "You dropped the token that crosses the line"),
    (wrong(crossing=False, at_least_one=False), "You dropped the token that crosses the line"),
    (wrong(ascending=True), "You added the probabilities up from the smallest"),
    (wrong(ascending=True, crossing=False, at_least_one=False), "You added the"),
    (lambda x, t, p: token_by_token(x, 1 / t, p), "You multiplied by the temperature"),
    (lambda x, t, p: token_by_token(x, t, p).softmax(dim=-1), "You returned probabilities"),
    (lambda x, t, p: token_by_token(x, 1.0, p), "You forgot the temperature"),
    (lambda x, t, p: x + 0 * token_by_token(x, t, p).clamp(min=-9) + torch.where(
        token_by_token(x, t, p) == -torch.inf, -torch.inf, 0.0),
     "You chose the right tokens and returned their logits without the temperature"),
    (lambda x, t, p: x / t, "You dropped no token"),
    (wrong(dropped=0.0), "Your dropped tokens have logit 0"),
    (wrong(dropped=-1e9), "Your dropped tokens have a large negative logit"),
    (wrong(dropped=torch.finfo(torch.float32).min), "Your dropped tokens have a large"),
    (lambda x, t, p: torch.stack([-(-r).sort().values for r in token_by_token(x, t, p)]),
     "You returned the logits sorted"),
]  # fmt: skip


def test_the_other_order_is_named_a_convention() -> None:
    result = grade_nucleus(lambda x, t, p: token_by_token(x, 1.0, p) / t)
    assert not result.passed
    assert "llama.cpp's convention, and no fault there" in result.message


def test_nucleus() -> None:
    assert grade_nucleus(token_by_token).passed
    told = []
    for function, sentence in WRONG_NUCLEI:
        result = grade_nucleus(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in NUCLEUS}


@pytest.mark.parametrize("offset", [-0.001, 0.001])
def test_no_input_has_a_token_that_hardly_crosses(offset: float) -> None:
    # Else the order of a sum would decide between right and wrong.
    assert grade_nucleus(lambda x, t, p: token_by_token(x, t, p + offset)).passed


def test_a_nucleus_with_nan_is_found() -> None:
    result = grade_nucleus(lambda x, t, p: token_by_token(x, t, p) * 0)
    assert "your output is NaN" in result.message
