"""Pairs built three ways: by the persona's rules, by edits, and by a judge asked twice.

Each builder says what it left out, and why. None of them prefers the longer answer: the two
answers of a pair are matched in words, or the judge's order is swapped.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Literal

from posttrain.dpo.data.pair_formats import PairRow, make_pair
from posttrain.dpo.data.persona import compliance, is_finished
from posttrain.dpo.data.persona_edits import (
    TOLERANCE,
    EditError,
    edit_into,
    edit_out_of,
    one_paragraph,
    same_length,
)
from posttrain.sft.chat.messages import Message
from posttrain.sft.data.hub import MalformedRowError

Verdict = Literal["first", "second", "tie"]
VERDICTS = ("first", "second", "tie")
Prompt = str | Sequence[Message]
Judge = Callable[[Prompt, str, str], Verdict]
"""Is given a prompt and two answers, and says which is better."""


EDIT_CHANGE = 0.5
"""Largest change of a completion's length by the first edit, as a share of the longer one."""


@dataclass(frozen=True)
class BuiltPairs:
    """Pairs, and why others were not made.

    Attributes:
        pairs: The pairs.
        left_out: Number of attempts that gave no pair, by reason.
    """

    pairs: list[PairRow]
    left_out: Counter[str]

    def __repr__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items())
        return f"{len(self.pairs):,} pairs; left out: {reasons or 'none'}"


def gather(parts: Iterable[BuiltPairs]) -> BuiltPairs:
    """Put the results of many calls into one.

    Args:
        parts: What a builder returned for each prompt.

    Returns:
        All pairs in order, and the sums of what was left out.

    Chapter: dpo/preference_data.
    """
    whole = BuiltPairs([], Counter())
    for part in parts:
        whole.pairs.extend(part.pairs)
        whole.left_out.update(part.left_out)
    return whole


def by_rule(
    prompt: Prompt, completions: Sequence[str], *, tolerance: float = TOLERANCE
) -> BuiltPairs:
    """Take the best and the worst of sampled completions, by the persona's score.

    Of all two completions that differ in score and are nearly equally long, those are taken
    that differ most; among these, the two that are closest in length.

    Args:
        prompt: A question, or messages of which the user's is the last.
        completions: Answers sampled for it.
        tolerance: Largest difference in words, as a share of the longer answer's.

    Returns:
        One pair, or none and why: "too few finished completions", "same score", "lengths
        differ", or what `make_pair` refuses. Those cut off in a sentence do not count.

    Raises:
        ValueError: If the tolerance is not between 0 and 1.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    finished = [text for text in completions if is_finished(text)]
    texts = list(dict.fromkeys(finished))
    if len(texts) < 2:
        return _none("too few finished completions")
    scores = {text: compliance(text).score for text in texts}
    found = [(a, b) for a, b in permutations(texts, 2) if scores[a] > scores[b]]
    if not found:
        return _none("same score")
    matched = [(a, b) for a, b in found if same_length(a, b, tolerance)]
    if not matched:
        return _none("lengths differ")

    def order(pair: tuple[str, str]) -> tuple[int, int]:
        a, b = pair
        return scores[b] - scores[a], abs(len(a.split()) - len(b.split()))

    return _pair(prompt, *min(matched, key=order))


def by_editing(prompt: Prompt, completion: str, *, seed: int = 0) -> BuiltPairs:
    """Edit one completion into the persona, and that out of it again.

    Both answers say the same, so the pair differs in form alone. They are matched in length
    with each other; the completion itself, which is in no pair, may be longer or shorter.
    Neither has line breaks: the edits would lose them in one of the two.

    Args:
        prompt: A question, or messages of which the user's is the last.
        completion: An answer to it.
        seed: Seed of the edits.

    Returns:
        One pair, or none and why: what `edit_into`, `edit_out_of` or `make_pair` refuses.

    Chapter: dpo/preference_data.
    """
    try:
        chosen = edit_into(one_paragraph(completion), tolerance=EDIT_CHANGE)
        rejected = edit_out_of(chosen, seed)
    except EditError as error:
        return _none(error.reason)
    return _pair(prompt, chosen, rejected)


def by_judge(prompt: Prompt, a: str, b: str, judge: Judge) -> BuiltPairs:
    """Ask a judge for the better of two answers, in both orders.

    A judge that prefers a place says the same word in both orders, and so prefers another
    answer each time: then there is no pair.

    Args:
        prompt: A question, or messages of which the user's is the last.
        a: An answer.
        b: Another answer.
        judge: Called as ``judge(prompt, first, second)``; returns "first", "second" or "tie".

    Returns:
        One pair, or none and why: "same answer", "tie" in both orders, "orders disagree", or
        what `make_pair` refuses.

    Raises:
        ValueError: If the judge returns anything else.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    if a.strip() == b.strip():
        return _none("same answer")
    better = {"first": a, "second": b, "tie": None}[_ask(judge, prompt, a, b)]
    swapped = {"first": b, "second": a, "tie": None}[_ask(judge, prompt, b, a)]
    if better != swapped:
        return _none("orders disagree")
    if better is None:
        return _none("tie")
    return _pair(prompt, better, b if better == a else a)


def _ask(judge: Judge, prompt: Prompt, first: str, second: str) -> Verdict:
    verdict = judge(prompt, first, second)
    if verdict not in VERDICTS:
        raise ValueError(
            f"the judge returned {verdict!r}: it must return 'first', 'second' or 'tie'"
        )
    return verdict


def _pair(prompt: Prompt, chosen: str, rejected: str) -> BuiltPairs:
    try:
        return BuiltPairs([make_pair(prompt, chosen, rejected)], Counter())
    except MalformedRowError as error:
        return _none(error.reason)


def _none(reason: str) -> BuiltPairs:
    return BuiltPairs([], Counter([reason]))
