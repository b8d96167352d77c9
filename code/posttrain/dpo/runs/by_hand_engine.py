"""The run by hand, behind the same call as TRL's and Unsloth's.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from posttrain.core.assets import load_tokenizer
from posttrain.core.errors import TrainingDiverged
from posttrain.core.training.checkpoints import History
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.checks import check_pair_engine, check_pair_outcome, check_run_pairs
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.dpo.runs.watching import PairLog, measured, open_log
from posttrain.dpo.training.dpo_run import PairMetrics, train_pairs
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.training.run import base_model
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def run_pairs_by_hand(
    preset: DPOPreset,
    pairs: Sequence[EncodedPair],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedPair] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with this book's own model, adapter, loss and loop.

    The reference is the model as it is before the first step: with its fine-tuned adapter where
    there is one, else the model alone, since a new adapter changes nothing. What it says of all
    pairs is computed once and kept, so a run that goes on after an interruption compares with
    the same numbers.

    Args:
        preset: The run; with ``quantization="nf4"`` the weights are held in 4 bits.
        pairs: Encoded pairs. Each pass draws its own order from the seed.
        folder: Gets the adapter, and a checkpoint while it runs.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded pairs to be measured on every ``eval_steps``; the adapter of the
            lowest loss is kept, that before the first step left out.
        watching: How the run is shown; a progress bar where it is left out.

    Returns:
        What happened.

    Raises:
        ValueError: If the pairs do not fill a step, nothing is held out, or a setting would be
            ignored.
        ArtifactError: If the folder holds a checkpoint of another run, or a damaged one.
        TrainingDiverged: If the guard stops the run.
        TrainingIncomplete: If the adapter has not changed at the end.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    check_pair_engine(preset)
    check_run_pairs(pairs, validation, preset)
    start, scratch, kept = trainer_preset(preset), folder / "checkpoint", folder / "adapters"
    model, lora = base_model(start), start.lora
    if adapter is None:
        inject_lora(model, lora, preset.training.seed)
    else:
        lora = load_adapter(model, adapter)
    before = _weights(model)
    shown = None if watching is None else _Shown(preset, watching, load_tokenizer(start.model))
    read = 0

    def on_step(step: int, so_far: History, found: PairMetrics, tokens: int) -> None:
        nonlocal read
        read += tokens
        if shown is not None:
            shown.step(model, step, so_far, found, tokens)

    def on_evaluation(current: GPT, step: int, found: PairMetrics) -> None:
        if shown is not None:
            shown.evaluation(current, step, found)

    try:
        history, diverged = train_pairs(
            model,
            lora,
            pairs,
            validation,
            preset.loss,
            preset.training,
            kept,
            batch_size=preset.batch_size,
            seed=preset.training.seed,
            scratch=scratch,
            base_model_name=start.model,
            keep_start=False,
            on_step=on_step,
            on_evaluation=on_evaluation,
        )
    finally:
        if shown is not None:
            shown.close()
    if diverged is not None:
        raise TrainingDiverged(len(history.loss), diverged.partition(": ")[2])
    check_pair_outcome(len(history.loss), preset, before, _weights(model))
    result = folder / "adapter"
    shutil.copytree(kept / "best", result, dirs_exist_ok=True)
    for left in (scratch, kept):
        shutil.rmtree(left, ignore_errors=True)
    return EngineRun(
        losses=history.loss,
        seconds=history.seconds,
        tokens=read,
        adapter=result,
        validation={row["step"]: row["loss"] for row in history.evaluations},
    )


def _weights(model: GPT) -> dict[str, Tensor]:
    return {name: weight.detach().clone() for name, weight in lora_parameters(model).items()}


class _Shown:
    """The run's log, opened when the first thing is known of it: an earlier sitting may have
    begun it.
    """

    def __init__(
        self, preset: DPOPreset, watching: Watching, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._preset, self._watching, self._tokenizer = preset, watching, tokenizer
        self._log: PairLog | None = None

    def _opened(self, start: int) -> PairLog:
        if self._log is None:
            self._log = open_log(self._watching, self._preset, start)
        return self._log

    def step(
        self, model: GPT, step: int, history: History, found: PairMetrics, tokens: int
    ) -> None:
        """Show a step, and the answers where they are due."""
        log = self._opened(step - 1)
        log.pair_step(step, found, history.learning_rate[-1], tokens, history.grad_norm[-1])
        if self._watching.due(step, self._preset.training.max_steps):
            log.samples(step, self._answers(model))

    def evaluation(self, model: GPT, step: int, found: PairMetrics) -> None:
        """Show an evaluation, and the answers before the first step."""
        log = self._opened(step)
        log.pair_evaluation(step, measured(found))
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
