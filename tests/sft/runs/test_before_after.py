"""posttrain.sft.runs.before_after: row by row, with intervals and paired tests."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import EncodedChat, Message
from posttrain.sft.runs.before_after import (
    Measured,
    answer_all,
    compare,
    comparison_lines,
    measure,
    same_answers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Fixed:
    """Answers every prompt with one text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, text: str) -> None:
        self.ids = tokenizer.encode(text, add_special_tokens=False)
        self.asked: list[list[int]] = []

    def losses(self, examples: Sequence[EncodedChat]) -> list[float]:
        return [float(len(example.input_ids)) for example in examples]

    def answers(
        self, prompts: Sequence[Sequence[int]], stop: int, max_new_tokens: int
    ) -> list[list[int]]:
        self.asked = [list(prompt) for prompt in prompts]
        assert stop == 2
        return [self.ids[:max_new_tokens] for _ in prompts]


def rows(n: int) -> list[list[Message]]:
    return [
        [
            {"role": "user", "content": f"{i}?"},
            {"role": "assistant", "content": "Yes  sir" if i % 2 else "No"},
        ]
        for i in range(n)
    ]


def test_a_model_is_measured(tokenizer: PreTrainedTokenizerBase) -> None:
    conversations = rows(120)
    examples = [encode_for_training(row, tokenizer) for row in conversations]
    speaker = Fixed(tokenizer, "Yes sir\n")
    found = measure(speaker, tokenizer, examples, conversations, "smollm2")  # type: ignore[arg-type]
    assert len(found.losses) == 120 and len(found.answers) == 100
    assert found.exact == [False, True] * 50
    asked = tokenizer.decode(speaker.asked[3])
    assert asked.endswith("user\n3?<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(ValueError, match="there is no held-out row to measure"):
        measure(speaker, tokenizer, [], [], "smollm2")  # type: ignore[arg-type]
    assert answer_all(speaker, tokenizer, rows(2), "smollm2", 1) == ["Yes", "Yes"]  # type: ignore[arg-type]


def test_white_space_is_no_mistake() -> None:
    assert same_answers([" a  b\n", "a b", "ab"], ["a b", "a b c", "a b"]) == [
        True,
        False,
        False,
    ]


def test_two_models_are_compared_row_by_row() -> None:
    before = Measured([2.0, 3.0, 4.0, 5.0], ["a", "b", "c", "d"], ["a", "x", "y", "z"])
    after = Measured([1.0, 2.0, 3.0, 4.5], ["q", "x", "y", "z"], ["a", "x", "y", "z"])
    found = compare(before, after)
    json.dumps(found)
    assert found["rows"] == 4
    assert found["loss"]["before"]["value"] == 3.5 and found["loss"]["after"]["value"] == 2.625
    assert found["loss"]["change"]["value"] == -0.875
    assert found["loss"]["change"]["high"] < 0  # paired: single losses overlap by far
    assert (found["exact"]["gained"], found["exact"]["lost"]) == (3, 1)
    assert found["exact"]["p_value"] == pytest.approx(0.625)
    told = "\n".join(comparison_lines(found))
    assert "held-out rows: 4 (4 answered)" in told and "change -0.875 [" in told
    assert "25 % [" in told and "75 % [" in told and "3 gained, 1 lost" in told


def test_one_row_has_no_interval() -> None:
    one = Measured([2.0], ["a"], ["a"])
    found = compare(one, Measured([1.0], ["b"], ["a"]))
    assert found["loss"] == {"before": 2.0, "after": 1.0}
    assert "loss per token: 2.000 before, 1.000 after" in comparison_lines(found)
