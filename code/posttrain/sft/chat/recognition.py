"""Which of our chat formats a tokenizer's own template is.

Chapter: sft/your_model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from posttrain.sft.chat.formats import FORMATS
from posttrain.sft.chat.template import Message, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_DAY = "26 Jul 2024"  # what `FORMATS` writes where a template looks at the clock
_QUESTION: list[Message] = [{"role": "user", "content": "Capital of France? "}]
_ANSWER: list[Message] = [{"role": "assistant", "content": "Paris."}]
_SYSTEM: list[Message] = [{"role": "system", "content": "Be brief."}]
_PROBES = (_QUESTION + _ANSWER, (_QUESTION + _ANSWER) * 2, _SYSTEM + _QUESTION + _ANSWER)


def chat_format_of(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Find the format that writes a few conversations as the tokenizer's template does.

    Args:
        tokenizer: The tokenizer of an instruction model.

    Returns:
        A key of `FORMATS`; None where none agrees, or the tokenizer has no template.

    Chapter: sft/your_model.
    """
    if not getattr(tokenizer, "chat_template", None):
        return None
    for name in FORMATS:
        try:
            if all(_agrees(probe, tokenizer, name) for probe in _PROBES):
                return name
        except Exception:  # a marker is missing, or a template refuses in its own way
            continue
    return None


def detect_format(tokenizer: PreTrainedTokenizerBase) -> str:
    """Find the format of a model that is to be trained or talked to.

    Args:
        tokenizer: Its tokenizer.

    Returns:
        A key of `FORMATS`.

    Raises:
        ValueError: If there is no template, or it writes another format.

    Chapter: sft/your_model.
    """
    if found := chat_format_of(tokenizer):
        return found
    known = ", ".join(FORMATS)
    if not getattr(tokenizer, "chat_template", None):
        raise ValueError(
            "the tokenizer has no chat template, so the model is a base model or its files are "
            f"incomplete: name a format with --set chat_format=..., out of {known}"
        )
    raise ValueError(
        "the tokenizer's chat template writes none of the formats that are known here "
        f"({known}): name the nearest with --set chat_format=..."
    )


def _agrees(messages: list[Message], tokenizer: PreTrainedTokenizerBase, name: str) -> bool:
    ours = encode_chat(messages, tokenizer, name).input_ids
    plain = [{"role": m["role"], "content": m["content"]} for m in messages]
    theirs = tokenizer.apply_chat_template(plain, return_dict=False, date_string=_DAY)
    return bool(ours == theirs)
