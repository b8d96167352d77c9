"""Which chat format a model was trained with, found by asking its own template.

Chapter: sft/your_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.sft.chat.formats import FORMATS
from posttrain.sft.chat.messages import Message
from posttrain.sft.chat.template import render, special_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TURNS: list[Message] = [
    {"role": "user", "content": "Is water wet?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "And ice?"},
]
_SYSTEM: Message = {"role": "system", "content": "Be brief."}
_FIXED_DATE = "26 Jul 2024"  # what our Llama 3.2 format writes; see FORMATS


def detect_format(tokenizer: PreTrainedTokenizerBase) -> str:
    """Find the format that writes what a tokenizer's own chat template writes.

    Args:
        tokenizer: A tokenizer with a chat template.

    Returns:
        The first key of ``FORMATS`` that agrees on conversations with and without a system
        message.

    Raises:
        ValueError: If there is no template, or it writes another format.

    Chapter: sft/your_model.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template, so the model is a base model or its files are "
            "incomplete: name a format with --set chat_format=..., out of " + ", ".join(FORMATS)
        )
    for name in FORMATS:
        if _agrees(tokenizer, name):
            return name
    raise ValueError(
        "the tokenizer's chat template writes none of the formats that are known here "
        f"({', '.join(FORMATS)}): name the nearest with --set chat_format=..."
    )


def _agrees(tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    try:
        special_tokens(tokenizer, name)
    except ValueError:  # it has not even the markers
        return False
    for conversation in (_TURNS, [_SYSTEM, *_TURNS]):
        try:
            theirs = tokenizer.apply_chat_template(
                [{"role": m["role"], "content": m["content"]} for m in conversation],
                tokenize=False,
                add_generation_prompt=True,
                date_string=_FIXED_DATE,
            )
        except Exception:  # a template may refuse a system message, in words of its own
            return False
        if theirs != render(conversation, name, add_generation_prompt=True):
            return False
    return True
