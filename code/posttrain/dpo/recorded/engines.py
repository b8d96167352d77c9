"""The same pairs by hand, with TRL, and with Unsloth in 4 bits.

All three start from the same adapter, whose frozen copy is the reference, and read the same
pairs in the same order.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from posttrain.dpo.alignment.aligned import encoded
from posttrain.dpo.alignment.pair_sets import persona_pairs
from posttrain.dpo.alignment.start import everyday_start, model_with
from posttrain.dpo.presets import CPU
from posttrain.dpo.runs.unsloth_engine import run_pairs_unsloth
from posttrain.dpo.training.dpo_run import train_pairs
from posttrain.dpo.training.trl_dpo import run_trl_pairs

ENGINES = ("by hand", "TRL", "Unsloth, 4 bits")
STEPS, BATCH = 6, 4

PRESET = replace(
    CPU,
    name="engines",
    start=replace(CPU.start, dtype="float32"),  # so that two can be compared digit by digit
    batch_size=BATCH,
    training=replace(
        CPU.training,
        max_steps=STEPS,
        warmup_steps=0,  # transformers' schedule is one step behind ours in a warm-up
        eval_steps=0,
        save_steps=0,
    ),
)

CONFIG: dict[str, Any] = {"preset": asdict(PRESET), "engines": ENGINES}


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the engines.

    Args:
        seeds: Seeds of the start and the pairs.

    Returns:
        One part for each engine and seed.
    """
    return [{"engine": engine, "seed": seed} for engine in ENGINES for seed in seeds]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train a few steps with one engine.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: ``losses``, the loss of each step; ``seconds`` of training with the reference's
        forward passes; ``pairs`` that were read.
    """
    seed, engine = part["seed"], part["engine"]
    preset = replace(PRESET, training=replace(PRESET.training, seed=seed))
    start = everyday_start(seed).adapter
    pairs = encoded(persona_pairs(seed=seed).train[: STEPS * BATCH], preset)
    with TemporaryDirectory() as name:
        folder = Path(name)
        if engine == ENGINES[0]:
            model, lora = model_with(start, preset.start)
            history, _ = train_pairs(
                model, lora, pairs, pairs[:1], preset.loss, preset.training, folder,
                batch_size=BATCH, seed=seed, keep_order=True,
            )  # fmt: skip
            losses, seconds = history.loss, history.seconds
        elif engine == ENGINES[1]:
            done = run_trl_pairs(
                preset.start.model, start, pairs, preset.loss, preset.training, folder,
                batch_size=BATCH, dtype=torch.float32,
            )  # fmt: skip
            losses, seconds = done.losses, done.seconds
        else:
            engine_start = replace(preset.start, engine="unsloth", quantization="nf4")
            done = run_pairs_unsloth(
                replace(preset, start=engine_start), pairs, folder, adapter=start,
                validation=pairs[:1],
            )  # fmt: skip
            losses, seconds = done.losses, done.seconds
    return [
        {
            **part,
            "losses": [float(f"{loss:.5g}") for loss in losses],
            "pairs": len(pairs),
            "seconds": round(seconds, 1),
        }
    ]
