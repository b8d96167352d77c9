"""What every engine asks of its examples before it begins, and of its adapter at the end.

Trainers differ in what they do with rows that cannot be trained: one cuts them, one drops them,
one ends after no step and calls that a run. Here all of them refuse the same.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from posttrain.core.arguments import token_ids
from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.sft.chat.masking import check_encoded
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset


def check_examples(
    examples: Sequence[EncodedChat], validation: Sequence[EncodedChat], preset: SFTPreset
) -> None:
    """Refuse examples that a run could not learn from as they are.

    A row that is longer than ``max_length`` is refused: cut, it would teach an answer without
    its end. Whoever reads the data drops such rows and counts them.

    Args:
        examples: Encoded conversations to learn from.
        validation: Encoded conversations to be measured on; none is allowed.
        preset: Batch size, accumulation and longest row.

    Raises:
        ValueError: If the examples do not fill one optimizer step; or a row has no trained
            token, another number of mask entries than of tokens, what is no token id, or more
            tokens than allowed.

    Chapter: sft/your_model.
    """
    accumulated = preset.training.gradient_accumulation_steps
    needed = preset.batch_size * accumulated
    if len(examples) < needed:
        raise ValueError(
            f"{len(examples)} examples do not fill one step of batch_size "
            f"{preset.batch_size} x gradient_accumulation_steps {accumulated} = {needed}: give "
            "more examples, or lower one of the two"
        )
    for part, rows in (("training", examples), ("validation", validation)):
        for index, example in enumerate(rows):
            if fault := _fault(example, preset.max_length):
                raise ValueError(f"{part} example {index}, counted from 0: {fault}")


def _fault(example: EncodedChat, max_length: int) -> str | None:
    try:
        if min(token_ids(example.input_ids, "input_ids"), default=0) < 0:
            return f"input_ids holds {min(example.input_ids)}, and token ids count from 0"
        check_encoded(example)
    except ValueError as error:
        return str(error)
    if (tokens := len(example.input_ids)) > max_length:
        return (
            f"it has {tokens} tokens and max_length is {max_length}: raise max_length, or drop "
            "the row before, since an answer that is cut is learned without its end"
        )
    return None


def check_outcome(steps: int, preset: SFTPreset, updates: Iterable[Tensor]) -> None:
    """Refuse to call a run finished that did not train.

    Args:
        steps: Optimizer steps that were taken.
        preset: Says how many there should be.
        updates: The adapter's matrices ``B``, which start at zero.

    Raises:
        TrainingIncomplete: If there were fewer steps, or every ``B`` is still zero.
        TrainingDiverged: If one holds NaN or infinity.

    Chapter: sft/your_model.
    """
    training = preset.training
    if steps < training.max_steps:
        raise TrainingIncomplete(
            f"the run ended after {steps} of {training.max_steps} steps: look for what stopped "
            "it, and start it again"
        )
    moved = False
    for B in updates:
        if not B.isfinite().all():
            raise TrainingDiverged(
                steps - 1, "the adapter holds NaN or infinity; lower learning_rate"
            )
        moved = moved or bool(B.any())
    if not moved:
        raise TrainingIncomplete(
            f"after {steps} steps every B of the adapter is still zero, so it changes nothing: "
            "either learning_rate was 0 throughout (warmup_steps is "
            f"{training.warmup_steps}, and some trainers start it at 0), or each step "
            "overflowed in float16 and was skipped"
        )
