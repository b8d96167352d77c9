"""Does the best learning rate depend on the rank? A sweep over both, for three scalings.

The update is ``s B A`` with ``s = α / r`` and α fixed, ``s`` fixed (``α = 2r``), or
``s = α / √r`` (rsLoRA). The three agree at rank 8. Beside them the same matrices are trained in
full. Schulman and others (2025) report that with ``α / r`` the best rate hardly depends on the
rank, and is about ten times that of full training.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from posttrain.core.errors import TrainingDiverged
from posttrain.core.training.checkpoints import History
from posttrain.core.training.loop import train
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.injection import inject_lora, target_layers
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.merge import remove_lora
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.experiments import SWEEP
from posttrain.sft.training.evaluation import encode_rows, mean_loss, tokenizer_of
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import frozen_streams
from posttrain.sft.training.packing import PackedBatch, PackedBatches
from posttrain.sft.training.run import base_model, first_adapted_block

EXAMPLES = 200
HELD_OUT = 40  # validation rows: enough to see a valley, and half the time
RANKS = (1, 8, 64)
SAME_AT = 8
"""The rank at which the three scalings agree: there the scale is 2."""

RATES = (1e-3, 2.5e-3, 6.3e-3, 1.6e-2, 4e-2, 1e-1)
FULL_RATES = (4e-5, 1e-4, 2.5e-4, 6.3e-4, 1.6e-3, 4e-3)
SCALINGS = ("alpha / r", "alpha = 2r", "alpha / sqrt(r)")
FULL = "full"

PRESET = replace(
    SWEEP,
    name="rank-and-rate",
    training=replace(SWEEP.training, explosion_ratio=0.0),  # measure a jump, do not stop
)

CONFIG: dict[str, Any] = {
    "preset": asdict(PRESET),
    "examples": EXAMPLES,
    "held_out": HELD_OUT,
    "ranks": RANKS,
    "rates": RATES,
    "full_rates": FULL_RATES,
    "scalings": SCALINGS,
}


def adapter(scaling: str, r: int) -> LoRAConfig:
    """Return the adapter of one setting.

    Args:
        scaling: One of :data:`SCALINGS`.
        r: Its rank.

    Returns:
        The adapter; at rank :data:`SAME_AT` its scale is 2 for every scaling.

    Raises:
        ValueError: If the scaling is none of these.
    """
    alphas = dict(zip(SCALINGS, (2 * SAME_AT, 2 * r, 2 * math.sqrt(SAME_AT)), strict=True))
    if scaling not in alphas:
        raise ValueError(f"there is no scaling {scaling!r}: choose one of {', '.join(alphas)}")
    rooted = scaling == SCALINGS[2]
    return replace(PRESET.lora, r=r, lora_alpha=alphas[scaling], use_rslora=rooted)


class FullLinear(nn.Module):
    """A linear layer of which every weight is trained: ``h = (W0 + D) x``.

    ``D`` is float32 and starts at zero, so that small steps are not lost in bfloat16; the sum
    is rounded for the product. That is what mixed precision does with its master weights.

    Args:
        base: The layer; it stays as it is.
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.change = nn.Parameter(torch.zeros_like(base.weight, dtype=torch.float32))

    def forward(self, x: Tensor) -> Tensor:
        """Apply the changed weight.

        Args:
            x: Shape (..., in).

        Returns:
            Shape (..., out).
        """
        weight = (self.base.weight + self.change).to(x.dtype)
        return nn.functional.linear(x, weight, self.base.bias)


@contextmanager
def trained_in_full(model: GPT, config: LoRAConfig) -> Iterator[None]:
    """Train the matrices that an adapter would adapt, and put them back afterwards.

    Args:
        model: The model.
        config: Names the matrices.

    Yields:
        Nothing; meanwhile the model's matrices can be trained.
    """
    layers = target_layers(model, config)
    model.requires_grad_(False)
    for name, layer in layers.items():
        model.set_submodule(name, FullLinear(cast(nn.Linear, layer)))
    try:
        yield
    finally:
        for name, layer in layers.items():
            model.set_submodule(name, layer)


@contextmanager
def adapted(model: GPT, config: LoRAConfig, seed: int) -> Iterator[None]:
    """Put adapters into a model, and take them out again.

    Args:
        model: The model.
        config: The adapters.
        seed: Seed of their start.

    Yields:
        Nothing; meanwhile the model has them.
    """
    inject_lora(model, config, seed)
    try:
        yield
    finally:
        remove_lora(model)


Encoded = tuple[list[EncodedChat], list[Tensor]]


@functools.lru_cache(maxsize=1)
def _prepared() -> tuple[GPT, Encoded, Encoded, float]:
    """Load the model once, run its frozen blocks once over all rows, and measure it once."""
    model, data = base_model(PRESET), build_dataset()
    model.requires_grad_(False)
    first, tokenizer = first_adapted_block(PRESET), tokenizer_of(PRESET.model)
    encoded = []
    for rows in (data["train"][:EXAMPLES], data["validation"][::2][:HELD_OUT]):
        examples = encode_rows(rows, tokenizer, PRESET.max_length, PRESET.chat_format)
        encoded.append((examples, frozen_streams(model, examples, first)))
    return model, encoded[0], encoded[1], mean_loss(model, *encoded[1], first)


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings: scalings and ranks, the common rank once, and full training.

    Args:
        seeds: Seeds of the adapters and of the order of the rows.

    Returns:
        One part for each seed and setting; it runs over all rates.
    """
    settings = [
        (scaling, r) for r in RANKS for scaling in (SCALINGS[:1] if r == SAME_AT else SCALINGS)
    ]
    return [
        {"seed": seed, "scaling": scaling, "r": r}
        for seed in seeds
        for scaling, r in [*settings, (FULL, None)]
    ]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train one setting at every rate.

    Args:
        part: One of :func:`parts`.

    Returns:
        A row for each rate: ``val_loss`` at the end, ``start`` before training, the batches'
        ``losses``, and what the guard said in ``diverged``. A loss that is not finite is None.
    """
    rates = FULL_RATES if part["scaling"] == FULL else RATES
    return [_run_one({**part, "rate": rate}) for rate in rates]


def _run_one(setting: dict[str, Any]) -> dict[str, Any]:
    model, (examples, streams), held_out, start = _prepared()
    first, seed = first_adapted_block(PRESET), setting["seed"]
    batches = PackedBatches(examples, PRESET.batch_size, seed, PRESET.device, streams, first)
    training = replace(PRESET.training, learning_rate=setting["rate"], seed=seed)
    history, diverged = History(), None
    full = setting["scaling"] == FULL
    config = PRESET.lora if full else adapter(setting["scaling"], setting["r"])
    with trained_in_full(model, config) if full else adapted(model, config, seed):
        name = " ".join(str(value) for value in setting.values())
        try:
            train(model, _loss, batches, training, description=name, history=history)
        except TrainingDiverged as error:
            diverged = str(error)
        end = mean_loss(model.eval(), *held_out, first)
    return {
        **setting,
        "start": _rounded(start),
        "val_loss": _rounded(end),
        "losses": [_rounded(loss) for loss in history.loss],
        "diverged": diverged,
        "seconds": round(history.seconds, 2),
    }


def _loss(model: nn.Module, batch: PackedBatch) -> tuple[Tensor, int]:
    assert isinstance(model, GPT)
    return sft_loss(model, batch)


def _rounded(loss: float) -> float | None:
    return float(f"{loss:.5g}") if math.isfinite(loss) else None
