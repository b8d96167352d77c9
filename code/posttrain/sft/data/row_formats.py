"""One row of a user's file as a conversation: four formats, and what is refused in them.

A field that says what is to be trained is honoured or refused by name, never passed over.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from posttrain.sft.chat.messages import Message, check_messages, is_absent, is_trained
from posttrain.sft.data.hub import (
    FIELDS,
    MARKER_LIKE,
    MAX_CHARACTERS,
    MalformedRowError,
    alpaca_messages,
)

MESSAGES = "messages"
PAIR = "prompt / completion"
ALPACA = "instruction / input / output"
SHAREGPT = "conversations"

_SIGNS = {
    "messages": MESSAGES,
    "conversations": SHAREGPT,
    "completion": PAIR,
    "prompt": PAIR,
    "instruction": ALPACA,
}
_FIELDS = {
    MESSAGES: {"messages", "prompt"},  # some sets repeat the first question in `prompt`
    SHAREGPT: {"conversations", "prompt"},
    PAIR: {"prompt", "completion"},
    ALPACA: {*FIELDS, "instances"},
}
ACCEPTED = "messages, prompt and completion, instruction and output, or conversations"

_TOOLS = "tool calls belong to Stage 4, so leave such rows out"
_MEDIA = "models of text alone are trained here, so leave such rows out"
_PREFERENCE = "this is preference data, for Stage 2: keep the good answer as 'completion'"
_TOKENS = "give text: the tokenizer of the model that is trained makes the tokens"
_LOST = "it would be lost, so write it into the question, or remove it"
_REFUSED = {
    **dict.fromkeys(("tools", "functions", "tool_calls", "function_call"), _TOOLS),
    **dict.fromkeys(("tool_choice", "tool_call_id", "tool_responses"), _TOOLS),
    **dict.fromkeys(("image", "images", "video", "videos", "audio", "audios"), _MEDIA),
    **dict.fromkeys(("chosen", "rejected", "completions"), _PREFERENCE),
    **dict.fromkeys(("input_ids", "attention_mask", "assistant_masks"), _TOKENS),
    **dict.fromkeys(("context", "document", "documents", "history"), _LOST),
    **dict.fromkeys(("thinking", "reasoning", "reasoning_content"), _LOST),
    **dict.fromkeys(("system_prompt", "system_message"), "rename it to 'system'"),
    **dict.fromkeys(
        ("chat_template", "chat_template_kwargs"),
        "the chat format is chosen for the whole run, so remove it",
    ),
    "mask": "say at each message what is trained, by 'weight': 0 or 1",
}

_ROLES = {
    **dict.fromkeys(("user", "human"), "user"),
    **dict.fromkeys(("assistant", "gpt"), "assistant"),
    # OpenAI's newer name for it; the models here know one kind of instruction only.
    **dict.fromkeys(("system", "developer"), "system"),
}
_TOOL_ROLES = ("tool", "function", "function_call", "observation", "ipython")
_ROLE_KEYS, _CONTENT_KEYS = ("role", "from"), ("content", "value")
_NOTES = frozenset({"id", "timestamp"})  # of a message; they say nothing of the training

_FLAGS = ("weight", "loss_weight", "loss_scale", "loss", "train", "training")
"""What files call the flag of a message: OpenAI and Mistral, others' loss, axolotl's train."""

_ROW_FLAGS = ("weight", "loss_weight", "sample_weight")


def row_format(row: Any) -> str:
    """Recognise the format of a row.

    Args:
        row: What a line of the file holds.

    Returns:
        `MESSAGES`, `PAIR`, `ALPACA` or `SHAREGPT`.

    Raises:
        MalformedRowError: If it is none of these, is two of them, or has a field that would
            change what is trained and is not known here.

    Chapter: sft/your_model.
    """
    if not isinstance(row, Mapping):
        raise MalformedRowError(
            "not a row", f"{type(row).__name__}; an object is needed, with {ACCEPTED}"
        )
    for name, why in _REFUSED.items():
        if not is_absent(row.get(name)):
            raise MalformedRowError(f"field {name!r}", why)
    held = [name for name in _SIGNS if row.get(name) is not None]
    found = list(dict.fromkeys(_SIGNS[name] for name in held))
    if len(found) == 2 and held[1:] == ["prompt"]:
        found = found[:1]  # `row_messages` looks whether it says the same
    if len(found) > 1:
        raise MalformedRowError(
            "two formats", f"it has {' and '.join(map(repr, held))}: keep one of them"
        )
    if found:
        return found[0]
    names = ", ".join(str(name) for name, value in row.items() if not is_absent(value))
    raise MalformedRowError(
        "unknown format", f"its fields are {names or 'none'}; accepted are {ACCEPTED}"
    )


def ignored_fields(row: Mapping[str, Any], form: str) -> set[str]:
    """Name the fields of a row that nothing is made of, such as ``id`` and ``source``.

    Args:
        row: A row.
        form: Its format, from `row_format`.

    Returns:
        Names of fields that hold something and are passed over.

    Chapter: sft/your_model.
    """
    known = _FIELDS[form] | {"system", *_ROW_FLAGS}
    return {str(name) for name in row if name not in known and not is_absent(row[name])}


def row_messages(
    row: Mapping[str, Any], form: str | None = None, *, max_characters: int = MAX_CHARACTERS
) -> list[Message]:
    """Turn a row into a conversation that can be trained on.

    Texts stay as they are; only Alpaca's fields lose the space around them. A ``system`` field
    becomes the system message, and so does a message of the role ``developer``. An answer in a
    prompt that is a list of messages is context: it gets the weight 0.

    Args:
        row: A row.
        form: Its format; None recognises it.
        max_characters: Longest conversation to take, all messages together.

    Returns:
        A system message or none, then user and assistant in turn, ending with an answer. An
        answer that is not to be trained has the weight 0; no other message has a weight.

    Raises:
        MalformedRowError: If the row is no such conversation, has an empty question or answer
            or the like of ``<|im_end|>``, is too long, trains nothing, or has a field that
            would change what is trained and is not known here.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    form = row_format(row) if form is None else form
    _check_row_flags(row)
    if form == ALPACA:
        held = {name: row[name] for name in _FIELDS[ALPACA] if name in row}
        messages = alpaca_messages(held, max_characters=max_characters)
    elif form == PAIR:
        messages = _pair(row)
    else:
        messages = _messages(row, "messages" if form == MESSAGES else "conversations")
        _check_prompt(row.get("prompt"), messages)
    messages = _with_system(row.get("system"), messages)
    _check(messages, max_characters)
    return messages


