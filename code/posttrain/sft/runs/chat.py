"""``posttrain chat``: talk to a model, with an adapter or without.

Chapter: sft/your_model.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from posttrain.core.errors import AssetError
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.streaming import stream_text
from posttrain.sft.adapters.files import CONFIG_NAME
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.recognition import detect_format
from posttrain.sft.chat.template import Message, encode_chat, special_tokens
from posttrain.sft.runs.folder import RunFolder
from posttrain.sft.runs.speaker import Speaker, load_speaker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEFAULT_MODEL = "smollm2-135m-instruct"
HELP = "/new begins anew, /system TEXT sets the system message, /quit or Ctrl-D ends"


@dataclass
class ChatSession:
    """A conversation with a model; it remembers what was said.

    Attributes:
        speaker: The model.
        tokenizer: Its tokenizer.
        chat_format: Its format.
        params: How answers are drawn; the stop token is added.
        system: System message, or ``None`` for the format's own.
        seed: Seed of the first answer; each further one takes the next.
        messages: What was said, the system message left out.
    """

    speaker: Speaker
    tokenizer: PreTrainedTokenizerBase
    chat_format: str
    params: SamplingParams
    system: str | None = None
    seed: int = 0
    messages: list[Message] = field(default_factory=list)

    def answer(self, text: str) -> Iterator[str]:
        """Ask, and give the answer as it is written.

        Args:
            text: The user's message.

        Yields:
            Pieces of the answer. It joins the conversation when it is complete, or as far as it
            got where the caller stops.
        """
        self.messages.append({"role": "user", "content": text})
        head: list[Message] = []
        if self.system is not None:
            head = [{"role": "system", "content": self.system}]
        prompt = encode_chat(
            [*head, *self.messages],
            self.tokenizer,
            self.chat_format,
            add_generation_prompt=True,
            markers="as_text",
        ).input_ids
        tokens = self.speaker.stream(prompt, self.params, self.seed + len(self.messages))
        said = ""
        try:
            for piece in stream_text(tokens, self.tokenizer):
                said += piece
                yield piece
        finally:
            self.messages.append({"role": "assistant", "content": said})

    def forget(self) -> None:
        """Begin anew."""
        self.messages.clear()


def open_session(
    adapter: Path | None = None,
    model: str | None = None,
    *,
    system: str | None = None,
    temperature: float = 0.7,
    max_new_tokens: int = 256,
    seed: int = 0,
    device: str = "cpu",
) -> ChatSession:
    """Load what a conversation needs.

    Args:
        adapter: Folder of an adapter in PEFT's format.
        model: The base model; what the adapter names where it is left out.
        system: System message, or ``None`` for the format's own.
        temperature: Of sampling; 0 takes the likeliest token each time.
        max_new_tokens: Longest answer, in tokens.
        seed: Seed of the sampling.
        device: ``cpu`` or ``cuda``.

    Returns:
        The conversation, with nothing said yet.

    Raises:
        AssetError: If model or adapter cannot be had.
        ValueError: If the adapter does not fit the model.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    facts = adapter_facts(adapter) if adapter else AdapterFacts(DEFAULT_MODEL, None, None)
    base = model or facts.base
    speaker, tokenizer = load_speaker(
        base, adapter, quantization=facts.quantization, device=device
    )
    chat_format = facts.chat_format or detect_format(tokenizer)
    stop = special_tokens(tokenizer, chat_format)[format_named(chat_format).stop_token]
    params = SamplingParams(
        temperature=temperature, max_new_tokens=max_new_tokens, stop_token_ids=(stop,)
    )
    return ChatSession(speaker, tokenizer, chat_format, params, system, seed)


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter's folder says of its base model.

    Attributes:
        base: Name or folder of the model.
        chat_format: The format that it was trained in, where the run wrote it down.
        quantization: How the frozen weights were held, where the run wrote it down.
    """

    base: str
    chat_format: str | None
    quantization: Literal["nf4"] | None


def adapter_facts(folder: Path) -> AdapterFacts:
    """Read which model an adapter belongs to.

    Args:
        folder: Folder of an adapter in PEFT's format.

    Returns:
        Its base model, and what ``run.json`` says beside it.

    Raises:
        AssetError: If there is no adapter, or it names no model.

    Chapter: sft/your_model.
    """
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
        base = config.get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as error:
        raise AssetError(
            f"{folder} holds no readable {CONFIG_NAME} ({type(error).__name__}): give the "
            "folder of a saved adapter"
        ) from None
    if not base:
        raise AssetError(f"{folder} does not name its base model: give it with --model")
    record = RunFolder(folder).record or {}
    preset = record.get("identity", {}).get("preset", {})
    preset = preset.get("start", preset)  # a later stage's preset holds that of this one
    return AdapterFacts(str(base), preset.get("chat_format"), preset.get("quantization"))


def talk(
    session: ChatSession,
    read: Callable[[], str | None],
    write: Callable[[str], None],
) -> None:
    """Read messages and write answers until there is none.

    Args:
        session: The conversation.
        read: Gives the user's next message, ``None`` at the end.
        write: Takes pieces of text.

    Chapter: sft/your_model.
    """
    while (text := read()) is not None:
        text = text.strip()
        command, _, rest = text.partition(" ")
        if not text:
            continue
        if command in ("/quit", "/exit"):
            return
        if command == "/new":
            session.forget()
            write("(a new conversation)\n")
            continue
        if command == "/system":
            session.forget()
            session.system = rest.strip() or None
            write("(a new conversation with that system message)\n")
            continue
        if command in ("/help", "/?"):
            write(f"({HELP})\n")
            continue
        pieces = session.answer(text)
        try:
            for piece in pieces:
                write(piece)
        except KeyboardInterrupt:  # ends the answer, not the conversation
            pieces.close()  # type: ignore[attr-defined]
            write(" (stopped)")
        write("\n")
