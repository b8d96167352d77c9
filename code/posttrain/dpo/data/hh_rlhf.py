"""HH-RLHF (Bai et al., 2022): two dialogues as texts, split at their last common turn.

A row holds two texts, ``chosen`` and ``rejected``, that begin with the same turns. In them each
turn is a blank line, the speaker, a colon, a space and what was said. Many of the dialogues ask
for something harmful: no function here prints one, and error messages hold no text of theirs.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import JsonRow, read_json_rows
from posttrain.core.storage.paths import data_folder
from posttrain.dpo.data.pair_formats import (
    ANSWERS,
    PairRow,
    answer_text,
    make_pair,
    split_conversations,
)
from posttrain.sft.chat.messages import Message
from posttrain.sft.data.hub import MAX_CHARACTERS, MalformedRowError, value_of

HUB_NAME = "Anthropic/hh-rlhf"
HUB_REVISION = "09be8c5bbc57cb3887f3a9732ad6aa7ec602a1fa"
FOLDER = "hh_rlhf"
"""The folder in POSTTRAIN_DATA that is looked into before the hub is asked."""

SUBSETS = ("harmless-base", "helpful-base", "helpful-online", "helpful-rejection-sampled")

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_SPEAKERS = {role: speaker for speaker, role in _ROLES.items()}


@dataclass(frozen=True)
class HHPairs:
    """The pairs of HH-RLHF, and what became of its other rows.

    Attributes:
        rows: The pairs, in order.
        lines: Line of the file on which each begins, from 1; in the set of the hub its number.
        dropped: Number of rows left out, by reason.
        dropped_lines: The lines of the rows left out, by reason.
    """

    rows: list[PairRow]
    lines: list[int]
    dropped: Counter[str]
    dropped_lines: dict[str, list[int]]

    def __repr__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        return f"{len(self.rows):,} pairs of {HUB_NAME}; dropped: {reasons or 'none'}"


def parse_dialogue(text: str) -> list[Message]:
    """Read a dialogue of HH-RLHF as messages.

    White space at the end of the dialogue is left out: behind the last word comes the stop
    token. Inside, every character stays.

    Args:
        text: Turns, each of which begins with a blank line and ``Human:`` or ``Assistant:``.

    Returns:
        The messages, in order; their roles are not checked.

    Raises:
        MalformedRowError: If it is no text, does not begin with a turn, or a turn has no space
            behind its colon.

    Chapter: dpo/preference_data.
    """
    if not isinstance(text, str):
        raise MalformedRowError("wrong type", f"{type(text).__name__}; text is needed")
    before, *parts = _TURN.split(text)
    if before or not parts:
        raise MalformedRowError(
            "no dialogue", r"the text does not begin with '\n\nHuman:' or '\n\nAssistant:'"
        )
    messages: list[Message] = []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        if said and not said.startswith(" "):
            raise MalformedRowError(
                "no space behind a speaker",
                f"turn {len(messages)} ({speaker}) goes on right behind the colon",
            )
        messages.append({"role": _ROLES[speaker], "content": said[1:]})
    messages[-1]["content"] = messages[-1]["content"].rstrip()
    return messages


def write_dialogue(messages: Iterable[Message]) -> str:
    """Write messages as a dialogue of HH-RLHF: the inverse of `parse_dialogue`.

    Args:
        messages: Messages of user and assistant.

    Returns:
        The text.

    Raises:
        ValueError: If a message is from anybody else.

    Chapter: dpo/preference_data.
    """
    text = ""
    for message in messages:
        if message["role"] not in _SPEAKERS:
            raise ValueError(
                f"a message is from the {message['role']}, and HH-RLHF knows user and "
                "assistant only: leave it out"
            )
        text += f"\n\n{_SPEAKERS[message['role']]}: {message['content']}"
    return text


def hh_pair(row: Any, *, max_characters: int = MAX_CHARACTERS) -> PairRow:
    """Split a row of HH-RLHF into prompt and answers, at the last common turn.

    Args:
        row: Two dialogues, in ``chosen`` and ``rejected``.
        max_characters: Longest prompt with an answer to take.

    Returns:
        The pair. Prompt and answer together say what the dialogue says, but for white space at
        its end.

    Raises:
        MalformedRowError: If a dialogue cannot be read, the two do not differ in their last
            turn alone, or the pair is refused by `make_pair`. The message holds no text of the
            dialogues.

    Chapter: dpo/preference_data.
    """
    if not isinstance(row, Mapping):
        raise MalformedRowError("not a row", f"{type(row).__name__}; an object is needed")
    for name in ANSWERS:
        if row.get(name) is None:
            raise MalformedRowError(f"missing {name}", f"the field {name!r} is missing or null")
    pair = split_conversations(parse_dialogue(row["chosen"]), parse_dialogue(row["rejected"]))
    answers = [answer_text(pair, name) for name in ANSWERS]
    return make_pair(pair["prompt"], *answers, max_characters=max_characters)


def map_hh_rows(
    rows: Iterable[Any],
    *,
    on_error: Literal["drop", "raise"] = "drop",
    max_characters: int = MAX_CHARACTERS,
) -> HHPairs:
    """Split rows of HH-RLHF into pairs.

    Args:
        rows: Rows; those of `read_json_rows` know their line.
        on_error: What to do with a row that cannot be split: "drop" and count it, or "raise".
        max_characters: As in `hh_pair`.

    Returns:
        The pairs and the counts of dropped rows.

    Raises:
        MalformedRowError: If a row cannot be split and ``on_error`` is "raise".
        ValueError: If ``on_error`` is neither.

    Chapter: dpo/preference_data.
    """
    if on_error not in ("drop", "raise"):
        raise ValueError(f"on_error is {on_error!r}: give 'drop' or 'raise'")
    mapped = HHPairs([], [], Counter(), {})
    for number, row in enumerate(rows, start=1):
        line = row.line if isinstance(row, JsonRow) else number
        try:
            pair = hh_pair(value_of(row), max_characters=max_characters)
        except MalformedRowError as error:
            if on_error == "raise":
                details = str(error).removeprefix(f"{error.reason}: ")
                raise MalformedRowError(error.reason, f"line {line}: {details}") from None
            mapped.dropped[error.reason] += 1
            mapped.dropped_lines.setdefault(error.reason, []).append(line)
        else:
            mapped.rows.append(pair)
            mapped.lines.append(line)
    return mapped


def load_hh_rlhf(
    subset: str = "harmless-base",
    split: str = "test",
    source: str | Path | None = None,
    *,
    on_error: Literal["drop", "raise"] = "drop",
    max_characters: int = MAX_CHARACTERS,
) -> HHPairs:
    """Load a part of HH-RLHF as preference pairs.

    Args:
        subset: One of `SUBSETS`.
        split: "train" or "test".
        source: A file that `read_json_rows` can read. None looks for
            ``hh_rlhf/harmless_base_test.jsonl.gz`` (or the other subset and split, with
            ``.gz`` or without) in POSTTRAIN_DATA, then asks the hub.
        on_error: As in `map_hh_rows`.
        max_characters: As in `hh_pair`.

    Returns:
        The pairs and the counts of dropped rows.

    Raises:
        AssetError: If the set cannot be had, or none of its rows can be split.
        ValueError: If the subset or the split is unknown.

    Chapter: dpo/preference_data.
    """
    if subset not in SUBSETS or split not in ("train", "test"):
        raise ValueError(
            f"subset is {subset!r} and split {split!r}: choose {', '.join(SUBSETS)}, and train "
            "or test"
        )
    source = source or _own_file(subset, split)
    rows = _from_hub(subset, split) if source is None else read_json_rows(source)
    mapped = map_hh_rows(rows, on_error=on_error, max_characters=max_characters)
    if not mapped.rows:
        reasons = ", ".join(mapped.dropped) or "it holds no rows"
        raise AssetError(f"{source or HUB_NAME} gave no pair ({reasons})")
    return mapped


def _own_file(subset: str, split: str) -> Path | None:
    folder = data_folder()
    if folder is None:
        return None
    name = f"{subset.replace('-', '_')}_{split}.jsonl"
    files = [folder / FOLDER / f"{name}{suffix}" for suffix in (".gz", "")]
    return next((file for file in files if file.is_file()), None)


def _from_hub(subset: str, split: str) -> Iterable[Any]:
    try:
        import datasets

        rows: Iterable[Any] = datasets.load_dataset(
            HUB_NAME, data_dir=subset, split=split, revision=HUB_REVISION
        )
    except Exception as error:  # offline, no space: the remedy is the same
        name = f"{subset.replace('-', '_')}_{split}.jsonl.gz"
        raise AssetError(
            f"{HUB_NAME} could not be read from the hub ({type(error).__name__}: {error}): put "
            f"its file into POSTTRAIN_DATA/{FOLDER}/{name}, or pass it as source"
        ) from error
    return rows
