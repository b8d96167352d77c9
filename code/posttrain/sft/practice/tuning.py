"""What the recorded runs of practice share: train a model for a while, then ask it.

Chapter: sft/your_model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor, nn

from posttrain.core.errors import TrainingDiverged
from posttrain.core.training.checkpoints import History
from posttrain.core.training.loop import train
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset
from posttrain.sft.recorded.rank_and_rate import FullLinear, trained_in_full
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import frozen_streams
from posttrain.sft.training.packing import PackedBatch, PackedBatches
from posttrain.sft.training.run import base_model, first_adapted_block


def steps_of(preset: SFTPreset, rows: int, passes: float = 1.0) -> SFTPreset:
    """Set a preset's steps from its rows, and its warm-up to a twentieth of them.

    Args:
        preset: Gives the batch.
        rows: Training rows.
        passes: How often each is read.

    Returns:
        A preset that measures and saves nothing on the way.
    """
    steps = max(1, int(passes * rows) // preset.batch_size)
    training = replace(
        preset.training, max_steps=steps, warmup_steps=math.ceil(steps / 20), eval_steps=0,
        save_steps=0, explosion_ratio=0.0,  # measure a jump, do not stop
    )  # fmt: skip
    return replace(preset, training=training)


def tuned(
    preset: SFTPreset, examples: Sequence[EncodedChat], seed: int, *, full: bool = False
) -> tuple[GPT, History, str | None]:
    """Train a fresh model by hand, in memory.

    Args:
        preset: Model, adapter, batch and schedule.
        examples: Encoded conversations.
        seed: Seed of the adapter and of the order of the rows.
        full: Train the adapted matrices in full, without an adapter.

    Returns:
        The model in evaluation mode, what happened, and what the guard said.
    """
    model, first = base_model(preset), first_adapted_block(preset)
    streams = None
    if first:  # the frozen blocks below see each row once, whatever the passes
        streams = frozen_streams(model.requires_grad_(False), examples, first)
    batches = PackedBatches(examples, preset.batch_size, seed, preset.device, streams, first)
    training, history = replace(preset.training, seed=seed), History()
    diverged = None
    with trained_in_full(model, preset.lora) if full else nullcontext():
        if not full:
            inject_lora(model, preset.lora, seed)
        try:
            name = f"{preset.name} seed {seed}"
            train(model, _loss, batches, training, description=name, history=history)
        except TrainingDiverged as error:
            diverged = str(error)
        fold_changes(model)
    return model.eval(), history, diverged


@torch.no_grad()
def fold_changes(model: nn.Module) -> None:
    """Add what full training has changed to the weights, as the forward pass does.

    Args:
        model: Layers of :class:`~posttrain.sft.recorded.rank_and_rate.FullLinear` are folded.
    """
    for layer in model.modules():
        if isinstance(layer, FullLinear):
            layer.base.weight.copy_(layer.base.weight + layer.change)
            layer.change.zero_()


def _loss(model: nn.Module, batch: PackedBatch) -> tuple[Tensor, int]:
    assert isinstance(model, GPT)
    return sft_loss(model, batch)


def digits(flags: Sequence[bool]) -> str:
    """Write flags as text, as records keep them.

    Args:
        flags: One for each question.

    Returns:
        Such as ``0110``.
    """
    return "".join("1" if flag else "0" for flag in flags)


def per_token(loss: float) -> float | None:
    """Round a loss for a record.

    Args:
        loss: In nats.

    Returns:
        Five digits; ``None`` where it is not finite.
    """
    return float(f"{loss:.5g}") if math.isfinite(loss) else None
