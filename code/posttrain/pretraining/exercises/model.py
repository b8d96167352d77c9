"""The graders of the exercises about the model: attention, its mask, and the parameters.

The reader writes a function and hands it to its grader, which names the mistake that it
recognizes. See ``posttrain.core.grading``.

Chapter: pretraining/attention, pretraining/gpt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.attention import causal_mask
from posttrain.pretraining.model.config import GPTConfig


def _attention_weights(q: Tensor, k: Tensor) -> Tensor:
    return (_scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=-1)


def _scores(q: Tensor, k: Tensor) -> Tensor:
    return q @ k.transpose(-2, -1)


ATTENTION_WEIGHTS = [
    Mistake(
        "You did not scale the scores: divide them by √D before the softmax.",
        lambda q, k: _scores(q, k).softmax(dim=-1),
    ),
    Mistake(
        "You divided the scores by D, not by its square root.",
        lambda q, k: (_scores(q, k) / q.shape[-1]).softmax(dim=-1),
    ),
    Mistake(
        "You multiplied the scores by √D: divide by it.",
        lambda q, k: (_scores(q, k) * q.shape[-1] ** 0.5).softmax(dim=-1),
    ),
    Mistake(
        "Your softmax runs over the queries: the weights of one query over all keys sum to 1, "
        "so it runs over the last axis.",
        lambda q, k: (_scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=-2),
    ),
    Mistake(
        "Your softmax runs over the heads: each head has its own weights, which sum to 1 over "
        "the keys, the last axis.",
        lambda q, k: (_scores(q, k) / q.shape[-1] ** 0.5).softmax(dim=1),
    ),
    Mistake(
        "You scaled after the softmax: √D divides the scores, not the weights.",
        lambda q, k: _scores(q, k).softmax(dim=-1) / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "You returned the scores: the softmax over the keys is missing.",
        lambda q, k: _scores(q, k) / q.shape[-1] ** 0.5,
    ),
    Mistake(
        "Your softmax overflows where scores are large: subtract each row's largest score "
        "before `exp`, or call `softmax`.",
        lambda q, k: (
            (e := (_scores(q, k) / q.shape[-1] ** 0.5).exp()) / e.sum(dim=-1, keepdim=True)
        ),
    ),
]


def grade_attention_weights(fn: Callable[[Tensor, Tensor], Tensor]) -> Grade:
    """Grade scaled dot-product attention's weights, without a mask.

    Args:
        fn: Takes ``q``, shape (B, H, T, D), and ``k``, shape (B, H, S, D); returns the weights,
            shape (B, H, T, S).

    Returns:
        The grade.

    Chapter: pretraining/attention.
    """
    shapes = [((2, 3, 4, 8), 5, 1.0), ((1, 2, 6, 16), 6, 1.0), ((3, 2, 1, 4), 7, 1.0),
              ((2, 2, 3, 8), 5, 30.0)]  # fmt: skip
    cases = [
        (
            random_numbers(B, H, T, D, seed=1) * scale,
            random_numbers(B, H, S, D, seed=2) * scale,
        )
        for (B, H, T, D), S, scale in shapes
    ]
    return grade(fn, _attention_weights, ATTENTION_WEIGHTS, cases)


_TRANSPOSED = (
    "Your mask is transposed: rows are queries and columns are keys, so row 0 sees the fewest "
    "keys."
)
CAUSAL_MASK = [
    Mistake(_TRANSPOSED, lambda T, S: causal_mask(T, S).T),
    Mistake(_TRANSPOSED, lambda T, S: torch.ones(T, S).triu(S - T).bool()),
    Mistake(
        "Your mask leaves the diagonal out: a position also sees itself.",
        lambda T, S: torch.ones(T, S).tril(S - T - 1).bool(),
    ),
    Mistake(
        "Your mask is one position too generous: each query sees the token after it, which is "
        "the one to predict.",
        lambda T, S: torch.ones(T, S).tril(S - T + 1).bool(),
    ),
    Mistake(
        "Your mask is inverted: `True` means that attention is allowed.",
        lambda T, S: ~causal_mask(T, S),
    ),
    Mistake(
        "Your mask forgets the cache: the T queries are the last of the S positions, so shift "
        "the diagonal by S - T.",
        lambda T, S: torch.ones(T, S).tril().bool(),
    ),
    Mistake(
        "Your mask has the right ones and zeros as floats: return `torch.bool`.",
        lambda T, S: causal_mask(T, S).float(),
    ),
    Mistake(
        "You returned what is added to the scores, 0 and minus infinity: return `torch.bool`, "
        "`True` where attention is allowed.",
        lambda T, S: torch.zeros(T, S).masked_fill(~causal_mask(T, S), -torch.inf),
    ),
]


def grade_causal_mask(fn: Callable[[int, int], Tensor]) -> Grade:
    """Grade a causal mask that allows for cached positions.

    Args:
        fn: Takes ``T`` and ``S``; returns a boolean mask of shape (T, S), ``True`` where one of
            the last ``T`` positions may see one of all ``S``.

    Returns:
        The grade.

    Chapter: pretraining/attention.
    """

    def reference(T: int, S: int) -> Tensor:
        return causal_mask(T, S)

    return grade(fn, reference, CAUSAL_MASK, [(4, 4), (2, 5), (1, 3), (1, 1), (5, 8)])


def _total(config: GPTConfig) -> int:
    return parameter_count(config).total


def _per_layer(config: GPTConfig, matrices: int, rows: int) -> int:
    return config.num_hidden_layers * matrices * config.hidden_size * rows


PARAMETER_COUNT = [
    Mistake(
        "You counted a tied head: with `tie_word_embeddings` the output head is the embedding "
        "matrix and adds nothing.",
        lambda config: _total(replace(config, tie_word_embeddings=False)),
    ),
    Mistake(
        "You forgot the output head: without `tie_word_embeddings` it is a matrix of its own.",
        lambda config: _total(replace(config, tie_word_embeddings=True)),
    ),
    Mistake(
        "You made keys and values as wide as the queries: with grouped queries they have "
        "`num_key_value_heads` heads only.",
        lambda config: _total(replace(config, num_key_value_heads=None)),
    ),
    Mistake(
        "You forgot the gate: SwiGLU has three matrices, not two.",
        lambda config: _total(config) - _per_layer(config, 1, config.intermediate_size),
    ),
    Mistake(
        "You forgot the attention's output projection: attention has four matrices.",
        lambda config: (
            _total(config)
            - _per_layer(config, 1, config.num_attention_heads * config.channels_per_head)
        ),
    ),
    Mistake(
        "You forgot the norms: each layer has two scales of `hidden_size`, and one follows the "
        "last layer.",
        lambda config: _total(config) - parameter_count(config).norms,
    ),
    Mistake(
        "You forgot the final norm, after the last layer.",
        lambda config: _total(config) - config.hidden_size,
    ),
    Mistake(
        "You took every head as `hidden_size / num_attention_heads` wide: where `head_dim` is "
        "given, it decides.",
        lambda config: _total(replace(config, head_dim=None)),
    ),
    Mistake(
        "You counted one layer: multiply by `num_hidden_layers`.",
        lambda config: _total(replace(config, num_hidden_layers=1)),
    ),
]


def grade_parameter_count(fn: Callable[[GPTConfig], int]) -> Grade:
    """Grade the number of parameters of a Llama-style model, from its shape.

    Args:
        fn: Takes a ``GPTConfig`` with the defaults ``"rmsnorm"``, ``"rope"`` and ``"swiglu"``;
            returns the number of parameters.

    Returns:
        The grade.

    Chapter: pretraining/gpt.
    """
    base = GPTConfig(vocab_size=50, hidden_size=24, intermediate_size=40, num_hidden_layers=3)
    configs = [
        base,
        replace(base, num_key_value_heads=2),
        replace(base, num_key_value_heads=1, tie_word_embeddings=False, vocab_size=97),
        replace(base, num_hidden_layers=5, head_dim=10, num_key_value_heads=2),
    ]

    def reference(config: GPTConfig) -> int:
        return _total(config)

    return grade(fn, reference, PARAMETER_COUNT, [(config,) for config in configs])
