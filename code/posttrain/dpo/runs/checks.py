"""What every engine asks of a run on pairs before it begins, and of its adapter at the end.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.training.trl_dpo import check_trl_loss


def check_pair_engine(preset: DPOPreset) -> None:
    """Refuse settings that an engine would ignore, or read in another way than the others.

    Args:
        preset: The run.

    Raises:
        ValueError: If the engine lacks the loss, switches a dropout off that was asked for, or
            cannot compute activations twice.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    start = preset.start
    if start.engine == "by_hand":
        if preset.gradient_checkpointing:
            raise ValueError(
                "gradient_checkpointing is true and the run by hand keeps its activations: add "
                "--set gradient_checkpointing=false, or choose engine trl or unsloth"
            )
        return
    check_trl_loss(preset.loss)
    if start.lora.lora_dropout:
        raise ValueError(
            f"lora_dropout is {start.lora.lora_dropout:g} and TRL's DPOTrainer, which engine "
            f"{start.engine} runs, switches dropout off: train with --set engine=by_hand, or "
            "from an adapter without it"
        )


def check_run_pairs(
    pairs: Sequence[EncodedPair], validation: Sequence[EncodedPair], preset: DPOPreset
) -> None:
    """Refuse pairs that a run could not learn from as they are.

    Args:
        pairs: Encoded pairs to learn from.
        validation: Encoded pairs to be measured on.
        preset: Batch size, accumulation and longest row.

    Raises:
        ValueError: If the pairs do not fill one optimizer step, nothing is held out, or a pair
            is longer than allowed: cut, it would lose an answer's end.

    Chapter: dpo/alignment.
    """
    accumulated = preset.training.gradient_accumulation_steps
    needed = preset.batch_size * accumulated
    if len(pairs) < needed:
        raise ValueError(
            f"{len(pairs)} pairs do not fill one step of batch_size {preset.batch_size} x "
            f"gradient_accumulation_steps {accumulated} = {needed}: give more pairs, or lower "
            "one of the two"
        )
    if not validation:
        raise ValueError("there is nothing to measure: give at least one held-out pair")
    for part, rows in (("training", pairs), ("held-out", validation)):
        for index, pair in enumerate(rows):
            if pair.longest > preset.max_length:
                raise ValueError(
                    f"{part} pair {index}, counted from 0, has {pair.longest} tokens and "
                    f"max_length is {preset.max_length}: raise max_length, or drop the pair "
                    "before"
                )


def check_pair_outcome(
    steps: int, preset: DPOPreset, start: Mapping[str, Tensor], end: Mapping[str, Tensor]
) -> None:
    """Refuse to call a run finished that did not train.

    Args:
        steps: Optimizer steps that were taken.
        preset: Says how many there should be.
        start: The adapter before the first step.
        end: The adapter after the last one, by the same names.

    Raises:
        TrainingIncomplete: If there were fewer steps, or nothing has changed.
        TrainingDiverged: If the adapter holds NaN or infinity.

    Chapter: dpo/alignment.
    """
    training = preset.training
    if steps < training.max_steps:
        raise TrainingIncomplete(
            f"the run ended after {steps} of {training.max_steps} steps: look for what stopped "
            "it, and start it again"
        )
    if not all(weight.isfinite().all() for weight in end.values()):
        raise TrainingDiverged(
            steps - 1, "the adapter holds NaN or infinity; lower learning_rate"
        )
    if all(bool((weight == start[name]).all()) for name, weight in end.items()):
        raise TrainingIncomplete(
            f"after {steps} steps the adapter is what it was before the first: either "
            f"learning_rate was 0 throughout (warmup_steps is {training.warmup_steps}, and "
            "some trainers start it at 0), or each step overflowed in float16 and was skipped"
        )