# --- the formats ---


def _messages(row: Mapping[str, Any], name: str) -> list[Message]:
    listed = row[name]
    if not isinstance(listed, list | tuple):
        raise MalformedRowError(
            "wrong type", f"{name!r} is {type(listed).__name__}; a list of messages is needed"
        )
    return [_message(index, message) for index, message in enumerate(listed)]


def _pair(row: Mapping[str, Any]) -> list[Message]:
    prompt, completion = row.get("prompt"), row.get("completion")
    if prompt is None:
        raise MalformedRowError("missing prompt", "'completion' needs a 'prompt' beside it")
    if completion is None:
        raise MalformedRowError(
            "missing completion",
            "prompts alone are data for Stage 3, where answers are sampled; add 'completion' "
            "to fine-tune on it",
        )
    if isinstance(row.get("label"), bool):
        raise MalformedRowError("field 'label'", _PREFERENCE)
    asked: list[Message] = [{"role": "user", "content": prompt}]
    if not isinstance(prompt, str):
        asked = list(map(_context, _messages(row, "prompt"), prompt))
    if isinstance(completion, str):
        return [*asked, {"role": "assistant", "content": completion}]
    answer = _messages(row, "completion")
    if [message["role"] for message in answer] != ["assistant"]:
        raise MalformedRowError(
            "wrong completion", "as a list it must hold one message, of the assistant"
        )
    return asked + answer


def _context(message: Message, raw: Mapping[str, Any]) -> Message:
    """Mark an answer in a prompt: a completion alone is trained."""
    if message["role"] != "assistant":
        return message
    if any(raw.get(name) for name in _FLAGS):
        raise MalformedRowError(
            "weight in a prompt", "its answers are context: move the row to 'messages'"
        )
    return {**message, "weight": 0}


def _check_prompt(prompt: Any, messages: Sequence[Message]) -> None:
    questions = [message["content"] for message in messages if message["role"] == "user"]
    if is_absent(prompt) or (
        isinstance(prompt, str) and prompt.strip() in map(str.strip, questions[:1])
    ):
        return
    raise MalformedRowError(
        "two formats", "its 'prompt' is not the first question of its messages: remove it"
    )


def _with_system(system: Any, messages: list[Message]) -> list[Message]:
    if is_absent(system):
        return messages
    if not isinstance(system, str):
        raise MalformedRowError(
            "wrong type", f"the field 'system' is {type(system).__name__}; text is needed"
        )
    if messages and messages[0]["role"] == "system":
        if messages[0]["content"].strip() == system.strip():
            return messages
        raise MalformedRowError(
            "two system messages", "one in the field 'system', one in the messages: keep one"
        )
    return [{"role": "system", "content": system}, *messages]


# --- one message ---


