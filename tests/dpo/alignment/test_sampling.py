"""posttrain.dpo.alignment.sampling: answers do not depend on how they are batched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from posttrain.dpo.alignment.sampling import sample_answers
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.run import base_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTIONS = [
    "Why is tea hot?",
    "Why?",
    "How do I keep a very long coat clean in winter?",
    "Why?",
]


def answers(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase, **options: Any
) -> list[list[str]]:
    return sample_answers(
        base_model(preset), tokenizer, options.pop("questions", QUESTIONS),
        max_new_tokens=6, **options,
    )  # fmt: skip


def test_greedy_answers_depend_on_the_question_alone(
    tiny_preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    together = answers(tiny_preset, tokenizer)
    for size in (1, 2, 3):
        assert answers(tiny_preset, tokenizer, batch_size=size) == together
    for question, expected in zip(QUESTIONS, together, strict=True):
        assert answers(tiny_preset, tokenizer, questions=[question]) == [expected]
    assert together[1] == together[3] and len({row[0] for row in together}) > 1


def test_each_question_gets_as_many_answers_as_asked_for(
    tiny_preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    drawn = answers(tiny_preset, tokenizer, num_generations=3, temperature=1.0, seed=1)
    assert [len(row) for row in drawn] == [3] * 4
    assert len({text for row in drawn for text in row}) > 6
    options = {"num_generations": 3, "temperature": 1.0}
    assert answers(tiny_preset, tokenizer, seed=1, **options) == drawn
    assert answers(tiny_preset, tokenizer, seed=2, **options) != drawn
    greedy = answers(tiny_preset, tokenizer, num_generations=3)
    assert [len(set(row)) for row in greedy] == [1] * 4
    assert [row[0] for row in greedy] == [row[0] for row in answers(tiny_preset, tokenizer)]


def test_a_system_message_is_read(
    tiny_preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    assert answers(tiny_preset, tokenizer, system="Be brief.") != answers(
        tiny_preset, tokenizer
    )


def test_what_is_refused(tiny_preset: SFTPreset, tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="give at least one question"):
        answers(tiny_preset, tokenizer, questions=[])
    with pytest.raises(ValueError, match="batch_size"):
        answers(tiny_preset, tokenizer, batch_size=0)
