"""Chat templates by hand: how a conversation becomes tokens, and which of them are trained.

A template wraps every message in markers: special tokens that the tokenizer reads as one id
each. They alone say who speaks and where a turn ends, so no message may contain one.

The tokenizers of these models are byte-level BPE, and a marker splits the text for BPE. What
lies between two markers is encoded in one piece, as in transformers' `apply_chat_template`.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from posttrain.sft.chat.formats import FORMATS, MARKER, ChatFormat, format_named
from posttrain.sft.chat.messages import (
    Message,
    TemplateInjectionError,
    check_messages,
    is_trained,
    refuse_markers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "FORMATS",
    "ChatFormat",
    "EncodedChat",
    "Message",
    "TemplateInjectionError",
    "encode_chat",
    "format_named",
    "render",
    "special_tokens",
]


@dataclass(frozen=True)
class EncodedChat:
    """A conversation as tokens.

    Attributes:
        input_ids: Token ids of the whole conversation.
        assistant_mask: 1 where the token is trained on, 0 elsewhere; as long as ``input_ids``.
    """

    input_ids: list[int]
    assistant_mask: list[int]


def render(
    messages: Sequence[Message],
    chat_format: str | ChatFormat = "smollm2",
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Write a conversation as one string, markers included.

    In a string, a marker of the template and the same letters in a message cannot be told
    apart: a message that contains one is refused. `encode_chat` can tell them apart.

    Args:
        messages: A system message or none, then user and assistant in turn.
        chat_format: A key of `FORMATS`, or a format.
        add_generation_prompt: Whether to open an assistant's turn at the end.

    Returns:
        The text that transformers' ``apply_chat_template(tokenize=False)`` gives.

    Raises:
        TemplateInjectionError: If a message contains one of the format's markers.
        ValueError: If the format is unknown or the messages make no conversation.

    Chapter: sft/chat_templates.
    """  # noqa: DOC502
    written = format_named(chat_format)
    turns = _turns(messages, written, add_generation_prompt)
    refuse_markers(messages, written.markers, "call encode_chat with markers='as_text'")
    text = written.bos
    for role, content, _ in turns:
        text += written.turn_start + role + written.role_end + content
        text += written.stop_token + written.after_stop
    if add_generation_prompt:
        text += written.turn_start + "assistant" + written.role_end
    return text


def encode_chat(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat = "smollm2",
    *,
    add_generation_prompt: bool = False,
    markers: Literal["refuse", "as_text"] = "refuse",
    train_on: Literal["all", "last"] = "all",
) -> EncodedChat:
    """Encode a conversation, and mark what an assistant must learn to write.

    Trained are an answer's content and the stop token after it; headers, other roles and what
    the template writes after the stop token are not. Of an answer with the weight 0 nothing is:
    it is context.

    The ids equal those of transformers' ``apply_chat_template(tokenize=True)``, but for two
    cases. (1) Where an answer starts with white space that BPE would merge with the newline of
    the header, the two are encoded apart: what a model is prompted with at generation is then
    always a prefix of what it was trained on. (2) Special tokens come from the template alone,
    never from a message.

    Args:
        messages: A system message or none, then user and assistant in turn.
        tokenizer: Must have the format's markers as special tokens.
        chat_format: A key of `FORMATS`, or a format.
        add_generation_prompt: Whether to open an assistant's turn at the end, untrained.
        markers: What to do with a message that contains a special token of the tokenizer:
            "refuse" it, or encode the letters of the token "as_text".
        train_on: "all" answers, or the "last" one; an answer with the weight 0 in no case.

    Returns:
        Token ids and mask.

    Raises:
        TemplateInjectionError: If a message contains a special token and is to be refused, or a
            character for which the tokenizer only has a special token.
        ValueError: If the messages make no conversation, the tokenizer lacks a marker of the
            format, or an option is unknown.

    Chapter: sft/chat_templates.
    """  # noqa: DOC502
    _check_option("markers", markers, ("refuse", "as_text"))
    _check_option("train_on", train_on, ("all", "last"))
    written = format_named(chat_format)
    turns = _turns(messages, written, add_generation_prompt)
    writer = _Writer(tokenizer, written)
    if markers == "refuse":
        refuse_markers(messages, writer.special, "pass markers='as_text'")

    last = max((i for i, turn in enumerate(turns) if turn.role == "assistant"), default=-1)
    writer.template(written.bos)
    for index, (role, content, trained) in enumerate(turns):
        trained = trained and (train_on == "all" or index == last)
        writer.template(written.turn_start + role + written.role_end)
        writer.content(content, answer=role == "assistant", trained=trained)
        writer.template(written.stop_token, trained=trained)
        writer.template(written.after_stop)
    if add_generation_prompt:
        writer.template(written.turn_start + "assistant" + written.role_end)
    writer.content("", answer=False, trained=False)  # writes the text that is left
    return EncodedChat(writer.input_ids, writer.assistant_mask)


