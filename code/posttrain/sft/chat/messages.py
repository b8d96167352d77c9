"""What a conversation is, and what is refused before anything is rendered.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

ROLES = ("system", "user", "assistant")
_KEYS = frozenset({"role", "content", "weight"})


class Message(TypedDict):
    """One message of a conversation, as in TRL's column ``messages``.

    An answer may have a ``weight``: 0 makes it context that is not trained, 1 changes nothing.
    """

    role: str
    content: str
    weight: NotRequired[int]


class TemplateInjectionError(ValueError):
    """A message contains text that the tokenizer would read as a marker of the template."""


def check_messages(messages: Sequence[Message]) -> None:
    """Refuse what is no conversation: such rows are mistakes in the data.

    A conversation is a system message or none, then user and assistant in turn, the user first.
    The templates of the models would render more than that, two answers in a row for example.

    Args:
        messages: The conversation.

    Raises:
        ValueError: If there is no message, a message is no role and text, the roles are not in
            that order, or a weight is neither 0 nor 1 or stands at a message that is no answer.

    Chapter: sft/chat_templates.
    """
    if not messages:
        raise ValueError("the conversation is empty: give at least one message")
    for index, message in enumerate(messages):
        _check_message(index, message)
    roles = [message["role"] for message in messages]
    start = int(roles[0] == "system")
    if roles[start:] and roles[start] == "assistant":
        raise ValueError(
            f"message {start} (assistant) answers nobody: a user's message must come first"
        )
    for index in range(start, len(roles)):
        if roles[index] == "system":
            raise ValueError(
                f"message {index} is a system message: only the first message may be one, so "
                "move it there or drop the conversation"
            )
        if index > start and roles[index] == roles[index - 1]:
            raise ValueError(
                f"messages {index - 1} and {index} are both from the {roles[index]}: user and "
                "assistant take turns, so merge the two or drop the conversation"
            )


def _check_message(index: int, message: object) -> None:
    if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
        raise ValueError(
            f"message {index} is {_excerpt(message)}: give a dict with 'role' and 'content'"
        )
    role, content = message["role"], message["content"]
    if role not in ROLES:
        raise ValueError(
            f"message {index} has the role {role!r}: the roles are {', '.join(ROLES)}"
        )
    if not isinstance(content, str):
        raise ValueError(
            f"message {index} ({role}) has content of type {type(content).__name__}: give a str"
        )
    _check_weight(index, role, message.get("weight"))
    ignored = [key for key in message if key not in _KEYS and not is_absent(message[key])]
    if ignored:
        raise ValueError(
            f"message {index} ({role}) also has {ignored[0]!r}, which would be lost: only "
            "'role' and 'content' are rendered, so write it into the content or remove it"
        )
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"message {index} ({role}) holds half of a surrogate pair at character "
            f"{error.start}, which is no text: replace it, or drop the conversation"
        ) from None


def _check_weight(index: int, role: str, weight: Any) -> None:
    if weight is None:
        return
    if role != "assistant":
        raise ValueError(
            f"message {index} ({role}) has a weight, but only answers are trained: remove it"
        )
    if not isinstance(weight, int | float) or weight not in (0, 1):
        raise ValueError(
            f"message {index} (assistant) has the weight {weight!r}: give 1 where the answer "
            "is trained, 0 where it is context only"
        )


def is_absent(value: Any) -> bool:
    """Say whether a field of a row holds nothing; zero and false are values.

    Args:
        value: The field's value. Libraries fill in None where only some rows have a field.

    Returns:
        True for None, an empty string, list or mapping.

    Chapter: sft/chat_templates.
    """
    return value is None or (isinstance(value, str | list | tuple | Mapping) and not value)


def is_trained(message: Message) -> bool:
    """Say whether a message is an answer that the model learns to write.

    Args:
        message: A message that `check_messages` accepts.

    Returns:
        False for other roles, and for an answer with the weight 0.

    Chapter: sft/chat_templates.
    """
    weight = message.get("weight")
    return message["role"] == "assistant" and (weight is None or weight == 1)


def refuse_markers(messages: Sequence[Message], markers: Iterable[str], way_out: str) -> None:
    """Refuse messages that contain a marker.

    Args:
        messages: The conversation.
        markers: Texts that only the template may write.
        way_out: What the caller can do besides removing the marker, for the error's sentence.

    Raises:
        TemplateInjectionError: If a message contains a marker. It names the first one.

    Chapter: sft/chat_templates.
    """
    known = tuple(markers)
    for index, message in enumerate(messages):
        found = [marker for marker in known if marker in message["content"]]
        if found:
            first = min(found, key=message["content"].index)
            raise TemplateInjectionError(
                f"message {index} ({message['role']}) contains {first!r}, which would become a "
                f"special token, as if the template had written it: remove it, or {way_out}"
            )


def _excerpt(value: object, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else text[:length] + " …"
