"""A template that is none of ours is not taken for one; tests/parity has the others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

from posttrain.sft.chat.recognition import chat_format_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def test_other_templates_are_not(tokenizer: PreTrainedTokenizerBase) -> None:
    own = copy.deepcopy(tokenizer)
    own.chat_template = tokenizer.chat_template.replace("named SmolLM", "named Ann")
    assert chat_format_of(own) is None
    own.chat_template = "{{ raise_exception('no') }}"
    assert chat_format_of(own) is None
    own.chat_template = None
    assert chat_format_of(own) is None
    assert chat_format_of(tokenizer) == "smollm2"
