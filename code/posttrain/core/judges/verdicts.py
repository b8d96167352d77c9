"""Pairwise judges: one verdict out of a judge's text, and one outcome out of both orders.

A judge sees a question and two answers and says which is better. Where an answer stands sways
it, so each pair is asked in both orders (Zheng et al., 2023). What a judge writes is read
strictly: a text with two verdicts, half of one or none is an error and never a guess.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

from tqdm.auto import tqdm

from posttrain.core.arguments import names, shortened
from posttrain.core.judges.errors import (
    ConflictingVerdictsError,
    NoVerdictError,
    TruncatedVerdictError,
    VerdictError,
    VerdictSchemaError,
)

Winner = Literal["first", "second", "tie"]
PairWinner = Literal["a", "b", "tie"]

ACCEPTED = '[[A]], [[B]] or [[C]] for a tie, or JSON such as {"winner": "first"}'
"""The forms of a verdict, as the errors name them."""

_WINNERS: dict[str, Winner] = {
    "a": "first",
    "b": "second",
    "c": "tie",
    "first": "first",
    "second": "second",
    "tie": "tie",
}
_MARK = re.compile(r"\[\[\s*(a|b|c|tie)\s*\]\]", re.IGNORECASE)
_ANY_MARK = re.compile(r"\[\[[^\[\]\n]{1,40}\]\]")
_HALF_MARK = re.compile(r"\[\[[^\[\]\n]{0,10}\]?$")
_OBJECT = re.compile(r'\{\s*"')
_WINNER_KEY = re.compile(r'"winner"\s*:')
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>", re.DOTALL)


@dataclass(frozen=True)
class Verdict:
    """What a judge says of two answers.

    Attributes:
        winner: Which of the two is better: "first", "second", or "tie".
        reason: Why, in the judge's words; may be empty.
        raw: All that the judge wrote.
    """

    winner: Winner
    reason: str = ""
    raw: str = ""

    def __post_init__(self) -> None:
        if self.winner not in get_args(Winner):
            raise ValueError(f"winner is {self.winner!r}: give 'first', 'second' or 'tie'")


class Judge(Protocol):
    """Anything that compares two answers to a question."""

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Say which answer is better.

        Args:
            question: What was asked.
            first: The answer shown first.
            second: The answer shown second.

        Returns:
            The verdict.
        """


@dataclass(frozen=True)
class Outcome:
    """A pair of answers under a judge that was asked in both orders.

    Attributes:
        a_first: The verdict where answer a was shown first; None where none could be read.
        b_first: The verdict where answer b was shown first; None where none could be read.
        problem: Why a verdict could not be read; empty where both were.
    """

    a_first: Verdict | None
    b_first: Verdict | None
    problem: str = ""

    def __post_init__(self) -> None:
        if (self.a_first is None or self.b_first is None) != bool(self.problem):
            raise ValueError(
                f"the verdicts are {self.a_first} and {self.b_first}, the problem is "
                f"{self.problem!r}: a missing verdict has a problem, and two verdicts have none"
            )

    @property
    def votes(self) -> tuple[PairWinner | None, PairWinner | None]:
        """Whom each verdict favors; None where it could not be read."""
        named: tuple[dict[Winner, PairWinner], ...] = (
            {"first": "a", "second": "b", "tie": "tie"},
            {"first": "b", "second": "a", "tie": "tie"},
        )
        found = [
            names_of[verdict.winner] if verdict else None
            for names_of, verdict in zip(named, (self.a_first, self.b_first), strict=True)
        ]
        return found[0], found[1]

    @property
    def winner(self) -> PairWinner:
        """The answer that won in both orders; else a tie."""
        a_first, b_first = self.votes
        return a_first if a_first is not None and a_first == b_first else "tie"

    @property
    def is_consistent(self) -> bool:
        """Whether both verdicts were read and say the same of the answers."""
        a_first, b_first = self.votes
        return a_first is not None and a_first == b_first

    @property
    def place(self) -> Literal["first", "second"] | None:
        """The place that won both times, whichever answer stood there; None if none did."""
        if self.a_first is None or self.b_first is None:
            return None
        same = self.a_first.winner == self.b_first.winner
        return self.a_first.winner if same and self.a_first.winner != "tie" else None


