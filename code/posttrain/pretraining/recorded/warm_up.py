"""What does a warm-up change? Runs with and without one, from the same weights and batches.

Two things are looked at: how high the loss rises in the first steps, and how low it is at the
end. The second varies so much from seed to seed that a few of them show nothing.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from posttrain.pretraining.presets import NANO, PretrainPreset
from posttrain.pretraining.recorded.explosion import AVX2

SETTINGS = ((2, 3e-2), (2, 1e-2), (2, 3e-3))
"""Layers and learning rate."""

LENGTHS = (50, 15, 0)
"""Steps of warm-up: a third of the run, a tenth, and none; nothing else differs."""

STEPS = 150
FIRST = 50  # steps in which a peak is looked for

CONFIG: dict[str, Any] = {
    "preset": asdict(NANO),
    "settings": SETTINGS,
    "lengths": LENGTHS,
    "steps": STEPS,
}


def warmed(
    layers: int, rate: float, warmup_steps: int, *, bf16: bool | None = None
) -> PretrainPreset:
    """Return the nano model's preset with other layers, rate and warm-up, and half the steps.

    Args:
        layers: Blocks of the model.
        rate: The learning rate.
        warmup_steps: Steps over which it rises.
        bf16: See :class:`posttrain.core.training.optimization.TrainingConfig`.

    Returns:
        The preset.
    """
    return replace(
        NANO,
        name="warm-up",
        model=replace(NANO.model, num_hidden_layers=layers),
        training=replace(
            NANO.training,
            max_steps=STEPS,
            learning_rate=rate,
            warmup_steps=warmup_steps,
            bf16=bf16,
            explosion_ratio=0.0,  # measure a jump, do not stop
        ),
    )


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings, as the processor comes and limited to AVX2 in float32.

    Args:
        seeds: Seeds of weights and batches.

    Returns:
        One part for each setting, processor and seed; it runs every length of the warm-up.
    """
    return [
        {
            "seed": seed, "layers": layers, "rate": rate,
            "processor": processor, "environment": environment,
        }
        for layers, rate in SETTINGS
        for seed in seeds
        for processor, environment in (("native", {}), ("AVX2, fp32", AVX2))
    ]  # fmt: skip


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with each length of the warm-up.

    Args:
        part: One of :func:`parts`.

    Returns:
        A row for each length: ``first`` is the loss before any step, ``peak`` the largest of
        the next batches, ``val_loss`` that of the held-out plays at the end.
    """
    from posttrain.pretraining.training.run import corpus_of, train_model

    bf16 = False if part["environment"] else None
    rows = []
    for length in LENGTHS:
        preset = warmed(part["layers"], part["rate"], length, bf16=bf16)
        corpus = corpus_of(preset.dataset)
        _, history, diverged = train_model(preset, corpus, seed=part["seed"])
        losses = [float(f"{loss:.5g}") for loss in history.loss]
        rows.append(
            {
                "processor": part["processor"],
                "layers": part["layers"],
                "rate": part["rate"],
                "warmup_steps": length,
                "seed": part["seed"],
                "first": losses[0],
                "peak": max(losses[1:FIRST]),
                "val_loss": None if diverged else history.evaluations[-1]["val_loss"],
                "losses": losses,
            }
        )
    return rows
