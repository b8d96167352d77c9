"""What the main run gains, with two intervals: one over the questions, one over the seeds.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.core.stats import mcnemar_exact, mean_interval


def bits(text: str) -> list[int]:
    """Turn the digits of an outcome into numbers.

    Args:
        text: Such as ``0110``.

    Returns:
        Such as ``[0, 1, 1, 0]``.
    """
    return [int(digit) for digit in text]


def summarize(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare base and tuned model, run by run and over the runs.

    Args:
        outcomes: Rows of :func:`posttrain.sft.recorded.headline.run`.

    Returns:
        ``runs``, for each seed: accuracies and ``format`` of the tuned model, the questions
        that only one of the two got right, and McNemar's ``p_value``, which covers the
        questions of this run. And ``gain``, ``accuracy`` and ``format`` over the runs as
        ``[mean, low, high]``: Student's intervals over the seeds, for these questions.
        ``by_kind`` has the mean accuracies ``[base, tuned]`` of each kind of question.
    """
    runs = []
    for row in outcomes:
        base, tuned = bits(row["base_right"]), bits(row["tuned_right"])
        test = mcnemar_exact(base, tuned)
        runs.append(
            {
                "seed": row["seed"],
                "base": sum(base) / len(base),
                "tuned": sum(tuned) / len(tuned),
                "format": sum(bits(row["tuned_format"])) / len(tuned),
                "only_base": test.only_a,
                "only_tuned": test.only_b,
                "n": test.n,
                "p_value": test.p_value,
            }
        )
    return {
        "runs": runs,
        "gain": _over_seeds([run["tuned"] - run["base"] for run in runs]),
        "accuracy": _over_seeds([run["tuned"] for run in runs]),
        "format": _over_seeds([run["format"] for run in runs]),
        "by_kind": _by_kind(outcomes),
    }


def _by_kind(outcomes: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
    shares: dict[str, list[list[int]]] = {}
    for row in outcomes:
        pairs = zip(
            row["kinds"], bits(row["base_right"]), bits(row["tuned_right"]), strict=True
        )
        for kind, base, tuned in pairs:
            shares.setdefault(kind, []).append([base, tuned])
    return {
        kind: [sum(column) / len(column) for column in zip(*found, strict=True)]
        for kind, found in sorted(shares.items())
    }


def _over_seeds(values: list[float]) -> list[float]:
    estimate = mean_interval(values)
    return [estimate.value, *estimate.ci]
