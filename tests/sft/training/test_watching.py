"""posttrain.sft.training.watching: what is shown, and when. Engines: test_trl_watching."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.sft.chat.template import Message
from posttrain.sft.training.watching import Watching, watch, watching_from

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def test_prompts_are_encoded_up_to_the_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    asked: list[list[Message]] = [[{"role": "user", "content": "Hi"}]]
    found = watch(Path("out"), asked, tokenizer, "smollm2", sample_steps=5)
    assert found.prompts == ("Hi",) and found.stop_token_id == 2
    text = tokenizer.decode(list(found.prompt_ids[0]))
    assert text.endswith("Hi<|im_end|>\n<|im_start|>assistant\n")


def test_it_goes_to_another_process_and_back(tokenizer: PreTrainedTokenizerBase) -> None:
    asked: list[list[Message]] = [[{"role": "user", "content": "Hi"}]]
    found = watch(Path("out"), asked, tokenizer, "smollm2", report_to=("wandb",))
    assert watching_from(json.loads(json.dumps(asdict(found)))) == found
    assert watching_from(None) is None


def test_when_answers_are_due() -> None:
    shown = Watching("out", prompts=("Hi",), sample_steps=4)
    assert [step for step in range(11) if shown.due(step, 10)] == [0, 4, 8, 10]
    assert not any(Watching("out", sample_steps=4).due(step, 10) for step in range(11))
    assert not any(Watching("out", prompts=("Hi",)).due(step, 10) for step in range(11))