def _message(index: int, raw: Any) -> Message:
    if not isinstance(raw, Mapping):
        raise MalformedRowError(
            "no message",
            f"message {index} is {type(raw).__name__}; an object with 'role' and 'content' is "
            "needed",
        )
    known = {*_ROLE_KEYS, *_CONTENT_KEYS, *_FLAGS, *_NOTES}
    for name in raw:
        if name not in known and not is_absent(raw[name]):
            why = _REFUSED.get(
                name, "it would be lost, so write it into the text, or remove it"
            )
            raise MalformedRowError(f"field {str(name)!r}", f"message {index} has it: {why}")
    role = _role(index, _only(index, raw, _ROLE_KEYS))
    content = _only(index, raw, _CONTENT_KEYS)
    if isinstance(content, list):
        raise MalformedRowError(
            "content in parts",
            f"message {index} ({role}) has a list as its content: write its text as one string",
        )
    if not isinstance(content, str):
        raise MalformedRowError(
            "wrong type",
            f"message {index} ({role}) has a {type(content).__name__} as its content; text is "
            "needed",
        )
    message: Message = {"role": role, "content": content}
    weight = _weight(index, role, raw)
    return message if weight else {**message, "weight": 0}


def _only(index: int, raw: Mapping[str, Any], names: tuple[str, str]) -> Any:
    values = [raw[name] for name in names if raw.get(name) is not None]
    if len(values) != 1:
        missing = "no" if not values else "two forms of the"
        raise MalformedRowError(
            f"{'missing' if not values else 'double'} {names[0]}",
            f"message {index} has {missing} {names[0]!r}; give it once, as text",
        )
    return values[0]


def _role(index: int, given: Any) -> str:
    if given in _TOOL_ROLES:
        raise MalformedRowError(f"role {given!r}", f"message {index} has it: {_TOOLS}")
    if not isinstance(given, str) or given not in _ROLES:
        raise MalformedRowError(
            "unknown role", f"message {index} has {given!r}; known are {', '.join(_ROLES)}"
        )
    return _ROLES[given]


def _weight(index: int, role: str, raw: Mapping[str, Any]) -> bool:
    """Read the flags of a message, whatever they are called; say whether it may be trained."""
    flags = {name: raw[name] for name in _FLAGS if raw.get(name) is not None}
    for name, value in flags.items():
        _check_flag(name, value, f"message {index} ({role})")
    if len(set(map(bool, flags.values()))) > 1:
        raise MalformedRowError(
            "flags that disagree",
            f"message {index} has {' and '.join(f'{n!r}: {v!r}' for n, v in flags.items())}",
        )
    if role != "assistant":
        if any(flags.values()):
            name, value = next(iter(flags.items()))
            raise MalformedRowError(
                f"trained {role}",
                f"message {index} has {name!r}: {value!r}, but only answers are trained: "
                "remove it",
            )
        return True  # nobody trains it: it needs no weight
    return all(flags.values())


def _check_flag(name: str, value: Any, whose: str) -> None:
    if not isinstance(value, int | float) or value not in (0, 1):
        raise MalformedRowError(
            f"{name} of another kind",
            f"{whose} has {name!r}: {value!r}; 1 and true train it, 0 and false do not, and "
            "nothing between is taken",
        )


def _check_row_flags(row: Mapping[str, Any]) -> None:
    for name in _ROW_FLAGS:
        value = row.get(name)
        if value is None:
            continue
        _check_flag(name, value, "the row")
        if not value:
            raise MalformedRowError(
                f"row of {name} 0", "it is not to be trained: remove it from the file"
            )


# --- the conversation ---


def _check(messages: Sequence[Message], max_characters: int) -> None:
    if not messages:
        raise MalformedRowError("no messages", "the list is empty")
    for index, message in enumerate(messages):
        _check_text(index, message["role"], message["content"])
    try:
        check_messages(messages)
    except ValueError as error:
        raise MalformedRowError("roles out of order", str(error)) from None
    if messages[-1]["role"] != "assistant":
        raise MalformedRowError(
            "no last answer", f"the last message is from the {messages[-1]['role']}"
        )
    if not any(map(is_trained, messages)):
        raise MalformedRowError("nothing to train", "every answer has the weight 0")
    if (length := _length(messages)) > max_characters:
        raise MalformedRowError(
            "too long", f"{length:,} characters; at most {max_characters:,} are taken"
        )


def _check_text(index: int, role: str, text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRowError(
            "broken text",
            f"message {index} ({role}) holds half of a surrogate pair at character "
            f"{error.start}",
        ) from None
    if role != "system" and not text.strip():
        kind = "question" if role == "user" else "answer"
        raise MalformedRowError(f"empty {kind}", f"message {index} ({role}) holds no text")
    if marker := MARKER_LIKE.search(text):
        raise MalformedRowError(
            "special token",
            f"message {index} ({role}) contains {marker.group()}, which templates write",
        )


def _length(messages: Iterable[Message]) -> int:
    return sum(len(message["content"]) for message in messages)
