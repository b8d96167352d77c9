"""What the recorded runs of alignment say, with intervals over their seeds.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from posttrain.core.stats import mean_interval

Outcomes = Sequence[dict[str, Any]]
QUANTITIES = ("complies", "score", "accuracy", "kl", "chosen_logps", "finished", "words")


def quantities_of(row: dict[str, Any]) -> dict[str, float]:
    """Reduce a run to a few numbers.

    Args:
        row: An outcome of :mod:`posttrain.dpo.recorded.settings`.

    Returns:
        ``complies``: share of answers that meet all four criteria; ``score``: mean number of
        criteria met; ``finished``: share of answers that ended by themselves; ``words``: mean
        length; and ``accuracy``, ``kl`` and ``chosen_logps`` on held-out pairs.
    """
    scores = [int(digit) for digit in row["scores"]]
    return {
        "complies": scores.count(4) / len(scores),
        "score": fmean(scores),
        "accuracy": row["accuracy"],
        "kl": row["kl"],
        "chosen_logps": row["chosen_logps"],
        "finished": row["finished"].count("1") / len(row["finished"]),
        "words": fmean(row["words"]),
    }


def settings(outcomes: Outcomes) -> dict[str, Any]:
    """Compute what each setting does, and how it differs from the main run, seed by seed.

    Args:
        outcomes: One for each setting and seed.

    Returns:
        By setting, such as ``beta 0.3``, and by quantity, ``[mean, low, high]`` over the seeds;
        under ``differences`` the same of the difference from ``main``.
    """
    found: dict[str, dict[int, dict[str, float]]] = {}
    for row in outcomes:
        found.setdefault(setting_of(row), {})[row["seed"]] = quantities_of(row)
    main = found["main"]
    return {
        "levels": {
            name: {q: _over([run[q] for run in runs.values()]) for q in QUANTITIES}
            for name, runs in found.items()
        },
        "differences": {
            name: {q: _over([runs[s][q] - main[s][q] for s in main]) for q in QUANTITIES}
            for name, runs in found.items()
            if name != "main"
        },
    }


def setting_of(row: dict[str, Any]) -> str:
    """Name the setting of an outcome.

    Args:
        row: An outcome.

    Returns:
        ``main``, or what was varied with its value, such as ``pairs 600``.
    """
    varied = row["varied"]
    if varied == "main":
        return "main"
    value = row["flipped"] if varied == "robust" else row[varied]
    return f"{varied} {value:g}"


def _over(values: Sequence[float]) -> list[float]:
    estimate = mean_interval(values)
    return [estimate.value, estimate.low, estimate.high]
