"""Stage 1's run by hand: from a preset to an adapter, once, then from the store.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.arguments import whole_number
from posttrain.core.artifacts import Artifact, get_or_build
from posttrain.core.errors import TrainingDiverged
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.checkpoints import History
from posttrain.core.training.identity import frozen_digest
from posttrain.core.training.loop import train
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers
from posttrain.sft.data.dataset import Row, build_dataset, dataset_hash
from posttrain.sft.presets import SFTPreset, dtype_of, get_preset
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training.evaluation import (
    accuracy_of,
    encode_rows,
    mean_loss,
    row_name,
    tokenizer_of,
)
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import cached_streams
from posttrain.sft.training.packing import PackedBatch, PackedBatches, examples_digest
from posttrain.sft.training.run_checks import check_examples, check_outcome


@dataclass(frozen=True)
class SFTRun:
    """A finished run.

    Attributes:
        preset: What was run.
        seed: Seed of the adapter and of the order of the data.
        history: Loss and gradient norm of every step; evaluations with ``val_loss`` and, where
            they were asked for, ``train_loss`` and ``accuracy``.
        diverged: What the guard said where it stopped the run, else ``None``.
        artifact: Where it is stored: adapters ``best`` and ``last`` in PEFT's format.
    """

    preset: SFTPreset
    seed: int
    history: History
    diverged: str | None
    artifact: Artifact

    @property
    def best(self) -> dict[str, Any]:
        """The evaluation with the lowest validation loss."""
        rows = self.history.evaluations
        return min(rows, key=lambda row: float(row["val_loss"]))

    @property
    def best_adapter(self) -> Path:
        """The adapter as it was at that evaluation."""
        return self.artifact.folder / "best"

    @property
    def last_adapter(self) -> Path:
        """The adapter at the end of the run."""
        return self.artifact.folder / "last"


def check_device(preset: SFTPreset) -> None:
    """Refuse a preset that this machine cannot run.

    Args:
        preset: The preset.

    Raises:
        ValueError: If it needs a GPU and there is none.

    Chapter: sft/fine_tuning.
    """
    if torch.device(preset.device).type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"the preset {preset.name!r} needs a GPU and torch sees none here: use 'cpu'"
        )


def base_model(preset: SFTPreset) -> GPT:
    """Load the frozen model of a preset into our GPT.

    Args:
        preset: Names the model, its type and whether it is held in 4 bits.

    Returns:
        The model, in evaluation mode, without adapters.

    Chapter: sft/fine_tuning.
    """
    model = load_pretrained(preset.model, dtype_of(preset)).to(preset.device)
    return quantize_model(model) if preset.quantization == "nf4" else model


def tuned_model(run: SFTRun, adapter: Path | None = None) -> GPT:
    """Load a run's model with its adapter, to look at or to train further.

    Args:
        run: The run.
        adapter: Which adapter; the best one where it is left out.

    Returns:
        The model in evaluation mode.

    Chapter: sft/fine_tuning.
    """
    model = base_model(run.preset)
    load_adapter(model, adapter or run.best_adapter)
    return model.eval()


def first_adapted_block(preset: SFTPreset) -> int:
    """Say below which block nothing is trained.

    Args:
        preset: Its adapter says which blocks are adapted.

    Returns:
        Index of the lowest adapted block; 0 where all are.

    Chapter: sft/fine_tuning.
    """
    blocks = preset.lora.layers_to_transform
    return min(blocks) if blocks else 0


def train_adapter(
    preset: SFTPreset,
    rows: Sequence[Row],
    validation: Sequence[Row],
    folder: Path,
    *,
    seed: int = 0,
    scratch: Path | None = None,
    answer: int = 0,
    keep_order: bool = False,
) -> tuple[GPT, History, str | None]:
    """Train an adapter as a preset says; keep the one with the lowest validation loss.

    Args:
        preset: Model, adapter, batch size and schedule.
        rows: What to learn.
        validation: What to be measured on.
        folder: Gets the adapters ``best`` and ``last``, in PEFT's format.
        seed: Seed of the adapter and of the order of the rows.
        scratch: Where checkpoints are kept, and found after an interruption.
        answer: Answer this many validation rows at each evaluation, and report the accuracy
            there and the loss on as many training rows; 0 reports the validation loss alone.
        keep_order: Take the rows in their order, as a comparison with another trainer needs it.

    Returns:
        The model, what happened, and what the guard said where it stopped the run.

    Raises:
        ValueError: If the rows do not fill a step, there is nothing to be measured on, or a
            conversation is longer than the preset allows or does not end with an answer.
        ArtifactError: If ``scratch`` holds a checkpoint of another run, or a damaged one.
        TrainingIncomplete: If the adapter has not changed at the end.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502, DOC503
    if not validation:
        raise ValueError("there is nothing to measure: give at least one validation row")
    _check_judged(validation[: whole_number(answer, "answer")])
    tokenizer = tokenizer_of(preset.model)
    train_set, held_out = (
        encode_rows(part, tokenizer, preset.max_length, preset.chat_format)
        for part in (rows, validation)
    )
    check_examples(train_set, held_out, preset)
    model = base_model(preset)
    first_block = first_adapted_block(preset)
    streams = held_out_streams = None
    if first_block:
        model.requires_grad_(False)
        origin = f"{frozen_digest(model)} {preset.device}"
        streams = cached_streams(model, train_set, first_block, origin)
        held_out_streams = cached_streams(model, held_out, first_block, origin)
    inject_lora(model, preset.lora, seed)
    batches = PackedBatches(
        train_set, preset.batch_size, None if keep_order else seed, preset.device, streams,
        first_block,
    )  # fmt: skip
    best = (scratch or folder) / "best"
    history, diverged = History(), None

    def evaluate(current: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(current, GPT)
        row = {"val_loss": mean_loss(current, held_out, held_out_streams, first_block)}
        if answer:
            some = None if streams is None else streams[:answer]
            row["train_loss"] = mean_loss(current, train_set[:answer], some, first_block)
            row["accuracy"] = accuracy_of(
                current, tokenizer, validation[:answer], preset.chat_format
            )
        before = min((e["val_loss"] for e in history.evaluations), default=math.inf)
        if row["val_loss"] < before:
            save_adapter(current, preset.lora, best, base_model_name=preset.model)
        return row

    def loss(current: nn.Module, batch: PackedBatch) -> tuple[Tensor, int]:
        assert isinstance(current, GPT)
        return sft_loss(current, batch)

    try:
        train(
            model,
            loss,
            batches,
            replace(preset.training, seed=seed),
            evaluate=evaluate,
            checkpoint_folder=scratch,
            description=f"{preset.name} seed {seed}",
            history=history,
            identity={
                "lora": preset.lora,
                "quantization": preset.quantization,
                "dtype": dtype_of(preset),
                "chat_format": preset.chat_format,
                "max_length": preset.max_length,
                "batch_size": preset.batch_size,
                "validation": examples_digest(held_out),
                "answer": answer,
            },
        )
        updates = (layer.lora_B for layer in lora_layers(model).values())
        check_outcome(len(history.loss), preset, updates)
    except TrainingDiverged as error:
        diverged = str(error)
    save_adapter(model, preset.lora, folder / "last", base_model_name=preset.model)
    if best.parent != folder and best.is_dir():
        shutil.copytree(best, folder / "best", dirs_exist_ok=True)
    return model.eval(), history, diverged


def _check_judged(rows: Sequence[Row]) -> None:
    """Refuse questions whose answers nothing can judge, before the training and not after."""
    for index, row in enumerate(rows):
        if lacking := [name for name in ("kind", "entry") if name not in row]:
            raise ValueError(
                f"{row_name(row, index)} has no {lacking[0]!r}, by which its answer is judged: "
                "give rows that build_dataset made, or answer=0"
            )


def fine_tuned(
    preset: SFTPreset | str = "cpu",
    seed: int | None = None,
    *,
    examples: int = 0,
    answer: int = 0,
) -> SFTRun:
    """Load a run from the store, or train it.

    Args:
        preset: A preset of the engine ``by_hand`` or its name.
        seed: Seed of the adapter and of the order of the data; the base seed where it is left
            out.
        examples: Train on the first so many examples only; 0 means all.
        answer: See :func:`train_adapter`.

    Returns:
        The run.

    Raises:
        ValueError: If the preset needs another engine, or a GPU that is not here, or
            ``examples`` is negative.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    preset = get_preset(preset) if isinstance(preset, str) else preset
    seed = base_seed() if seed is None else seed
    if preset.engine != "by_hand" or preset.dataset != "reckoning":
        raise ValueError(
            f"the preset {preset.name!r} trains {preset.dataset} with {preset.engine}: run "
            f"posttrain sft --preset {preset.name}, or call run_engine of "
            "posttrain.sft.training.engines with examples of your own"
        )
    if examples < 0:
        raise ValueError(f"{examples} examples cannot be kept: give a number, or 0 for all")
    check_device(preset)
    data = build_dataset()
    rows = data["train"][: examples or None]

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        _, history, diverged = train_adapter(
            preset, rows, data["validation"], out, seed=seed, scratch=scratch, answer=answer
        )
        write_json_atomic(out / "history.json", asdict(history))
        return {"diverged": diverged, "seconds_training": history.seconds}

    artifact = get_or_build(
        f"sft-{preset.name}",
        build,
        config={
            "preset": asdict(preset),
            "seed": seed,
            "examples": examples,
            "answer": answer,
            "dtype": str(dtype_of(preset)),
        },
        data=dataset_hash([*rows, *data["validation"]]),
        modules=[__name__],
    )
    history = History(**json.loads((artifact.folder / "history.json").read_text("utf-8")))
    return SFTRun(preset, seed, history, artifact.metrics["diverged"], artifact)
