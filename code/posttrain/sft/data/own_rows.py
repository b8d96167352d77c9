"""A user's own file, or a data set of the hub, as conversations to train on.

Rows that cannot be trained on are never passed on and never lost in silence: they raise, or
they are dropped and counted by reason. How a row is read says `posttrain.sft.data.row_formats`.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.core.errors import AssetError
from posttrain.sft.data.duplicates import same_words_key
from posttrain.sft.data.hub import MAX_CHARACTERS, ChatRow, MalformedRowError, value_of
from posttrain.sft.data.row_formats import ignored_fields, row_format, row_messages
from posttrain.sft.data.sources import (
    OnBadRow,
    bad_rows_text,
    check_on_bad_row,
    check_one_format,
    read_source,
)

HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 200
"""How much `split_rows` holds out where it is not told: a tenth, 200 rows at most."""


@dataclass(frozen=True)
class OwnRows:
    """Conversations out of a file, and what became of its other rows.

    Attributes:
        rows: The conversations, in order.
        lines: Line of the file on which each begins, from 1; in a set of the hub its number.
        format: The format of the file's rows, such as "prompt / completion".
        dropped: Number of rows left out, by reason.
        first_dropped: The first error message of each reason, with its line.
        sha256: Of the conversations alone: the same for the same ones out of any file.
        source: The file, or the set's name.
        ignored: Fields of the rows that were passed over, such as "id".
    """

    rows: list[ChatRow]
    lines: list[int]
    format: str
    dropped: Counter[str]
    first_dropped: dict[str, str]
    sha256: str
    source: str
    ignored: tuple[str, ...] = field(default=())

    def __repr__(self) -> str:
        text = f"{self.source}: {len(self.rows):,} rows of {self.format}"
        if self.dropped:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            text += f"; dropped {self.dropped.total():,} ({counts})"
        if self.ignored:
            text += f"; fields passed over: {', '.join(self.ignored)}"
        return text


def load_rows(
    source: str | Path,
    *,
    split: str = "train",
    on_bad_row: OnBadRow = "error",
    max_characters: int = MAX_CHARACTERS,
) -> OwnRows:
    """Load conversations from a file or from the hub.

    All rows must be of one format: ``messages`` (OpenAI's and TRL's), ``prompt`` and
    ``completion``, Alpaca's ``instruction``, ``input`` and ``output``, or ShareGPT's
    ``conversations``. Files are read by `read_json_rows`.

    Args:
        source: A file, or ``owner/name`` on the hub, with ``@revision`` behind it or not.
        split: Part of the set on the hub. A file is read whole, so only "train" fits one.
        on_bad_row: What to do with a row that cannot be trained on: raise an "error", or "drop"
            it and count it.
        max_characters: Longest conversation to take.

    Returns:
        The conversations, at least one.

    Raises:
        AssetError: If the source cannot be had or read, or gives no conversation.
        ValueError: If rows are bad and that is an error, the file mixes formats, or an option
            is unknown.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    check_on_bad_row(on_bad_row)
    word, read = read_source(source, split)
    rows: list[ChatRow] = []
    lines: list[int] = []
    bad: list[tuple[int, MalformedRowError]] = []
    forms: dict[str, list[int]] = defaultdict(list)
    ignored: set[str] = set()
    for row in read:
        try:
            value = value_of(row)
            form = row_format(value)
            forms[form].append(row.line)
            messages = row_messages(value, form, max_characters=max_characters)
        except MalformedRowError as error:
            bad.append((row.line, error))
        else:
            rows.append({"messages": messages})
            lines.append(row.line)
            ignored |= ignored_fields(value, form)
    check_one_format(source, word, forms)
    dropped = Counter(error.reason for _, error in bad)
    if bad and on_bad_row == "error":
        raise ValueError(bad_rows_text(source, word, bad, dropped))
    first: dict[str, str] = {}
    for line, problem in bad:
        first.setdefault(problem.reason, f"{word} {line}: {problem}")
    if not rows:
        raise AssetError(f"{source} gives no conversation ({'; '.join(first.values())})")
    form = next(iter(forms))
    sha256 = _sha256(rows)
    return OwnRows(
        rows, lines, form, dropped, first, sha256, str(source), tuple(sorted(ignored))
    )


