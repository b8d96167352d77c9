"""Rows where there are none yet: from templates or a teacher, verified, and free of the test.

The teacher's client lies in a module of its own and can be had from here too.

Chapter: sft/your_model.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.core.storage.files import write_text_atomic
from posttrain.sft.chat.messages import Message
from posttrain.sft.data.duplicates import find_leaks, in_words, same_words_key
from posttrain.sft.data.hub import ChatRow, MappedRows
from posttrain.sft.data.own_rows import questions_of
from posttrain.sft.data.teacher import ask_teacher

__all__ = ["ask_teacher", "decontaminate", "from_templates", "keep_verified", "write_rows"]

_PLACE = re.compile(r"\{(\w+)\}")
_MISSES = 1_000  # draws in a row that give nothing new, after which there is nothing new

Values = Mapping[str, Sequence[Any] | Callable[[dict[str, Any]], Any]]


def from_templates(
    templates: Sequence[tuple[str, str]],
    values: Values,
    seed: int,
    n: int,
    *,
    system: str | None = None,
) -> list[ChatRow]:
    """Fill templates with values, until there are enough different questions.

    ``{name}`` stands for a value. A value is drawn from a list, or computed from those that
    stand before it, as a right answer is: ``{"a": range(100), "twice": lambda v: 2 * v["a"]}``.
    Other braces stay as they are.

    Args:
        templates: Pairs of a question and its answer.
        values: What may stand for each name.
        seed: Seed of the draws.
        n: How many rows to make.
        system: System message of each row; None adds none.

    Returns:
        ``n`` conversations, each of which asks something else.

    Raises:
        ValueError: If there is no template, a name has no values, or the templates do not give
            ``n`` different questions.

    Chapter: sft/your_model.
    """
    if not templates or n < 1:
        raise ValueError(f"there are {len(templates)} templates for {n} rows: give 1 or more")
    if empty := [k for k, options in values.items() if not callable(options) and not options]:
        raise ValueError(f"{empty[0]!r} has no values: give at least one")
    generator = random.Random(f"templates {seed}")
    rows: dict[str, ChatRow] = {}
    misses = 0
    while len(rows) < n:
        question, answer = generator.choice(templates)
        drawn: dict[str, Any] = {}
        for name, options in values.items():
            drawn[name] = options(drawn) if callable(options) else generator.choice(options)
        asked = _fill(question, drawn)
        misses = misses + 1 if asked in rows else 0
        if misses == _MISSES:
            raise ValueError(
                f"the templates give about {len(rows)} different questions, and not {n}: add "
                "templates or values"
            )
        messages: list[Message] = [] if system is None else [_message("system", system)]
        messages += [_message("user", asked), _message("assistant", _fill(answer, drawn))]
        rows.setdefault(asked, {"messages": messages})
    return list(rows.values())


def keep_verified(
    rows: Sequence[ChatRow], verify: Callable[[ChatRow], bool | str]
) -> MappedRows:
    """Keep the rows that a verifier accepts, and count the others by reason.

    Args:
        rows: Conversations.
        verify: Returns True for a row to keep; False, or a text that says why, for another.

    Returns:
        The rows that stay, in order, and how many went.

    Raises:
        ValueError: If the verifier returns anything else, such as None from a missing return.

    Chapter: sft/your_model.
    """
    kept = MappedRows([], Counter())
    for index, row in enumerate(rows):
        verdict = verify(row)
        if verdict is True:
            kept.rows.append(row)
            continue
        if verdict is not False and not (isinstance(verdict, str) and verdict):
            raise ValueError(
                f"the verifier returned {verdict!r} for row {index}: return True to keep the "
                "row, else False or the reason as text"
            )
        reason = verdict or "not verified"
        kept.dropped[reason] += 1
        kept.first_dropped.setdefault(reason, f"row {index}: {reason}")
    return kept


def decontaminate(
    rows: Sequence[ChatRow], held_out: Sequence[ChatRow], *, threshold: float = 1.0
) -> MappedRows:
    """Leave out the rows whose question a held-out set asks too.

    Args:
        rows: Rows to train on.
        held_out: Rows to validate or test on.
        threshold: As in `find_leaks`: 1 takes questions of the same words and numbers for one.

    Returns:
        The rows that stay, in order, and how many went.

    Raises:
        ValueError: If the threshold is out of its range.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    held, asked = ([in_words(text) for text in part] for part in questions_of(held_out, rows))
    # A repetition is paired with its first text only: held-out texts come first, and rows that
    # repeat a leaking one leak too.
    leaks = find_leaks({"held out": held, "rows": asked}, threshold)
    keys = {same_words_key(asked[leak.other_index]): leak.index for leak in leaks}
    kept = MappedRows([], Counter())
    for index, (row, text) in enumerate(zip(rows, asked, strict=True)):
        source = keys.get(same_words_key(text))
        if source is None:
            kept.rows.append(row)
        else:
            kept.dropped["held out"] += 1
            kept.first_dropped.setdefault(
                "held out", f"row {index} asks what row {source} of the held-out set asks"
            )
    return kept


def write_rows(rows: Sequence[ChatRow], path: str | Path) -> None:
    """Write rows to a file of JSON Lines, which `load_rows` and TRL read: all, or nothing.

    Args:
        rows: Conversations.
        path: The file to write or replace.

    Raises:
        ValueError: If there are no rows, or the name does not end in ``.jsonl``.

    Chapter: sft/your_model.
    """
    if not rows or Path(path).suffix != ".jsonl":
        raise ValueError(f"{len(rows)} rows for {path}: give at least one, and a .jsonl file")
    lines = [json.dumps({"messages": row["messages"]}, ensure_ascii=False) for row in rows]
    write_text_atomic(Path(path), "\n".join(lines) + "\n")


def _fill(template: str, drawn: Mapping[str, Any]) -> str:
    def value(place: re.Match[str]) -> str:
        if place[1] not in drawn:
            known = ", ".join(drawn) or "none"
            raise ValueError(
                f"the template {template!r} asks for {place[1]!r}, and the values are {known}: "
                "add it, or correct the name"
            )
        return str(drawn[place[1]])

    return _PLACE.sub(value, template)


def _message(role: str, content: str) -> Message:
    return {"role": role, "content": content}
