"""The grader of the exercise about rows that others have written.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from posttrain.core.grading import Grade, Mistake, grade

_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
Turns = list[list[Any]]


def _turns(row: dict[str, Any], weight: Callable[[dict[str, Any]], bool]) -> Turns:
    return [
        [
            _ROLES[turn["from"]],
            turn["value"],
            _ROLES[turn["from"]] == "assistant" and weight(turn),
        ]
        for turn in row["conversations"]
    ]


def _honoured(turn: dict[str, Any]) -> bool:
    return turn.get("weight") is None or bool(turn["weight"])


def _turns_of(row: dict[str, Any]) -> Turns:
    return _turns(row, _honoured)


OWN_ROWS = [
    Mistake(
        "You train an answer whose weight is 0: zero is a value, not an absence. Ask whether "
        "the weight is None, not whether it is false.",
        lambda row: _turns(row, lambda turn: True),
    ),
    Mistake(
        "You leave answers without a weight untrained: a weight that is missing or null means "
        "that the answer is trained.",
        lambda row: _turns(row, lambda turn: bool(turn.get("weight"))),
    ),
    Mistake(
        "You leave answers untrained whose weight is null: null says nothing, as a missing "
        "weight does.",
        lambda row: _turns(row, lambda turn: bool(turn.get("weight", 1))),
    ),
    Mistake(
        "You train the user's messages too: only answers are trained.",
        lambda row: [[role, text, True] for role, text, _ in _turns_of(row)],
    ),
    Mistake(
        "You kept the names of ShareGPT: human is the user, gpt the assistant.",
        lambda row: [
            [turn["from"], turn["value"], turn["from"] == "gpt" and _honoured(turn)]
            for turn in row["conversations"]
        ],
    ),
    Mistake(
        "You dropped the system message: it belongs to the conversation, untrained.",
        lambda row: [turn for turn in _turns_of(row) if turn[0] != "system"],
    ),
    Mistake(
        "You train the last answer alone: each answer is trained that its weight does not rule "
        "out.",
        lambda row: [
            [role, text, trained and index == len(row["conversations"]) - 1]
            for index, (role, text, trained) in enumerate(_turns_of(row))
        ],
    ),
    Mistake(
        "You stripped the texts: white space inside a message is the author's.",
        lambda row: [[role, text.strip(), trained] for role, text, trained in _turns_of(row)],
    ),
]


def grade_turns(fn: Callable[[dict[str, Any]], Turns]) -> Grade:
    """Grade the reading of a row in ShareGPT's format.

    Args:
        fn: Takes a row, ``{"conversations": [{"from": ..., "value": ..., "weight": ...}]}``,
            where ``weight`` may be missing, null, 0 or 1; returns one ``[role, content,
            trained]`` for each turn.

    Returns:
        The grade.

    Chapter: sft/your_model.
    """

    def turn(who: str, text: str, **rest: Any) -> dict[str, Any]:
        return {"from": who, "value": text, **rest}

    cases: list[tuple[dict[str, Any]]] = [
        ({"conversations": [turn("human", "Hi"), turn("gpt", "Ho")]},),
        (
            {
                "conversations": [
                    turn("system", "Be brief."),
                    turn("human", "2 + 2?"),
                    turn("gpt", "5", weight=0),
                    turn("human", "Sure?"),
                    turn("gpt", "4", weight=1),
                ]
            },
        ),
        (
            {
                "conversations": [
                    turn("human", "Sing", weight=None),
                    turn("gpt", "  La\n", weight=None),
                    turn("human", "More"),
                    turn("gpt", "La la"),
                    turn("human", "And the end?"),
                    turn("gpt", "La la la", weight=None),
                ]
            },
        ),
    ]

    def reference(row: dict[str, Any]) -> Turns:
        return _turns_of(row)

    return grade(fn, reference, OWN_ROWS, cases)
