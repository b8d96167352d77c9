"""At which learning rate does a run explode, whatever its seed and its processor?

A rate that breaks one run need not break the next: rounding and the draw of the batches decide
near the border. The record holds how far beyond the guard's limit each run went.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from posttrain.pretraining.presets import NANO, PretrainPreset

AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
"""Environment in which a processor computes as one without AVX-512 would."""

RATES = (10.0, 3.0, 1.0)
_CURVE = 60  # steps of the loss that are kept

CONFIG: dict[str, Any] = {"preset": asdict(NANO), "rates": RATES}


def exploding(rate: float, *, bf16: bool | None = None) -> PretrainPreset:
    """Return the nano model's preset with a rate that is far too high.

    Args:
        rate: The learning rate; nothing else changes.
        bf16: See :class:`posttrain.core.training.optimization.TrainingConfig`.

    Returns:
        The preset.
    """
    training = replace(NANO.training, learning_rate=rate, bf16=bf16)
    return replace(NANO, name="exploding", training=training)


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings: each rate as the processor comes, and limited to AVX2 in float32.

    Args:
        seeds: Seeds of the runs.

    Returns:
        One part for each.
    """
    return [
        {"rate": rate, "processor": processor, "environment": environment, "seeds": list(seeds)}
        for processor, environment in (("native", {}), ("AVX2, fp32", AVX2))
        for rate in RATES
    ]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with every seed, each run to its end or to the guard.

    Args:
        part: One of :func:`parts`.

    Returns:
        A row for each seed. ``start`` is what the guard compares with; ``worst`` is the
        largest mean of ten losses in a row, from step 20 on where the run came that far.
    """
    from posttrain.pretraining.training.run import corpus_of, train_model

    limited = bool(part["environment"])
    preset = exploding(part["rate"], bf16=False if limited else None)
    rows = []
    for seed in part["seeds"]:
        _, history, diverged = train_model(preset, corpus_of(preset.dataset), seed=seed)
        losses = history.loss
        means = [
            sum(losses[i - 10 : i]) / 10 for i in range(min(20, len(losses)), len(losses) + 1)
        ]
        rows.append(
            {
                "processor": part["processor"],
                "rate": part["rate"],
                "seed": seed,
                "start": min(sum(losses[:10]) / 10, 2 * losses[0]),
                "worst": max(means),
                "stopped_at": len(losses) if diverged else None,
                "losses": [float(f"{loss:.5g}") for loss in losses[:_CURVE]],
            }
        )
    return rows
