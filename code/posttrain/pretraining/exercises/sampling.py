"""The graders of the exercises about sampling: positions beside a cache, and the nucleus.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.pretraining.sampling.filters import SamplingParams, filter_logits, keep_top_p

CACHED_POSITIONS = [
    Mistake(
        "Your positions start at 0: with a cache, the new tokens stand after the cached ones.",
        lambda cache_length, T: torch.arange(T),
    ),
    Mistake(
        "Your positions start one too high: positions count from 0, so the first new token's "
        "is `cache_length`.",
        lambda cache_length, T: torch.arange(cache_length + 1, cache_length + T + 1),
    ),
    Mistake(
        "Your positions start one too low: `cache_length - 1` belongs to the last cached "
        "token.",
        lambda cache_length, T: torch.arange(cache_length - 1, cache_length + T - 1),
    ),
    Mistake(
        "Your positions count back from the end: a token's position is its distance from the "
        "start, wherever the text ends.",
        lambda cache_length, T: torch.arange(cache_length + T).flip(0)[-T:],
    ),
    Mistake(
        "Your positions are negative, counted from the end: a rotation needs the distance from "
        "the start.",
        lambda cache_length, T: torch.arange(-T, 0),
    ),
    Mistake(
        "Your positions run backwards: the first new token has the lowest.",
        lambda cache_length, T: torch.arange(cache_length, cache_length + T).flip(0),
    ),
    Mistake(
        "You returned the positions of the cached tokens too: their keys are rotated already.",
        lambda cache_length, T: torch.arange(cache_length + T),
    ),
]


def grade_cached_positions(fn: Callable[[int, int], Tensor]) -> Grade:
    """Grade the positions that rotate new queries and keys when earlier ones are cached.

    Args:
        fn: Takes ``cache_length`` and ``T``; returns the position ids of the ``T`` new tokens,
            an integer tensor of shape (T,).

    Returns:
        The grade.

    Chapter: pretraining/sampling.
    """

    def reference(cache_length: int, T: int) -> Tensor:
        return torch.arange(cache_length, cache_length + T)

    return grade(fn, reference, CACHED_POSITIONS, [(5, 3), (0, 4), (7, 1), (1, 2), (20, 6)])


def _nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    return filter_logits(logits, SamplingParams(temperature=temperature, top_p=top_p))


def _by_rank(
    logits: Tensor,
    temperature: float,
    keep: Callable[[Tensor], Tensor],
    descending: bool = True,
) -> Tensor:
    """Keep what ``keep`` says of the sorted probabilities."""
    logits = logits / temperature
    probabilities, order = logits.softmax(dim=-1).sort(dim=-1, descending=descending)
    dropped = torch.zeros_like(logits, dtype=torch.bool).scatter(1, order, ~keep(probabilities))
    return logits.masked_fill(dropped, -torch.inf)


_CROSSING = (
    "You dropped the token that crosses the line: it belongs to the nucleus, else the kept "
    "tokens do not reach top_p."
)
_ASCENDING = "You added the probabilities up from the smallest: start with the largest."
_FINITE = (
    "Your dropped tokens have a large negative logit: give them minus infinity, so that their "
    "probability is exactly 0."
)
NUCLEUS = [
    Mistake(
        "You applied the temperature after top-p. That is llama.cpp's convention, and no fault "
        "there; this exercise keeps transformers' order, in which the temperature comes first "
        "and sets the probabilities that top-p adds up.",
        lambda logits, t, p: keep_top_p(logits, p) / t,
    ),
    Mistake(_CROSSING, lambda logits, t, p: _by_rank(logits, t, lambda x: x.cumsum(-1) <= p)),
    Mistake(
        _CROSSING,
        lambda logits, t, p: _by_rank(
            logits, t, lambda x: (x.cumsum(-1) <= p) | (x == x[:, :1])
        ),
    ),
    Mistake(
        _ASCENDING,
        lambda logits, t, p: _by_rank(logits, t, lambda x: x.cumsum(-1) - x < p, False),
    ),
    Mistake(
        _ASCENDING, lambda logits, t, p: _by_rank(logits, t, lambda x: x.cumsum(-1) <= p, False)
    ),
    Mistake(
        "You multiplied by the temperature: divide by it, so that a low one sharpens.",
        lambda logits, t, p: _nucleus(logits, 1 / t, p),
    ),
    Mistake(
        "You returned probabilities: return the logits, divided by the temperature, and minus "
        "infinity for what is dropped.",
        lambda logits, t, p: _nucleus(logits, t, p).softmax(dim=-1),
    ),
    Mistake(
        "You forgot the temperature: divide the logits by it first.",
        lambda logits, t, p: keep_top_p(logits, p),
    ),
    Mistake(
        "You chose the right tokens and returned their logits without the temperature.",
        lambda logits, t, p: torch.where(_nucleus(logits, t, p).isfinite(), logits, -torch.inf),
    ),
    Mistake("You dropped no token: top-p has no effect.", lambda logits, t, p: logits / t),
    Mistake(
        "Your dropped tokens have logit 0, which is not unlikely: give them minus infinity.",
        lambda logits, t, p: _nucleus(logits, t, p).nan_to_num(neginf=0.0),
    ),
    *(
        Mistake(
            _FINITE,
            lambda logits, t, p, low=low: _nucleus(logits, t, p).nan_to_num(neginf=low),
        )
        for low in (-1e4, -1e9, -1e10, torch.finfo(torch.float32).min)
    ),
    Mistake(
        "You returned the logits sorted: put them back at their tokens' places.",
        lambda logits, t, p: _nucleus(logits, t, p).sort(dim=-1, descending=True).values,
    ),
]


def grade_nucleus(fn: Callable[[Tensor, float, float], Tensor]) -> Grade:
    """Grade temperature and top-p.

    Args:
        fn: Takes logits, shape (B, V), a temperature and ``top_p``; returns the logits divided
            by the temperature, minus infinity where a token is not in the nucleus.

    Returns:
        The grade.

    Chapter: pretraining/sampling.
    """
    cases = [
        (2 * random_numbers(3, 8, seed=1), 0.5, 0.9),
        (2 * random_numbers(2, 12, seed=2), 2.0, 0.6),
        (random_numbers(4, 5, seed=3), 0.8, 0.3),
        (3 * random_numbers(2, 30, seed=4), 1.5, 0.95),
    ]

    def reference(logits: Tensor, temperature: float, top_p: float) -> Tensor:
        return _nucleus(logits, temperature, top_p)

    return grade(fn, reference, NUCLEUS, cases)
