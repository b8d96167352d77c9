"""A template that is none of ours is not taken for one; tests/parity has the others."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from posttrain.sft.chat.recognition import chat_format_of, detect_format

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


QWEN = (
    "{%- if messages[0]['role'] == 'system' %}"
    "{{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}"
    "{%- else %}{{- '<|im_start|>system\nYou are Qwen, created by Alibaba Cloud. You are a "
    "helpful assistant.<|im_end|>\n' }}{%- endif %}"
    "{%- for message in messages %}{%- if message['role'] != 'system' %}"
    "{{- '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{%- endif %}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"
)
PLAIN = QWEN.replace("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.", "")


def with_template(tokenizer: PreTrainedTokenizerBase, template: str | None):
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    return changed


def test_smollm2_is_found(tokenizer: PreTrainedTokenizerBase) -> None:
    assert detect_format(tokenizer) == "smollm2"


def test_other_templates_over_the_same_markers(tokenizer: PreTrainedTokenizerBase) -> None:
    assert detect_format(with_template(tokenizer, QWEN)) == "qwen2.5"


def test_what_is_not_known_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ValueError, match="has no chat template, so the model is a base model"):
        detect_format(with_template(tokenizer, None))
    with pytest.raises(ValueError, match=r"writes none of the formats .*--set chat_format="):
        detect_format(with_template(tokenizer, PLAIN))
    refusing = "{{ raise_exception('no system message') }}"
    with pytest.raises(ValueError, match="writes none of the formats"):
        detect_format(with_template(tokenizer, refusing))
