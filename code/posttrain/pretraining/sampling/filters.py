"""From logits to one token: temperature, top-k, top-p, min-p, and the draw.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real

import torch
from torch import Tensor

from posttrain.core.arguments import token_ids, whole_number


@dataclass(frozen=True)
class SamplingParams:
    """How to draw tokens, in the names that transformers and vLLM use.

    Attributes:
        temperature: Divides the logits; 0 means greedy.
        top_k: Keep this many of the likeliest tokens; 0 keeps all.
        top_p: Keep the fewest tokens whose probabilities reach this sum; 1 keeps all.
        min_p: Keep tokens at least this share as likely as the likeliest; 0 keeps all.
        max_new_tokens: Longest completion, in tokens.
        num_generations: Completions per prompt.
        stop_token_ids: Tokens that end a completion, a flat sequence even where it is only one;
            the stop token is part of the completion. Kept as a tuple.

    Chapter: pretraining/sampling.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_new_tokens: int = 64
    num_generations: int = 1
    stop_token_ids: Sequence[int] = field(default_factory=tuple)

    @property
    def filters(self) -> bool:
        """Whether any filter can drop a token."""
        return bool(self.top_k) or self.top_p < 1 or bool(self.min_p)

    def __post_init__(self) -> None:
        """Refuse values that no distribution can have."""
        for name in ("temperature", "top_p", "min_p"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise ValueError(f"{name} is {value!r}: give a number")
        checks = (
            ("temperature", self.temperature >= 0, "0 (greedy) or more"),
            ("top_p", 0 < self.top_p <= 1, "more than 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 and 1"),
        )
        for name, valid, accepted in checks:
            if not valid:
                raise ValueError(f"{name} is {getattr(self, name)}: give {accepted}")
        for name, lowest in (("top_k", 0), ("max_new_tokens", 1), ("num_generations", 1)):
            number = whole_number(getattr(self, name), name, lowest)
            object.__setattr__(self, name, number)
        stops = tuple(token_ids(self.stop_token_ids, "stop_token_ids"))
        if stops and min(stops) < 0:
            raise ValueError(f"stop_token_ids holds {min(stops)}: token ids count from 0")
        object.__setattr__(self, "stop_token_ids", stops)


def keep_top_k(logits: Tensor, top_k: int) -> Tensor:
    """Keep the ``top_k`` largest logits of each row (Fan et al., 2018, section 5.4).

    Args:
        logits: Shape (B, V).
        top_k: How many to keep; more than ``V`` keeps all.

    Returns:
        Logits of the same shape, minus infinity where a token was dropped. Tokens that tie with
        the last one kept are kept too.

    Raises:
        ValueError: If ``top_k`` is less than 1.

    Chapter: pretraining/sampling.
    """
    if top_k < 1:
        raise ValueError(f"top_k is {top_k}: keep at least one token")
    smallest_kept = logits.topk(min(top_k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < smallest_kept, -torch.inf)


def keep_top_p(logits: Tensor, top_p: float) -> Tensor:
    """Keep the nucleus: the fewest tokens that reach the mass ``top_p``.

    The token that crosses the line is kept, so at least one always is (Holtzman et al., 2020,
    Eq. 2), and so are all that are exactly as likely as that one. Sorting a whole vocabulary is
    slow, so the likeliest 1,024 are tried first.

    Args:
        logits: Shape (B, V).
        top_p: Mass to reach, in (0, 1].

    Returns:
        Logits of the same shape, minus infinity where a token was dropped.

    Chapter: pretraining/sampling.
    """
    log_total = logits.logsumexp(dim=-1, keepdim=True)
    for candidates in (1024, logits.shape[-1]):
        top = logits.topk(min(candidates, logits.shape[-1])).values  # (B, K), falling
        probabilities = (top - log_total).exp()
        before = probabilities.cumsum(dim=-1) - probabilities  # mass of the likelier tokens
        if (before[..., -1] >= top_p).all() or top.shape[-1] == logits.shape[-1]:
            break
    last_kept = (before < top_p).sum(dim=-1, keepdim=True) - 1
    return logits.masked_fill(logits < top.gather(-1, last_kept.clamp(min=0)), -torch.inf)


def keep_min_p(logits: Tensor, min_p: float) -> Tensor:
    """Keep tokens at least ``min_p`` times as likely as the likeliest (Nguyen et al., 2024).

    Args:
        logits: Shape (B, V).
        min_p: Share of the largest probability, in (0, 1].

    Returns:
        Logits of the same shape, minus infinity where a token was dropped.

    Chapter: pretraining/sampling.
    """
    line = logits.max(dim=-1, keepdim=True).values + torch.tensor(min_p).log()
    return logits.masked_fill(logits < line, -torch.inf)


def filter_logits(logits: Tensor, params: SamplingParams) -> Tensor:
    """Apply temperature, then top-k, top-p and min-p, in the order of transformers.

    Top-p and min-p measure probabilities, and it is the temperature that sets them, so the
    order counts. It is a convention: llama.cpp applies the temperature last by default, and
    then the kept set is that of temperature 1.

    Args:
        logits: Shape (B, V); ``temperature`` must not be 0.
        params: Which filters to apply.

    Returns:
        Float32 logits of the same shape, minus infinity where a token was dropped.

    Chapter: pretraining/sampling.
    """
    logits = logits.float() / params.temperature
    if params.top_k:
        logits = keep_top_k(logits, params.top_k)
    if params.top_p < 1:
        logits = keep_top_p(logits, params.top_p)
    if params.min_p:
        logits = keep_min_p(logits, params.min_p)
    return logits


def draw(
    logits: Tensor, params: SamplingParams, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw one token per row by inverting the cumulative distribution.

    Args:
        logits: The model's logits, shape (B, V).
        params: How to draw.
        uniform: One number in [0, 1) per row, shape (B,).

    Returns:
        The tokens, shape (B,); their log-probability at this temperature before any filter,
        which is what a policy gradient needs; and their log-probability under the filtered
        distribution they were drawn from. The last two are float32, in nats, shape (B,).

    Raises:
        ValueError: If a row of logits is no distribution, because it holds NaN or infinity.

    Chapter: pretraining/sampling.
    """  # noqa: DOC502
    logits = logits.float()  # float32 is faster here, and exact enough for a sum over V
    if params.temperature == 0:
        logps = logits.log_softmax(dim=-1)
        token = logits.argmax(dim=-1, keepdim=True)
        logp = logps.gather(-1, token)[:, 0]
        _require_numbers(logp)
        return token[:, 0], logp, torch.zeros_like(logp)
    logps = (logits / params.temperature).log_softmax(dim=-1)
    kept_logps = filter_logits(logits, params).log_softmax(dim=-1) if params.filters else logps
    cumulative = kept_logps.exp().cumsum(dim=-1)
    target = uniform[:, None] * cumulative[:, -1:]
    token = torch.searchsorted(cumulative, target, right=True).clamp(max=logits.shape[-1] - 1)
    logp = logps.gather(-1, token)[:, 0]
    _require_numbers(logp)
    return token[:, 0], logp, kept_logps.gather(-1, token)[:, 0]


def _require_numbers(logp: Tensor) -> None:
    if not logp.isfinite().all():
        raise ValueError(
            "the logits hold NaN or infinity: the weights are damaged, or the temperature is "
            "so low that dividing by it overflows (0 is greedy)"
        )
