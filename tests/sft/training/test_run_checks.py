"""sft.training.run_checks: what no engine may train, and what no engine may call a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import CPU, SFTPreset
from posttrain.sft.training.engines import ENGINES
from posttrain.sft.training.run_checks import check_examples, check_outcome

GOOD = EncodedChat([5, 6, 7, 8], [0, 0, 1, 1])
PRESET = replace(CPU, batch_size=2, max_length=4)


def accumulating(preset: SFTPreset, steps: int) -> SFTPreset:
    training = replace(preset.training, gradient_accumulation_steps=steps)
    return replace(preset, training=training)


def test_good_examples_pass() -> None:
    check_examples([GOOD] * 2, [], PRESET)
    check_examples([GOOD] * 6, [GOOD], accumulating(PRESET, 3))
    check_examples([GOOD] * 2, [GOOD] * 9, replace(PRESET, max_length=9))


@pytest.mark.parametrize(("count", "steps"), [(0, 1), (1, 1), (5, 3)])
def test_examples_that_fill_no_step_are_refused(count: int, steps: int) -> None:
    sentence = (
        f"^{count} examples do not fill one step of batch_size 2 x gradient_accumulation_steps "
        f"{steps} = {2 * steps}: give more examples, or lower one of the two$"
    )
    with pytest.raises(ValueError, match=sentence):
        check_examples([GOOD] * count, [GOOD] * 9, accumulating(PRESET, steps))


@pytest.mark.parametrize(
    ("ids", "mask", "sentence"),
    [
        (
            [5, 6, 7, 8, 9],
            [0, 0, 0, 1, 1],
            "it has 5 tokens and max_length is 4: raise max_length",
        ),
        ([5, 6, 7], [0, 1], "2 mask entries for 3 tokens: give one for each"),
        ([5, 6], [0, 1, 1], "3 mask entries for 2 tokens"),
        ([5, 6, 7], [0, 0, 0], "none of the 3 tokens is trained"),
        ([], [], "none of the 0 tokens is trained"),
        ([5, 6], [1, 1], "the first token is trained"),
        ([5, 6], [0, 2], "the mask contains 2"),
        (
            [[5], [6]],
            [0, 1],
            r"input_ids is \[\[5\], \[6\]\]: give a flat sequence of token ids",
        ),
        ([5, 6.5], [0, 1], "input_ids is .*: give a flat sequence of token ids"),
        ([5, None], [0, 1], "input_ids is .*: give a flat sequence of token ids"),
        ([5, -100], [0, 1], "input_ids holds -100, and token ids count from 0"),
    ],
)
def test_an_example_that_cannot_be_trained_as_it_is_is_named(
    ids: list[Any], mask: list[int], sentence: str
) -> None:
    bad = EncodedChat(ids, mask)
    with pytest.raises(ValueError, match=f"^training example 1, counted from 0: {sentence}"):
        check_examples([GOOD, bad], [GOOD], PRESET)
    with pytest.raises(ValueError, match=f"^validation example 0, counted from 0: {sentence}"):
        check_examples([GOOD, GOOD], [bad], PRESET)


def test_a_row_as_long_as_allowed_passes_and_one_token_more_does_not() -> None:
    check_examples([GOOD, GOOD], [], replace(PRESET, max_length=4))
    with pytest.raises(ValueError, match="4 tokens and max_length is 3"):
        check_examples([GOOD, GOOD], [], replace(PRESET, max_length=3))


# --- afterwards ---

ZERO, MOVED = torch.zeros(3, 2), torch.tensor([[0.0, 1e-9]])
STEPS = PRESET.training.max_steps


def test_a_run_that_moved_anything_counts() -> None:
    check_outcome(STEPS, PRESET, [MOVED])
    check_outcome(STEPS, PRESET, iter([ZERO, MOVED, ZERO]))


@pytest.mark.parametrize("steps", [0, STEPS - 1])
def test_fewer_steps_than_were_asked_for_are_no_run(steps: int) -> None:
    with pytest.raises(TrainingIncomplete, match=f"ended after {steps} of {STEPS} steps"):
        check_outcome(steps, PRESET, [MOVED])


@pytest.mark.parametrize("updates", [[], [ZERO], [ZERO, ZERO.bfloat16()]])
def test_an_adapter_of_zeros_is_no_run(updates: list[torch.Tensor]) -> None:
    sentence = (
        f"after {STEPS} steps every B of the adapter is still zero, so it changes nothing"
    )
    with pytest.raises(TrainingIncomplete, match=sentence):
        check_outcome(STEPS, PRESET, updates)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_an_adapter_that_is_no_number_has_diverged(value: float) -> None:
    broken = torch.tensor([[1.0, value]])
    with pytest.raises(TrainingDiverged, match="the adapter holds NaN or infinity"):
        check_outcome(STEPS, PRESET, [MOVED, broken])


# --- the same in every engine, before anything is loaded ---


def refused(
    engine: str, preset: SFTPreset, examples: list[EncodedChat], held_out: list[EncodedChat]
) -> str:
    with pytest.raises(ValueError) as caught:
        ENGINES[engine](
            replace(preset, model="no/such-model"), examples, Path("no/such/folder"),
            validation=held_out,
        )  # fmt: skip
    return str(caught.value)


@pytest.mark.parametrize(
    ("examples", "held_out", "sentence"),
    [
        ([], [], "0 examples do not fill one step of batch_size 2 x"),
        ([GOOD], [], "1 examples do not fill one step of batch_size 2 x"),
        (
            [GOOD, EncodedChat([5, 6, 7, 8, 9], [0, 0, 0, 0, 1])],
            [],
            "training example 1, counted",
        ),
        (
            [GOOD, EncodedChat([5, 6, 7], [0, 1])],
            [],
            "training example 1, counted from 0: 2 mask",
        ),
        (
            [GOOD, EncodedChat([5, 6], [0, 0])],
            [],
            "training example 1, counted from 0: none of",
        ),
        ([GOOD, GOOD], [EncodedChat([5] * 9, [0] * 8 + [1])], "validation example 0, counted"),
    ],
)
def test_every_engine_refuses_the_same(
    examples: list[EncodedChat], held_out: list[EncodedChat], sentence: str
) -> None:
    assert set(ENGINES) == {"by_hand", "trl", "unsloth"}
    said = {refused(engine, PRESET, examples, held_out) for engine in ENGINES}
    assert len(said) == 1 and said.pop().startswith(sentence)
