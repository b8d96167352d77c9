"""What the recorded runs of practice say, with intervals over their seeds.

Every triple ``[mean, low, high]`` is a mean over the seeds with Student's 95 % interval: it
covers the seed of the adapter and of the order, for these questions and texts.

Chapter: sft/your_model.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from operator import itemgetter
from statistics import fmean
from typing import Any

import numpy as np

from posttrain.core.stats import mean_interval
from posttrain.sft.practice.forgetting import BASE, PLAIN, REMEDIES
from posttrain.sft.practice.packing_gain import LAYOUTS
from posttrain.sft.practice.turns import WAYS

Outcomes = Sequence[dict[str, Any]]


def share(digits: str) -> float:
    """Return the share of ones.

    Args:
        digits: Such as ``0110``.

    Returns:
        Such as 0.5.
    """
    return digits.count("1") / len(digits)


def over_seeds(values: Sequence[float]) -> list[float]:
    """Return the mean of values, one for each seed, with its interval.

    Args:
        values: At least two numbers.

    Returns:
        Mean, low, high.
    """
    found = mean_interval(values)
    return [found.value, *found.ci]


def _by_seed(
    outcomes: Outcomes, chosen: dict[str, Any], value: Callable[[dict[str, Any]], Any]
) -> list[Any]:
    """List a value of the chosen rows, in the order of the seeds."""
    rows = [row for row in outcomes if all(row[k] == v for k, v in chosen.items())]
    return [value(row) for row in sorted(rows, key=lambda row: int(row["seed"]))]


def _less(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


def row_counts(outcomes: Outcomes) -> dict[str, Any]:
    """Say what more rows bring.

    Args:
        outcomes: Rows of :func:`posttrain.sft.practice.row_counts.run`.

    Returns:
        ``accuracy`` and ``val_loss``: a triple for each number of rows. ``doubling``: what
        twice the rows add to the accuracy, the slope of a line through one seed's points.
        ``n``: test questions.
    """
    sizes = sorted({row["rows"] for row in outcomes})
    found = {
        size: _by_seed(outcomes, {"rows": size}, lambda row: share(row["right"]))
        for size in sizes
    }
    logs = [math.log2(size) for size in sizes]
    slopes = [
        float(np.polyfit(logs, values, 1)[0]) for values in zip(*found.values(), strict=True)
    ]
    return {
        "accuracy": {str(size): over_seeds(values) for size, values in found.items()},
        "val_loss": {
            str(size): over_seeds(_by_seed(outcomes, {"rows": size}, lambda r: r["val_loss"]))
            for size in sizes
        },
        "doubling": over_seeds(slopes),
        "n": len(outcomes[0]["right"]),
    }


def forgetting(outcomes: Outcomes) -> dict[str, Any]:
    """Say what each remedy saves, and what it costs.

    Args:
        outcomes: Rows of :func:`posttrain.sft.practice.forgetting.run`.

    Returns:
        ``base``: the base model's mean losses. For each remedy under ``remedies`` the rise of
        both losses over the base model's, ``chats`` and ``plays``, in nats per token, and the
        ``accuracy``: triples; and ``saves_chats``, ``saves_plays``, ``costs``: the differences
        from the run without a remedy, seed by seed. ``n``: conversations, windows, questions.
    """
    base = next(row for row in outcomes if row["remedy"] == BASE)
    start = {name: fmean(base[name]) for name in ("chats", "plays")}

    def rises(remedy: str, name: str) -> list[float]:
        return _by_seed(outcomes, {"remedy": remedy}, lambda r: fmean(r[name]) - start[name])

    def accuracies(remedy: str) -> list[float]:
        return _by_seed(outcomes, {"remedy": remedy}, lambda row: share(row["right"]))

    remedies: dict[str, dict[str, list[float]]] = {}
    for remedy in REMEDIES:
        found = {name: over_seeds(rises(remedy, name)) for name in start}
        found["accuracy"] = over_seeds(accuracies(remedy))
        if remedy != PLAIN:
            for name in start:
                saved = _less(rises(PLAIN, name), rises(remedy, name))
                found[f"saves_{name}"] = over_seeds(saved)
            found["costs"] = over_seeds(_less(accuracies(PLAIN), accuracies(remedy)))
        remedies[remedy] = found
    sizes = {name: len(base[name]) for name in ("chats", "plays", "right")}
    return {"base": start, "remedies": remedies, "n": sizes}


def turns(outcomes: Outcomes) -> dict[str, Any]:
    """Compare training on all answers with training on the last one.

    Args:
        outcomes: Rows of :func:`posttrain.sft.practice.turns.run`.

    Returns:
        For each way ``alone`` and ``fourth``, the accuracies, as triples; ``read`` and
        ``trained`` tokens. ``all_less_last`` and ``all_less_single``: differences of the
        accuracies, seed by seed, for both ways of asking. ``n``: questions by way of asking.
    """

    def accuracies(way: str, asked: str) -> list[float]:
        return _by_seed(outcomes, {"way": way}, lambda row: share(row[asked]))

    asked = ("alone", "fourth")
    found: dict[str, Any] = {}
    for way in WAYS:
        first = next(row for row in outcomes if row["way"] == way)
        found[way] = {name: over_seeds(accuracies(way, name)) for name in asked}
        found[way] |= {name: first[name] for name in ("read", "trained")}
    for name, other in (("all_less_last", WAYS[1]), ("all_less_single", WAYS[2])):
        found[name] = {
            how: over_seeds(_less(accuracies(WAYS[0], how), accuracies(other, how)))
            for how in asked
        }
    found["n"] = {name: len(outcomes[0][name]) for name in asked}
    return found


def packing(outcomes: Outcomes) -> dict[str, Any]:
    """Compare three layouts of the same conversations.

    Args:
        outcomes: Rows of :func:`posttrain.sft.practice.packing_gain.run`.

    Returns:
        For each layout ``padding``, the mean share of positions that are padding, and ``time``,
        a triple: the processor's time as a multiple of the packed layout's, seed by seed.
        ``loss``: the largest relative difference of a summed loss from the packed one's.
    """
    packed = _by_seed(outcomes, {"layout": "packed"}, lambda row: row["seconds_cpu"])
    losses = {
        layout: _by_seed(outcomes, {"layout": layout}, lambda row: row["loss"])
        for layout in LAYOUTS
    }
    found: dict[str, Any] = {}
    for layout in LAYOUTS:
        used = _by_seed(outcomes, {"layout": layout}, lambda row: row["seconds_cpu"])
        padding = _by_seed(
            outcomes, {"layout": layout}, lambda row: 1 - row["tokens"] / row["positions"]
        )
        found[layout] = {
            "padding": fmean(padding),
            "time": over_seeds([a / b for a, b in zip(used, packed, strict=True)]),
        }
    found["loss"] = max(
        abs(a / b - 1)
        for layout in LAYOUTS
        for a, b in zip(losses[layout], losses["packed"], strict=True)
    )
    return found


def checkpointing(outcomes: Outcomes) -> dict[str, Any]:
    """Say what checkpointing saves and costs, by the length of the rows.

    Args:
        outcomes: Rows of :func:`posttrain.sft.practice.checkpointing.run`.

    Returns:
        ``shapes``: for each number of rows and tokens the mean growth without and with it,
        ``off`` and ``on``, and what the formula says of them, in bytes; ``memory``, a triple:
        growth with it as a share of that without; and ``time``, a triple: processor's time of
        a step with it as a multiple. ``losses_differ``: the largest difference of a loss.
    """
    shapes = []
    differ = 0.0
    for rows, length in sorted({(row["rows"], row["T"]) for row in outcomes}):
        here = {"rows": rows, "T": length}
        off, on = ({**here, "checkpointing": flag} for flag in (False, True))
        pairs: dict[str, list[list[Any]]] = {
            name: [_by_seed(outcomes, which, itemgetter(name)) for which in (off, on)]
            for name in ("growth", "seconds_cpu", "losses", "predicted")
        }
        differ = max(
            differ,
            *(
                abs(x - y)
                for a, b in zip(*pairs["losses"], strict=True)
                for x, y in zip(a, b, strict=True)
            ),
        )
        shapes.append(
            {
                **here,
                "off": fmean(pairs["growth"][0]),
                "on": fmean(pairs["growth"][1]),
                "off_predicted": pairs["predicted"][0][0],
                "on_predicted": pairs["predicted"][1][0],
                "memory": over_seeds([b / a for a, b in zip(*pairs["growth"], strict=True)]),
                "time": over_seeds([b / a for a, b in zip(*pairs["seconds_cpu"], strict=True)]),
            }
        )
    return {"shapes": shapes, "losses_differ": differ}
