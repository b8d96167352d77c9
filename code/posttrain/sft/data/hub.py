"""A data set of the hub as conversations: `yahma/alpaca-cleaned`, 51,760 instructions.

Rows that are no instruction with an answer are never passed on and never lost in silence: they
raise, or they are dropped and counted by reason.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import JsonRow, read_json_rows
from posttrain.core.storage.paths import data_folder
from posttrain.sft.chat.messages import Message, is_absent

HUB_NAME = "yahma/alpaca-cleaned"
HUB_REVISION = "12567cabf869d7c92e573c7c783905fc160e9639"
FOLDER = "alpaca-cleaned"
"""The folder in POSTTRAIN_DATA that is looked into before the hub is asked."""

MAX_CHARACTERS = 20_000
"""Longest row that is taken, in characters: about 5,000 tokens."""

FIELDS = ("instruction", "input", "output")
_OTHER_FIELDS = frozenset(  # of Alpaca's relatives; they say nothing that a conversation needs
    {"id", "name", "instances", "is_classification", "text", "most_similar_instructions",
     "avg_similarity_score"}
)  # fmt: skip
_NO_INPUT = frozenset({"", "<noinput>"})

MARKER_LIKE = re.compile(r"<\|\w+\|>")
"""What templates write in many formats; no tokenizer is needed to see it."""

_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")

OnError = Literal["drop", "raise"]


class ChatRow(TypedDict):
    """One conversation, in TRL's conversational format."""

    messages: list[Message]


class MalformedRowError(ValueError):
    """A row is no instruction with an answer.

    Args:
        reason: The kind of mistake, in two or three words. It is an attribute too.
        details: What was found, what is accepted.
    """

    def __init__(self, reason: str, details: str) -> None:
        super().__init__(f"{reason}: {details}")
        self.reason = reason


