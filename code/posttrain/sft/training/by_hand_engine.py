"""The same run by hand, behind the same call as TRL's and Unsloth's.

Chapter: sft/your_model.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from posttrain.core.assets import load_tokenizer
from posttrain.core.training.checkpoints import History
from posttrain.core.training.identity import tensor_digest
from posttrain.core.training.loop import train
from posttrain.core.training.run_log import RunLog
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers, lora_parameters
from posttrain.sft.adapters.peft_models import check_same_adapter
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset, dtype_of
from posttrain.sft.training.evaluation import mean_loss
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packing import PackedBatch, PackedBatches, examples_digest
from posttrain.sft.training.run import base_model
from posttrain.sft.training.run_checks import check_examples, check_outcome
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run_by_hand(
    preset: SFTPreset,
    examples: Sequence[EncodedChat],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedChat] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with this book's own model, adapter, loss and loop.

    A run that was interrupted goes on from its checkpoint where it is started again with the
    same folder, examples and preset.

    Args:
        preset: The run; with ``quantization="nf4"`` the weights are held in 4 bits.
        examples: Encoded conversations. Each pass draws its own order from the seed.
        folder: Gets the adapter, and a checkpoint while it runs.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded conversations to be measured on every ``eval_steps``; the adapter of
            the lowest loss is kept, that before the first step left out.
        watching: How the run is shown; a progress bar where it is left out.

    Returns:
        What happened.

    Raises:
        ValueError: If the examples do not fill a step, one cannot be trained as it is, or
            ``adapter`` is none of the preset's shape.
        ArtifactError: If the folder holds a checkpoint of another run, or a damaged one.
        TrainingDiverged: If the guard stops the run.
        TrainingIncomplete: If the adapter has not changed at the end.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    check_examples(examples, validation, preset)
    if adapter is not None:
        check_same_adapter(adapter, preset.lora)
    training, scratch = preset.training, folder / "checkpoint"
    model = base_model(preset)
    if adapter is None:
        inject_lora(model, preset.lora, training.seed)
        lora = preset.lora
    else:
        lora = load_adapter(model, adapter)
    batches = PackedBatches(list(examples), preset.batch_size, training.seed, preset.device)
    shown = None if watching is None else _Shown(preset, watching, load_tokenizer(preset.model))
    history, best, tokens = History(), scratch / "best", 0

    def loss(current: nn.Module, batch: PackedBatch) -> tuple[Tensor, int]:
        nonlocal tokens
        assert isinstance(current, GPT)
        tokens += len(batch.input_ids)
        return sft_loss(current, batch)

    def evaluate(current: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(current, GPT)
        row: dict[str, Any] = {}
        if validation:
            row["val_loss"] = mean_loss(current, validation)
            earlier = (e["val_loss"] for e in history.evaluations if e["step"])
            if step and row["val_loss"] < min(earlier, default=math.inf):
                save_adapter(current, lora, best, base_model_name=preset.model)
        if shown is not None:
            shown.evaluation(current, step, row)
        return row

    def on_step(step: int, so_far: History) -> None:
        if shown is not None:
            shown.step(model, step, so_far, tokens)

    try:
        train(
            model,
            loss,
            batches,
            training,
            evaluate=evaluate,
            checkpoint_folder=scratch,
            description=preset.name,
            history=history,
            on_step=None if shown is None else on_step,
            identity={
                **_identity(preset),
                "dtype": dtype_of(preset),
                "validation": examples_digest(validation),
                "start": None if adapter is None else _digest(model),
            },
        )
        updates = (layer.lora_B for layer in lora_layers(model).values())
        check_outcome(len(history.loss), preset, updates)
    finally:
        if shown is not None:
            shown.close()
    result = folder / "adapter"
    if validation:
        shutil.copytree(best, result, dirs_exist_ok=True)
    else:
        save_adapter(model, lora, result, base_model_name=preset.model)
    shutil.rmtree(scratch, ignore_errors=True)
    return EngineRun(
        losses=history.loss,
        seconds=history.seconds,
        tokens=tokens,
        adapter=result,
        validation={e["step"]: e["val_loss"] for e in history.evaluations if "val_loss" in e},
    )


def _identity(preset: SFTPreset) -> dict[str, Any]:
    """What decides the result, as the loop does not know it; where the model lies does not."""
    fields = asdict(preset)
    return {name: value for name, value in fields.items() if name not in ("name", "model")}


def _digest(model: GPT) -> str:
    parts = [parameter.detach().flatten() for parameter in lora_parameters(model).values()]
    return tensor_digest(torch.cat(parts))


class _Shown:
    """The run's log, opened when the first thing is known of it: an earlier sitting may have
    begun it.
    """

    def __init__(
        self, preset: SFTPreset, watching: Watching, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._preset, self._watching, self._tokenizer = preset, watching, tokenizer
        self._log: RunLog | None = None
        self._tokens = 0

    def _opened(self, start: int) -> RunLog:
        if self._log is None:
            self._log = self._watching.log(self._preset, start)
        return self._log

    def step(self, model: GPT, step: int, history: History, tokens: int) -> None:
        """Show a step, and the answers where they are due."""
        log = self._opened(step - 1)
        log.step(
            step,
            history.loss[-1],
            history.learning_rate[-1],
            tokens - self._tokens,
            history.grad_norm[-1],
        )
        self._tokens = tokens
        if self._watching.due(step, self._preset.training.max_steps):
            log.samples(step, self._answers(model))

    def evaluation(self, model: GPT, step: int, numbers: dict[str, float]) -> None:
        """Show an evaluation, and the answers before the first step."""
        log = self._opened(step)
        if numbers:
            log.evaluation(step, numbers)
        if step == 0 and self._watching.due(0, self._preset.training.max_steps):
            log.samples(0, self._answers(model))

    def close(self) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    def _answers(self, model: GPT) -> list[tuple[str, str]]:
        watching = self._watching
        params = SamplingParams(
            temperature=0.0,
            max_new_tokens=watching.max_new_tokens,
            stop_token_ids=(watching.stop_token_id,),
        )
        found = generate(model, watching.prompt_ids, params, seed=0)
        texts = self._tokenizer.batch_decode(found.to_lists(), skip_special_tokens=True)
        return list(zip(watching.prompts, texts, strict=True))
