"""What the recorded runs of alignment say, with intervals over their seeds.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from posttrain.core.judges.verdicts import Outcome, Verdict
from posttrain.core.judges.win_rates import win_rate
from posttrain.core.stats import Estimate, mean_interval

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


def engines(outcomes: Outcomes) -> dict[str, Any]:
    """Compare the engines' losses with those of the run by hand.

    Args:
        outcomes: One for each engine and seed.

    Returns:
        ``losses`` by engine, for the first seed; ``apart``: the largest difference from the run
        by hand, by engine; ``pairs_per_second`` by engine.
    """
    by_engine = {row["engine"]: row for row in reversed(outcomes)}
    ours = by_engine["by hand"]["losses"]
    return {
        "losses": {name: row["losses"] for name, row in by_engine.items()},
        "apart": {
            name: max(abs(a - b) for a, b in zip(ours, row["losses"], strict=True))
            for name, row in by_engine.items()
        },
        "pairs_per_second": {
            name: row["pairs"] / row["seconds"] for name, row in by_engine.items()
        },
    }


def people(outcomes: Outcomes) -> dict[str, Any]:
    """Count how often each judge says what a person said.

    Args:
        outcomes: One for each judge.

    Returns:
        By judge: ``agrees``, ``[share, low, high]`` of the pairs on which both orders name the
        person's choice, a tie as half of one; ``consistent``, the share on which both orders
        name the same answer; ``first``, the share on which the first place wins both times;
        ``n``.
    """
    found = {}
    for row in outcomes:
        votes = list(zip(row["chosen_first"], row["rejected_first"], strict=True))
        n = len(votes)
        right = sum(vote == ("c", "c") for vote in votes)
        wrong = sum(vote == ("r", "r") for vote in votes)
        rate = win_rate_of(right, wrong, n)
        found[row["judge"]] = {
            "agrees": [rate.value, rate.low, rate.high],
            "consistent": (right + wrong) / n,
            "first": sum(vote == ("c", "r") for vote in votes) / n,
            "n": n,
        }
    return found


def win_rate_of(right: int, wrong: int, n: int) -> Estimate:
    """Return a share in which a tie counts as half, with Wilson's interval.

    Args:
        right: Pairs that count.
        wrong: Pairs that do not.
        n: All pairs.

    Returns:
        The share.
    """
    ties = n - right - wrong
    verdicts = {"a": Verdict("first"), "b": Verdict("second"), "tie": Verdict("tie")}
    swapped = {"a": "b", "b": "a", "tie": "tie"}
    outcomes = [
        Outcome(verdicts[winner], verdicts[swapped[winner]])
        for winner, times in (("a", right), ("b", wrong), ("tie", ties))
        for _ in range(times)
    ]
    return win_rate(outcomes)


def _over(values: Sequence[float]) -> list[float]:
    estimate = mean_interval(values)
    return [estimate.value, estimate.low, estimate.high]