@dataclass(frozen=True)
class MappedRows:
    """Conversations, and what became of the other rows.

    Attributes:
        rows: The conversations, in order.
        dropped: Number of rows left out, by reason.
        first_dropped: The first error message of each reason, with the line of its row in the
            file, or the row's number from 0.
    """

    rows: list[ChatRow]
    dropped: Counter[str]
    first_dropped: dict[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        return f"{len(self.rows):,} conversations; dropped: {reasons or 'none'}"


def alpaca_messages(
    row: Mapping[str, Any], *, max_characters: int = MAX_CHARACTERS
) -> list[Message]:
    """Turn a row of Alpaca's format into a conversation.

    The instruction and, after a blank line, the input are the user's message; the output is the
    assistant's. Rows of Alpaca's seed tasks, which keep input and output in ``instances``, are
    taken too, if they have one instance.

    Args:
        row: Text in ``instruction``, ``input`` (may be empty, None or missing) and ``output``.
        max_characters: Longest row to take, all three fields together.

    Returns:
        A user's and an assistant's message.

    Raises:
        MalformedRowError: If the row is no mapping, a field is missing, empty, unknown or no
            text, the row is too long, or it contains the like of ``<|im_end|>``.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    instruction, given, output = _texts(row)
    length = len(instruction) + len(given) + len(output)
    if length > max_characters:
        raise MalformedRowError(
            "too long", f"{length:,} characters; at most {max_characters:,} are taken"
        )
    for name, text in (("instruction", instruction), ("output", output)):
        if not text:
            raise MalformedRowError(f"empty {name}", f"the field {name!r} holds no text")
    if marker := MARKER_LIKE.search("\n".join((instruction, given, output))):
        raise MalformedRowError(
            "special token", f"the text contains {marker.group()}, which templates write"
        )
    question = instruction if given.lower() in _NO_INPUT else f"{instruction}\n\n{given}"
    return [{"role": "user", "content": question}, {"role": "assistant", "content": output}]


def map_rows(
    rows: Iterable[Any],
    *,
    on_error: OnError = "drop",
    max_characters: int = MAX_CHARACTERS,
) -> MappedRows:
    """Turn rows of Alpaca's format into conversations.

    Args:
        rows: Rows; see `alpaca_messages`. Those of `read_json_rows` know their line.
        on_error: What to do with a malformed row: "drop" and count it, or "raise".
        max_characters: As in `alpaca_messages`.

    Returns:
        The conversations and the counts of dropped rows.

    Raises:
        MalformedRowError: If a row is malformed and ``on_error`` is "raise".
        ValueError: If ``on_error`` is neither.

    Chapter: sft/fine_tuning.
    """
    if on_error not in ("drop", "raise"):
        raise ValueError(f"on_error is {on_error!r}: give 'drop' or 'raise'")
    mapped = MappedRows([], Counter())
    for index, row in enumerate(rows):
        where = f"line {row.line}" if isinstance(row, JsonRow) else f"row {index}"
        try:
            messages = alpaca_messages(value_of(row), max_characters=max_characters)
        except MalformedRowError as error:
            if on_error == "raise":
                details = str(error).removeprefix(f"{error.reason}: ")
                raise MalformedRowError(error.reason, f"{where}: {details}") from None
            mapped.dropped[error.reason] += 1
            mapped.first_dropped.setdefault(error.reason, f"{where}: {error}")
        else:
            mapped.rows.append({"messages": messages})
    return mapped


def load_alpaca(
    split: str = "train",
    source: str | Path | None = None,
    *,
    on_error: OnError = "drop",
    max_characters: int = MAX_CHARACTERS,
) -> MappedRows:
    """Load `yahma/alpaca-cleaned`, or another set in its format, as conversations.

    Args:
        split: Part of the set on the hub, such as "train[:1000]". A file is read whole, so
            only "train" fits one.
        source: A file that `read_json_rows` can read, or a folder with one such file. None
            looks into the folder ``alpaca-cleaned`` of POSTTRAIN_DATA, then
            asks the hub.
        on_error: As in `map_rows`.
        max_characters: As in `alpaca_messages`.

    Returns:
        The conversations and the counts of dropped rows.

    Raises:
        AssetError: If the set cannot be had, or none of its rows is well formed.

    Chapter: sft/fine_tuning.
    """
    folder = data_folder()
    if source is None and folder is not None and (folder / FOLDER).is_dir():
        source = folder / FOLDER
    if source is None:
        rows = _from_hub(split)
    elif split == "train":
        rows = _from_file(Path(source))
    else:
        raise AssetError(
            f"split is {split!r}, but {source} is read whole: pass split='train' and take a "
            "part of the rows"
        )
    mapped = map_rows(rows, on_error=on_error, max_characters=max_characters)
    if not mapped.rows:
        first = "; ".join(mapped.first_dropped.values()) or "it holds no rows"
        raise AssetError(f"{source or HUB_NAME} gave no conversation ({first})")
    return mapped


def value_of(row: Any) -> Any:
    """Return what a row of a file holds.

    Args:
        row: A row of `read_json_rows`, or any other value, which is returned as it is.

    Returns:
        The value.

    Raises:
        MalformedRowError: If the row could not be read.

    Chapter: sft/fine_tuning.
    """
    if not isinstance(row, JsonRow):
        return row
    if row.problem is not None:
        raise MalformedRowError("broken JSON", row.problem.partition(": ")[2])
    return row.value


def _texts(row: Any) -> tuple[str, str, str]:
    """Read the three fields of a row, without space around them."""
    if not isinstance(row, Mapping):
        raise MalformedRowError(
            "not a row", f"{type(row).__name__}; a mapping with {', '.join(FIELDS)} is needed"
        )
    held = {name for name, value in row.items() if not is_absent(value)}
    if unknown := sorted(map(str, held - _OTHER_FIELDS - set(FIELDS))):
        raise MalformedRowError(
            "unknown field", f"{', '.join(unknown)}; known are {', '.join(FIELDS)}"
        )
    if row.get("instances") is not None:
        instances = row["instances"]
        one = isinstance(instances, list) and len(instances) == 1
        if not (one and isinstance(instances[0], Mapping)):
            raise MalformedRowError(
                "wrong instances", "'instances' must be a list of exactly one mapping"
            )
        row = {"instruction": row.get("instruction"), **instances[0]}
    instruction, given, output = (_text(row, name) for name in FIELDS)
    return instruction, given, output


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    if value is None and name == "input":
        return ""
    if value is None:
        raise MalformedRowError(f"missing {name}", f"the field {name!r} is missing or None")
    if not isinstance(value, str):
        raise MalformedRowError(
            "wrong type", f"the field {name!r} is {type(value).__name__}; text is needed"
        )
    return value.strip()


def _from_file(path: Path) -> list[JsonRow]:
    if path.is_dir():
        files = [file for file in path.iterdir() if file.name.endswith(_SUFFIXES)]
        if len(files) != 1:
            raise AssetError(
                f"{path} holds {len(files)} .json and .jsonl files: leave exactly one, or "
                "name the file"
            )
        path = files[0]
    return read_json_rows(path)


def _from_hub(split: str) -> Iterable[Any]:
    import datasets

    try:
        rows: Iterable[Any] = datasets.load_dataset(
            HUB_NAME, split=split, revision=HUB_REVISION
        )
    except Exception as error:  # offline, no such split, no space: the remedy is the same
        raise AssetError(
            f"{HUB_NAME} could not be read from the hub ({type(error).__name__}: {error}). Put "
            f"its JSON file into POSTTRAIN_DATA/{FOLDER}, or pass it as source"
        ) from error
    return rows
