"""The chat formats of four families of models, side by side.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

MARKER = re.compile(r"(<[^<>\s]+>)")


@dataclass(frozen=True)
class ChatFormat:
    """How a family of models writes a conversation.

    A turn is ``turn_start``, the role, ``role_end``, the content, ``stop_token`` and
    ``after_stop``, in this order. The generation prompt is an assistant's turn up to
    ``role_end``.

    Attributes:
        turn_start: Marker that opens a turn.
        role_end: What stands between the role and the content.
        stop_token: Marker that ends a turn. The model must learn to write it.
        after_stop: What the template writes after that. The model never writes it.
        bos: Marker in front of the first turn.
        default_system: System message of a conversation that brings none; None adds no turn.
        trims_content: Whether white space around a content is removed.
        system_preamble: What the template itself writes before a system message. Where it
            writes something, ``default_system`` must not be None: the turn always stands.
    """

    turn_start: str
    role_end: str
    stop_token: str
    after_stop: str
    bos: str
    default_system: str | None
    trims_content: bool
    system_preamble: str = ""

    def __post_init__(self) -> None:
        """Refuse a preamble that some conversations would not get."""
        if self.system_preamble and self.default_system is None:
            raise ValueError(
                'system_preamble needs a system turn to stand in: give default_system, "" for '
                "an empty one"
            )

    @property
    def markers(self) -> tuple[str, ...]:
        """The special tokens that this format writes, each once."""
        written = self.bos + self.turn_start + self.role_end
        return tuple(dict.fromkeys([*MARKER.findall(written), self.stop_token]))


_CHATML = ChatFormat(
    turn_start="<|im_start|>",
    role_end="\n",
    stop_token="<|im_end|>",
    after_stop="\n",
    bos="",
    default_system=None,
    trims_content=False,
)
_SMOLLM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
_QWEN = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
_LLAMA = ChatFormat(
    turn_start="<|start_header_id|>",
    role_end="<|end_header_id|>\n\n",
    stop_token="<|eot_id|>",
    after_stop="",
    bos="<|begin_of_text|>",
    default_system=None,
    trims_content=True,
)
# The day that the template writes where it has no clock and is told no `date_string`. With
# today's date, training rows would change overnight. Serving has to fix the same date.
_DATES = "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n"
FORMATS = {
    "chatml": _CHATML,
    "smollm2": replace(_CHATML, default_system=_SMOLLM),
    "qwen2.5": replace(_CHATML, default_system=_QWEN),
    "llama-3": _LLAMA,
    "llama-3.2": replace(_LLAMA, default_system="", system_preamble=_DATES),
}


def format_named(chat_format: str | ChatFormat) -> ChatFormat:
    """Look a format up by its name.

    Args:
        chat_format: A key of `FORMATS`, or a format, which is returned as it is.

    Returns:
        The format.

    Raises:
        ValueError: If there is no format of that name.

    Chapter: sft/chat_templates.
    """
    if isinstance(chat_format, ChatFormat):
        return chat_format
    if chat_format not in FORMATS:
        known = ", ".join(map(repr, FORMATS))
        raise ValueError(f"chat_format is {chat_format!r}: choose one of {known}")
    return FORMATS[chat_format]
