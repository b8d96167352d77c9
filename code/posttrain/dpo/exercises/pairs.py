"""The grader of the exercise about splitting two dialogues into a prompt and two answers.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from posttrain.core.grading import Grade, Mistake, grade

Row = dict[str, str]
Split = list[Any]

_SPEAKER = re.compile(r"\n\n(Human|Assistant): ?")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _turns(text: str) -> list[tuple[str, str]]:
    parts = _SPEAKER.split(text)[1:]
    return [(_ROLES[who], said) for who, said in zip(parts[::2], parts[1::2], strict=True)]


def _common(row: Row) -> int:
    """Count the turns that both dialogues begin with; the last is a question."""
    both = list(zip(_turns(row["chosen"]), _turns(row["rejected"]), strict=False))
    return next((i for i, (ours, theirs) in enumerate(both) if ours != theirs), len(both))


def _messages(turns: list[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": said} for role, said in turns]


def _split_at(row: Row, index: int) -> Split:
    """Split in front of a turn; all that comes behind it becomes the answer."""
    answers = []
    for name in ("chosen", "rejected"):
        turns = _turns(row[name])[index:]
        rest = "".join(
            f"\n\n{'Human' if role == 'user' else 'Assistant'}: {said}"
            for role, said in turns[1:]
        )
        answers.append((turns[0][1] + rest).rstrip())
    return [_messages(_turns(row["chosen"])[:index]), *answers]


def _reference(row: Row) -> Split:
    return _split_at(row, _common(row))


def _at_first_turn(row: Row) -> Split:
    return _split_at(row, 1)


def _at_last_common_character(row: Row) -> Split:
    letters = enumerate(zip(row["chosen"], row["rejected"], strict=False))
    start = next(i for i, (ours, theirs) in letters if ours != theirs)
    prompt = _messages(_turns(row["chosen"][:start]))
    if prompt and prompt[-1]["role"] == "assistant":
        prompt = prompt[:-1]  # what both answers begin with is lost
    return [prompt, row["chosen"][start:].rstrip(), row["rejected"][start:].rstrip()]


def _one_message(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    text = "\n\n".join(message["content"] for message in prompt)
    return [[{"role": "user", "content": text}], chosen, rejected]


def _last_question(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    return [prompt[-1:], chosen, rejected]


def _swapped(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    return [prompt, rejected, chosen]


def _names_kept(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    names = {"user": "human", "assistant": "assistant"}
    return [[{**m, "role": names[m["role"]]} for m in prompt], chosen, rejected]


def _space_kept(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    ends = [row[name][len(row[name].rstrip()) :] for name in ("chosen", "rejected")]
    return [prompt, chosen + ends[0], rejected + ends[1]]


def _space_before(row: Row) -> Split:
    prompt, chosen, rejected = _reference(row)
    return [
        [{**message, "content": f" {message['content']}"} for message in prompt],
        f" {chosen}",
        f" {rejected}",
    ]


SPLIT = [
    Mistake(
        "You split behind the first turn: the answers then hold the rest of the talk, the "
        "user's turns among them. Split in front of the first turn in which the two differ.",
        _at_first_turn,
    ),
    Mistake(
        "You split at the last common character: where both answers begin alike, it lies "
        "inside of them. Compare whole turns.",
        _at_last_common_character,
    ),
    Mistake(
        "You lost the roles: the prompt became one message of the user, though the assistant "
        "said a part of it. Make one message of each turn.",
        _one_message,
    ),
    Mistake(
        "You kept the last question alone: the turns before it belong to the prompt too.",
        _last_question,
    ),
    Mistake("You swapped the two answers: chosen comes first.", _swapped),
    Mistake(
        "You kept the name 'human': the role is 'user', which chat templates know.", _names_kept
    ),
    Mistake(
        "You kept white space at the end of an answer: the stop token must follow the last "
        "word, so strip it there.",
        _space_kept,
    ),
    Mistake(
        "You kept the space behind the speaker's colon: it belongs to the format, not to what "
        "was said.",
        _space_before,
    ),
]


def grade_split(fn: Callable[[Row], Split]) -> Grade:
    r"""Grade the splitting of a row of HH-RLHF.

    Args:
        fn: Takes a row, ``{"chosen": text, "rejected": text}``, of which each text is turns
            such as ``"\n\nHuman: Hi\n\nAssistant: Ho"``; returns ``[prompt, chosen,
            rejected]``, of which ``prompt`` is a list of messages, each with ``role`` and
            ``content``, and the others are texts.

    Returns:
        The grade.

    Chapter: dpo/preference_data.
    """

    def talk(*said: str) -> str:
        names = ("Human", "Assistant")
        return "".join(f"\n\n{names[i % 2]}: {text}" for i, text in enumerate(said))

    start = ("Is tea a drink?", "It is.", "And soup?")
    cases: list[tuple[Row]] = [
        ({"chosen": talk("Hi", "Ho there."), "rejected": talk("Hi", "Away!")},),
        (
            {
                "chosen": talk(*start, "I would eat it.\n"),
                "rejected": talk(*start, "I would not know.  "),
            },
        ),
        (
            {
                "chosen": talk(*start, "Yes.", "Why?", "It is wet\n\nand warm."),
                "rejected": talk(*start, "Yes.", "Why?", "It is what it is."),
            },
        ),
    ]

    def reference(row: Row) -> Split:
        return _reference(row)

    return grade(fn, reference, SPLIT, cases)