def split_rows(
    rows: OwnRows, validation: int | None = None, seed: int = 0
) -> tuple[OwnRows, OwnRows]:
    """Hold out rows for validation, so that no question lies on both sides.

    Rows that open with the same question, or ask the same questions, stay together: those whose
    words and numbers agree in any order.

    Args:
        rows: The rows to split.
        validation: Rows to hold out at most; fewer where a group of rows would not fit. None
            takes `HELD_OUT_SHARE` of them, 1 to `HELD_OUT_MOST`; 0 holds out none.
        seed: Seed of the draw.

    Returns:
        Rows to train on and rows held out, each in their order.

    Raises:
        ValueError: If the rows cannot be split so, or the number does not fit them.

    Chapter: sft/your_model.
    """
    count = len(rows.rows)
    if validation is None:
        validation = max(1, min(HELD_OUT_MOST, round(HELD_OUT_SHARE * count)))
    elif not 0 <= validation < count:
        raise ValueError(
            f"validation is {validation} and there are {count} rows: give a number from 0 to "
            f"{count - 1}"
        )
    groups = _groups(rows.rows)
    if validation and len(groups) < 2:
        raise ValueError(
            f"all {count} rows of {rows.source} ask the same question, so none can be held "
            "out: give a file of other rows for validation"
        )
    random.Random(f"split {seed}").shuffle(groups)
    held: list[int] = []
    if validation:
        fitting = [group for group in groups if len(group) <= validation]
        for group in fitting or [min(groups, key=len)]:
            if not held or len(held) + len(group) <= validation:
                held += group
    left = sorted(set(range(count)) - set(held))
    return _part(rows, left, rows.source), _part(rows, sorted(held), f"{rows.source}, held out")


def questions_of(*parts: Sequence[ChatRow]) -> list[list[str]]:
    """Write what each conversation asks as one text, to look for rows that ask the same.

    That is what the user says in it. The system message comes first where it differs between
    rows: there it is a part of the question.

    Args:
        *parts: Conversations, such as those of training and of validation.

    Returns:
        One list of texts for each part.

    Chapter: sft/your_model.
    """
    systems = {_system(row) for rows in parts for row in rows}
    differ = len(systems) > 1
    return [
        ["\n\n".join([_system(row)] * differ + _asked(row)).strip() for row in rows]
        for rows in parts
    ]


def _system(row: ChatRow) -> str:
    first = row["messages"][0]
    return first["content"] if first["role"] == "system" else ""


def _asked(row: ChatRow) -> list[str]:
    return [message["content"] for message in row["messages"] if message["role"] == "user"]


# --- parts ---


def _groups(rows: Sequence[ChatRow]) -> list[list[int]]:
    """Put rows together that share their first question, or all of them."""
    [questions] = questions_of(rows)
    owner: dict[str, int] = {}
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for index, (row, asked) in enumerate(zip(rows, questions, strict=True)):
        for kind, text in (("first", _asked(row)[0]), ("all", asked)):
            key = f"{kind} {same_words_key(text) or text}"
            parent[root(index)] = root(owner.setdefault(key, index))
    groups: dict[int, list[int]] = defaultdict(list)
    for index in range(len(rows)):
        groups[root(index)].append(index)
    return list(groups.values())


def _part(rows: OwnRows, indices: Sequence[int], source: str) -> OwnRows:
    kept = [rows.rows[index] for index in indices]
    return OwnRows(
        rows=kept,
        lines=[rows.lines[index] for index in indices],
        format=rows.format,
        dropped=Counter(),
        first_dropped={},
        sha256=_sha256(kept),
        source=source,
        ignored=rows.ignored,
    )


def _sha256(rows: Iterable[ChatRow]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        written = json.dumps(row["messages"], sort_keys=True, ensure_ascii=False)
        digest.update(written.encode() + b"\n")
    return digest.hexdigest()