def parse_verdict(text: str) -> Verdict:
    """Read the one verdict in a judge's text.

    Accepted are ``[[A]]``, ``[[B]]``, and ``[[C]]`` or ``[[tie]]`` for a tie, anywhere in the
    text, and JSON objects with ``winner`` ("first", "second", "tie", or the letters) and, where
    wanted, ``reason``. All of the text is searched: the same verdict twice is one verdict, two
    that differ are an error. Words alone, such as "Yes" or "A is better", are none. A
    ``<think>`` block at the start is passed over.

    Args:
        text: What the judge wrote.

    Returns:
        The verdict.

    Raises:
        NoVerdictError: If there is none.
        ConflictingVerdictsError: If there are two that differ.
        TruncatedVerdictError: If the text ends inside a verdict, or inside its thoughts.
        VerdictSchemaError: If there is a verdict in another form.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    said = _after_thoughts(text)
    objects = list(_objects(said, text))
    marks = [(_WINNERS[mark[1].lower()], "") for mark in _MARK.finditer(said)]
    found = objects + marks
    winners = list(dict.fromkeys(winner for winner, _ in found))
    if len(winners) > 1:
        raise ConflictingVerdictsError(
            f"the judge says both {winners[0]!r} and {winners[1]!r}: {_excerpt(text)}: ask for "
            f"exactly one of {ACCEPTED}"
        )
    if not winners:
        _refuse(said, text)
    reason = next((reason for _, reason in objects if reason), "")
    return Verdict(winners[0], reason or _MARK.sub("", said).strip() * (not objects), text)


def both_orders(judge: Judge, question: str, a: str, b: str) -> Outcome:
    """Ask a judge about two answers in both orders.

    An answer wins only if it wins in both; everything else is a tie. A verdict that cannot be
    read makes a tie too and is named in the outcome: a pair is never dropped.

    Args:
        judge: The judge.
        question: What was asked.
        a: One answer.
        b: The other one.

    Returns:
        The outcome, from which the winner, the place that won and the consistency follow.

    Chapter: dpo/preference_data.
    """
    verdicts: list[Verdict | None] = []
    problems: list[str] = []
    for first, second in ((a, b), (b, a)):
        try:
            verdicts.append(judge.judge(question, first, second))
        except VerdictError as error:
            verdicts.append(None)
            problems.append(f"{type(error).__name__}: {error}")
    return Outcome(verdicts[0], verdicts[1], "; ".join(problems))


def judge_pairs(
    judge: Judge, questions: Sequence[str], answers_a: Sequence[str], answers_b: Sequence[str]
) -> list[Outcome]:
    """Ask a judge about many pairs, each in both orders.

    A judge that has a method ``ask_ahead`` gets all questions at once before it is asked them
    one by one, such as one that lies behind a network.

    Args:
        judge: The judge.
        questions: What was asked, n texts.
        answers_a: One answer to each.
        answers_b: The other answer to each.

    Returns:
        n outcomes, in order.

    Raises:
        ValueError: If the numbers of questions and answers differ, or one of them is no list of
            texts.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    asked = names(questions, "questions")
    a, b = names(answers_a, "answers_a"), names(answers_b, "answers_b")
    if not len(asked) == len(a) == len(b):
        raise ValueError(
            f"there are {len(asked)} questions, {len(a)} answers_a and {len(b)} answers_b: "
            "give one of each for every pair"
        )
    ask_ahead = getattr(judge, "ask_ahead", None)
    if ask_ahead is not None:
        rows = list(zip(asked, a, b, strict=True))
        ask_ahead([*rows, *((question, y, x) for question, x, y in rows)])
    rows_shown = tqdm(zip(asked, a, b, strict=True), total=len(asked), desc="judging")
    return [both_orders(judge, *row) for row in rows_shown]


# --- reading ---


def _after_thoughts(text: str) -> str:
    """Return what follows the thoughts of a reasoning model."""
    if not text.lstrip().startswith("<think>"):
        return text
    found = _THOUGHT.match(text)
    if found is None:
        raise TruncatedVerdictError(
            f"the judge's thoughts do not end: {_excerpt(text)}: allow it more tokens"
        )
    return text[found.end() :]


def _objects(said: str, text: str) -> Iterator[tuple[Winner, str]]:
    """Read each JSON object that names a winner."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    at = said.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(said, at)
        except (json.JSONDecodeError, RecursionError) as error:
            if _OBJECT.match(said, at) and _WINNER_KEY.search(said, at):
                raise _broken(error, said, text) from None
            end = at + 1  # a brace that begins no JSON, as in a formula
        else:
            yield from _winners(value, text)
        at = said.find("{", end)


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of one JSON object, those that stand twice too."""


def _winners(value: _Pairs, text: str) -> Iterator[tuple[Winner, str]]:
    fields = dict(value)
    for key, said in value:
        if key != "winner":
            continue
        winner = _WINNERS.get(said.strip().lower()) if isinstance(said, str) else None
        reason = fields.get("reason", "")
        if winner is None:
            raise VerdictSchemaError(
                f"the judge's winner is {shortened(said)}: {_excerpt(text)}: accepted is "
                f"{ACCEPTED}"
            )
        if not isinstance(reason, str):
            raise VerdictSchemaError(
                f"the judge's reason is {shortened(reason)}, which is no text: "
                f"{_excerpt(text)}: accepted is {ACCEPTED}"
            )
        yield winner, reason


def _broken(error: Exception, said: str, text: str) -> VerdictError:
    """Say whether JSON that cannot be read was cut off or is none."""
    message = getattr(error, "msg", "")
    ends = getattr(error, "pos", 0) >= len(said.rstrip()) or message.startswith("Unterminated")
    if ends:
        return TruncatedVerdictError(
            f"the judge's JSON ends in the middle: {_excerpt(text)}: allow it more tokens"
        )
    return VerdictSchemaError(
        f"the judge's verdict is no JSON ({message or 'nested too deeply'}): {_excerpt(text)}: "
        f"accepted is {ACCEPTED}"
    )


def _refuse(said: str, text: str) -> None:
    """Name the reason why a text holds no verdict."""
    if _HALF_MARK.search(said.rstrip()) or _is_cut_object(said):
        raise TruncatedVerdictError(
            f"the judge's answer ends in the middle: {_excerpt(text)}: allow it more tokens"
        )
    if said.lstrip().startswith(("{", "[{", "```json")) or _ANY_MARK.search(said):
        raise VerdictSchemaError(
            f"the judge's answer is no verdict: {_excerpt(text)}: accepted is {ACCEPTED}"
        )
    raise NoVerdictError(
        f"the judge's answer holds no verdict: {_excerpt(text)}: ask for {ACCEPTED}"
    )


def _is_cut_object(said: str) -> bool:
    """Whether a text is JSON that ends before its winner."""
    start = said.strip().removeprefix("```json").lstrip()
    if not start.startswith("{"):
        return False
    try:
        json.JSONDecoder().raw_decode(start)
    except json.JSONDecodeError as error:
        return error.pos >= len(start) or error.msg.startswith("Unterminated")
    except RecursionError:
        return False
    return False


def _excerpt(text: str) -> str:
    return shortened(text, 100)
