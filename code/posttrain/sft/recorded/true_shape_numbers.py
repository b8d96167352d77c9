"""How far predicted memory is from measured growth.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from posttrain.sft.training.engine_costs import RunMemory

_SETTING = ("shape", "engine", "quantization", "batch_size", "T", "accumulation")


def summarize(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Compare prediction and measurement, run by run.

    Args:
        outcomes: Rows of :func:`posttrain.sft.recorded.true_shape.run`.

    Returns:
        ``runs``: each setting with ``predicted`` and ``measured`` bytes of growth and the
        relative ``error`` (above 0: too much was predicted). ``worst`` and ``n``: the largest
        error, without its sign, of the runs in which malloc returns freed memory, and their
        number. ``malloc_keeps``: for each run that was made with glibc's own limits too, the
        share by which the growth is larger. ``loaded``: the largest loaded process by engine,
        in bytes. ``seconds``: predicted over measured time of a step, lowest and highest.
    """
    runs = []
    for row in outcomes:
        predicted = RunMemory(**row["predicted"]).growth
        runs.append(
            {
                **{name: row[name] for name in (*_SETTING, "malloc")},
                "predicted": predicted,
                "measured": row["growth"],
                "error": predicted / row["growth"] - 1,
            }
        )
    returned = {setting_of(run): run for run in runs if run["malloc"] == "returns"}
    kept = {
        " ".join(map(str, setting_of(run))): run["measured"]
        / returned[setting_of(run)]["measured"]
        - 1
        for run in runs
        if run["malloc"] == "default"
    }
    engines = sorted({row["engine"] for row in outcomes})
    ratios = [row["seconds_step_predicted"] / row["seconds_step"] for row in outcomes]
    return {
        "runs": runs,
        "worst": max(abs(run["error"]) for run in returned.values()),
        "n": len(returned),
        "malloc_keeps": kept,
        "loaded": {
            engine: max(row["loaded"] for row in outcomes if row["engine"] == engine)
            for engine in engines
        },
        "seconds": [min(ratios), max(ratios)],
    }


def setting_of(run: dict[str, Any]) -> tuple[Any, ...]:
    """Name a run by its setting, however malloc was told to behave.

    Args:
        run: A row, or one of the runs of a summary.

    Returns:
        Shape, engine, quantization, rows, tokens and micro-batches a step.
    """
    return tuple(run[name] for name in _SETTING)