class _Writer:
    """Appends parts of a conversation to ids and mask."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, written: ChatFormat) -> None:
        self.input_ids: list[int] = []
        self.assistant_mask: list[int] = []
        self.special = special_tokens(tokenizer, written)
        self._special_ids = frozenset(self.special.values())
        self._tokenizer = tokenizer
        self._open = ""  # text of the template since the last marker, not encoded yet

    def template(self, text: str, trained: bool = False) -> None:
        """Append text of the template: its markers become special tokens."""
        for part in MARKER.split(text):
            if part in self.special:
                self.content("", answer=False, trained=False)
                self._append([self.special[part]], trained)
            else:
                self._open += part

    def content(self, text: str, answer: bool, trained: bool) -> None:
        """Append a message's text after the template's: none of it becomes a special token."""
        before, self._open = self._open, ""
        ids = self._encode(before + text)
        if not answer:
            self._append(ids, trained)
            return
        header = self._encode(before)
        if ids[: len(header)] != header:  # a token would reach from the header into the answer
            ids = header + self._encode(text)
        self._append(header, False)
        self._append(ids[len(header) :], trained)

    def _append(self, ids: list[int], trained: bool) -> None:
        self.input_ids += ids
        self.assistant_mask += [int(trained)] * len(ids)

    def _encode(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._tokenizer.encode(
            text, add_special_tokens=False, split_special_tokens=True
        )
        if not self._special_ids.isdisjoint(ids):
            raise TemplateInjectionError(self._explain(text))
        return ids

    def _explain(self, text: str) -> str:
        for letter in dict.fromkeys(text):
            ids = self._tokenizer.encode(letter, add_special_tokens=False)
            for name, index in self.special.items():
                if index in ids:
                    return (
                        f"the tokenizer has no token for the character {letter!r} and would "
                        f"write the special token {name!r} in its place: remove the character, "
                        "or drop the conversation"
                    )
        return (
            "the tokenizer turned text into a special token, though it was called with "
            "split_special_tokens=True: remove such tokens from the messages"
        )


def special_tokens(
    tokenizer: PreTrainedTokenizerBase, chat_format: str | ChatFormat
) -> dict[str, int]:
    """List what may not stand in a message.

    Args:
        tokenizer: The tokenizer of the model.
        chat_format: A key of `FORMATS`, or a format.

    Returns:
        The id of each special token of the tokenizer, the format's markers among them.

    Raises:
        ValueError: If a marker of the format is no special token of the tokenizer.

    Chapter: sft/chat_templates.
    """
    special = {
        token.content: index
        for index, token in tokenizer.added_tokens_decoder.items()
        if token.special
    }
    special |= zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
    for marker in format_named(chat_format).markers:
        if marker not in special:
            raise ValueError(
                f"the tokenizer has no special token {marker!r}, which the chat format writes: "
                "take the format that its model was trained with, or add the token with "
                "tokenizer.add_special_tokens"
            )
    return special


class _Turn(NamedTuple):
    role: str
    content: str
    trained: bool


def _turns(
    messages: Sequence[Message], written: ChatFormat, add_generation_prompt: bool
) -> list[_Turn]:
    """Return the turns as they are written, the default system message among them."""
    check_messages(messages)
    if add_generation_prompt and messages[-1]["role"] == "assistant":
        raise ValueError(
            "add_generation_prompt=True asks for an answer, but the last message is one: leave "
            "that message out, or the option"
        )
    turns = [_Turn(m["role"], m["content"], is_trained(m)) for m in messages]
    if written.default_system is not None and turns[0].role != "system":
        turns.insert(0, _Turn("system", written.default_system, trained=False))
    if written.trims_content:
        turns = [turn._replace(content=turn.content.strip()) for turn in turns]
    if written.system_preamble:
        turns[0] = turns[0]._replace(content=written.system_preamble + turns[0].content)
    return turns


def _check_option(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}: choose one of {', '.join(map(repr, known))}")
