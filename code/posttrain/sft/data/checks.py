"""Questions to ask of a data set before a training run: lengths, duplicates, leaks, budget.

The search for duplicates and leaks lies in a module of its own and can be had from here too.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from posttrain.sft.data.duplicates import (
    Leak,
    Pair,
    exact_duplicates,
    find_leaks,
    near_duplicates,
    normalize,
    same_words_key,
)

__all__ = [
    "PERCENTILES",
    "Leak",
    "LengthReport",
    "Pair",
    "TokenBudget",
    "exact_duplicates",
    "find_leaks",
    "length_report",
    "near_duplicates",
    "normalize",
    "same_words_key",
    "token_budget",
]

PERCENTILES = (5, 25, 50, 75, 95, 99)


# --- lengths ---


@dataclass(frozen=True)
class LengthReport:
    """How long the examples of a data set are.

    Attributes:
        count: Number of examples.
        mean: Tokens per example.
        longest: Tokens of the longest one.
        percentiles: Tokens below which that many percent lie; keys are `PERCENTILES`.
        max_length: The limit that was asked about, in tokens.
        share_above: Share of the examples that are longer than it.
        tokens_cut: Tokens that cutting them there would lose.
        histogram: Number of examples by the lower edge of their bin, in tokens.
        bin_width: Width of a bin, in tokens.
    """

    count: int
    mean: float
    longest: int
    percentiles: dict[int, float]
    max_length: int
    share_above: float
    tokens_cut: int
    histogram: dict[int, int]
    bin_width: int

    def __repr__(self) -> str:
        middle = ", ".join(f"p{p} {value:.0f}" for p, value in self.percentiles.items())
        return (
            f"{self.count:,} examples: mean {self.mean:.1f} tokens, {middle}, longest "
            f"{self.longest}; {self.share_above:.1%} above {self.max_length} "
            f"({self.tokens_cut:,} tokens would be cut)"
        )


def length_report(
    lengths: Sequence[int], max_length: int, *, bin_width: int = 8
) -> LengthReport:
    """Summarize the lengths of encoded examples.

    Args:
        lengths: Tokens of each example.
        max_length: The longest example that the training run takes, in tokens.
        bin_width: Width of the histogram's bins, in tokens.

    Returns:
        The numbers of the report; empty bins between the shortest and the longest example are
        in the histogram too.

    Raises:
        ValueError: If there are no lengths, one is negative, or a limit is below 1.

    Chapter: sft/fine_tuning.
    """
    if not lengths or min(lengths) < 0:
        raise ValueError("give the lengths of at least one example, each 0 or more tokens")
    if max_length < 1 or bin_width < 1:
        raise ValueError(
            f"max_length is {max_length} and bin_width is {bin_width}: give at least 1 token"
        )
    bins = Counter(length // bin_width for length in lengths)
    too_long = [length for length in lengths if length > max_length]
    return LengthReport(
        count=len(lengths),
        mean=statistics.fmean(lengths),
        longest=max(lengths),
        percentiles={p: float(np.percentile(lengths, p)) for p in PERCENTILES},
        max_length=max_length,
        share_above=len(too_long) / len(lengths),
        tokens_cut=sum(too_long) - max_length * len(too_long),
        histogram={b * bin_width: bins[b] for b in range(min(bins), max(bins) + 1)},
        bin_width=bin_width,
    )


# --- budget ---


@dataclass(frozen=True)
class TokenBudget:
    """What a training run will cost.

    Attributes:
        tokens_per_epoch: Tokens that the model reads in one pass over the data.
        trained_per_epoch: Those among them that the loss is taken on.
        epochs: Passes over the data.
        steps: Optimizer steps in all.
        seconds: Predicted time in all.
    """

    tokens_per_epoch: int
    trained_per_epoch: int
    epochs: int
    steps: int
    seconds: float

    @property
    def trained_share(self) -> float:
        """Share of the tokens that the loss is taken on."""
        return self.trained_per_epoch / self.tokens_per_epoch

    def __repr__(self) -> str:
        return (
            f"{self.epochs} x {self.tokens_per_epoch:,} tokens ({self.trained_share:.0%} "
            f"trained), {self.steps:,} optimizer steps, {self.seconds:,.0f} s predicted"
        )


def token_budget(
    lengths: Sequence[int],
    trained: Sequence[int],
    *,
    tokens_per_second: float,
    batch_size: int,
    epochs: int = 1,
) -> TokenBudget:
    """Predict the cost of a training run without padding.

    Args:
        lengths: Tokens of each example.
        trained: Tokens of each example that the loss is taken on.
        tokens_per_second: Measured speed of training, all tokens counted.
        batch_size: Examples per optimizer step; the last step of an epoch may have fewer.
        epochs: Passes over the data.

    Returns:
        The budget.

    Raises:
        ValueError: If the lists do not fit together, or a number is not positive.

    Chapter: sft/fine_tuning.
    """
    if len(lengths) != len(trained) or not lengths:
        raise ValueError(
            f"there are {len(lengths)} lengths and {len(trained)} counts of trained tokens: "
            "give one of each for every example"
        )
    if any(not 0 <= t <= n for t, n in zip(trained, lengths, strict=True)) or not sum(lengths):
        raise ValueError("an example has more trained tokens than tokens, or none has a token")
    if min(tokens_per_second, batch_size, epochs) <= 0:
        raise ValueError(
            f"tokens_per_second is {tokens_per_second}, batch_size {batch_size} and epochs "
            f"{epochs}: give numbers above 0"
        )
    return TokenBudget(
        tokens_per_epoch=sum(lengths),
        trained_per_epoch=sum(trained),
        epochs=epochs,
        steps=epochs * math.ceil(len(lengths) / batch_size),
        seconds=epochs * sum(lengths) / tokens_per_second,
    )
