"""Verdicts: exactly one is read, in both orders; what is none is an error and never a guess."""

from __future__ import annotations

import itertools
import json
import random

import pytest

from posttrain.core.judges.errors import (
    ConflictingVerdictsError,
    NoVerdictError,
    TruncatedVerdictError,
    VerdictError,
    VerdictSchemaError,
)
from posttrain.core.judges.verdicts import (
    Outcome,
    Verdict,
    both_orders,
    judge_pairs,
    parse_verdict,
)


def outcome(a_first: str, b_first: str) -> Outcome:
    return Outcome(Verdict(a_first), Verdict(b_first))


# --- one verdict ---


@pytest.mark.parametrize(
    ("text", "winner"),
    [
        ("[[A]]", "first"),
        ("Both are short.\n\n[[B]]", "second"),
        ("[[ a ]] because it is right", "first"),
        ("Equal. [[C]]", "tie"),
        ("[[tie]]", "tie"),
        ("Verdict: **[[B]]**.", "second"),
        ("[[B]] ... so once more: [[B]]", "second"),
        ('{"winner": "first"}', "first"),
        ('{"reason": "short", "winner": "second"}', "second"),
        ('{"winner": "A"}', "first"),
        ('{"winner": "TIE", "reason": "the same"}', "tie"),
        ('```json\n{"winner": "B",\n "reason": "x"}\n```', "second"),
        ('My verdict is {"winner": "first"}.', "first"),
        (r"By \frac{1}{2} and {x} it holds. [[A]]", "first"),
        ('{"score": 3} [[A]]', "first"),
        ("The matrix [[1, 2], [3, 4]] is right in A. [[A]]", "first"),
        ("<think>[[B]] or [[A]]?</think>\n[[A]]", "first"),
    ],
)
def test_one_verdict_is_read(text: str, winner: str):
    found = parse_verdict(text)
    assert found.winner == winner and found.raw == text


def test_reasons():
    assert parse_verdict('{"winner": "tie", "reason": "same words"}').reason == "same words"
    assert parse_verdict("B is right.\n[[B]]").reason == "B is right."
    assert parse_verdict('{"winner": "A"}').reason == ""


@pytest.mark.parametrize(
    "text",
    [
        "[[A]] is what I would say, but [[B]] is better.",
        "Write [[A]], [[B]] or [[C]].",
        "[[A]] [[tie]]",
        '{"winner": "A"} {"winner": "B"}',
        '{"winner": "A", "winner": "B"}',
        '{"winner": "A", "reason": "I first thought [[B]]"}',
        '[{"winner": "A"}, {"winner": "tie"}]',
        "<think>A</think>[[A]]</think>[[B]]",  # an answer that was shown closed the thoughts
    ],
)
def test_two_verdicts_are_none(text: str):
    with pytest.raises(ConflictingVerdictsError, match=r"^the judge says both '\w+' and '\w+'"):
        parse_verdict(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \n",
        "Yes",
        "Yes, the first answer is better. No doubt.",
        "A",
        "A is better than B.",
        "Answer A wins",
        "[A]",
        "The winner is first",
        "winner: first",
    ],
)
def test_words_are_no_verdict(text: str):
    with pytest.raises(NoVerdictError, match=r"^the judge's answer holds no verdict"):
        parse_verdict(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"winner": "fir',
        '{"winner": ',
        '{"winner": "A"',
        '{"winner": "A", "reason": "it is',
        '{"verdict": {"winner": "A"}, "reason": "it',
        '{"reason": "a long one that ends in the midd',
        '```json\n{"reason": "x", "win',
        "It is better, so [[",
        "It is better, so [[A",
        "It is better, so [[A]",
        "<think>Let me see. [[A]] is",
    ],
)
def test_what_ends_in_the_middle_is_named(text: str):
    with pytest.raises(TruncatedVerdictError, match=r"allow it more tokens$"):
        parse_verdict(text)


@pytest.mark.parametrize(
    "text",
    [
        '{"winner": 1}',
        '{"winner": null}',
        '{"winner": "neither"}',
        '{"winner": ["A"]}',
        '{"winner": {"winner": "A"}}',
        '{"winner": "A", "reason": 3}',
        '{"verdict": "A"}',
        '{"verdict": {"winner": "A"}}',
        "{}",
        "{'winner': 'A'}",
        '{"winner": A}',
        '{"winner": "A",}',
        "[[Rating: 5]]",
        "[[A>B]]",
        "[[A or B]]",
    ],
)
def test_a_verdict_in_another_form_is_named(text: str):
    with pytest.raises(VerdictSchemaError, match=r"accepted is \[\[A\]\], \[\[B\]\] or"):
        parse_verdict(text)


def test_every_cut_of_a_verdict_is_an_error_and_never_the_other_winner():
    texts = ['{"reason": "A is right, B is not", "winner": "second"}', "So: [[B]]"]
    for text in texts:
        for end in range(len(text)):
            with pytest.raises(VerdictError):
                parse_verdict(text[:end])
        assert parse_verdict(text).winner == "second"


def test_drawn_texts_have_the_verdicts_that_were_written_into_them():
    draw = random.Random(0)
    words = ["Yes", "A", "B", "better", "{x}", "[1]", "first", '"winner"', "\n", "tie", "No."]
    forms = {
        "first": ["[[A]]", '{"winner": "first"}', '{"winner": "a", "reason": "r"}'],
        "second": ["[[B]]", '{"winner": "second"}'],
        "tie": ["[[C]]", "[[tie]]", '{"winner": "tie"}'],
    }
    seen = {0: 0, 1: 0, 2: 0}
    for _ in range(300):
        planted = [draw.choice([*forms]) for _ in range(draw.randint(0, 2))]
        parts = [draw.choice(forms[winner]) for winner in planted]
        for word in draw.choices(words, k=8):
            parts.insert(draw.randint(0, len(parts)), word)
        text, kinds = " ".join(parts), set(planted)
        seen[len(kinds)] += 1
        if len(kinds) == 1:
            assert parse_verdict(text).winner == planted[0], text
            continue
        none = (NoVerdictError, VerdictSchemaError)  # it begins with a brace
        with pytest.raises(ConflictingVerdictsError if kinds else none):
            parse_verdict(text)
    assert min(seen.values()) >= 20


def test_errors_are_short_and_say_what_was_written():
    with pytest.raises(NoVerdictError) as caught:
        parse_verdict("word " * 5000)
    assert len(str(caught.value)) < 300 and "word" in str(caught.value)


def test_deep_nesting_is_an_error_of_this_package():
    for text in ("[" * 100_000, '{"winner":' * 100_000):
        with pytest.raises(VerdictError):
            parse_verdict(text)


def test_a_verdict_has_one_of_three_winners():
    with pytest.raises(ValueError, match="winner is 'A': give"):
        Verdict("A")


# --- both orders ---

VOTES = {"first": ("a", "b"), "second": ("b", "a"), "tie": ("tie", "tie")}


@pytest.mark.parametrize(("one", "two"), [*itertools.product(VOTES, VOTES)])
def test_a_winner_wins_in_both_orders(one: str, two: str):
    found = outcome(one, two)
    votes = (VOTES[one][0], VOTES[two][1])
    assert found.votes == votes
    assert found.winner == (votes[0] if votes[0] == votes[1] else "tie")
    assert found.is_consistent == (votes[0] == votes[1])
    assert found.place == (one if one == two and one != "tie" else None)


class Shown:
    """A judge that notes what it is shown, and answers in turn."""

    def __init__(self, *verdicts: str) -> None:
        self.verdicts, self.shown = list(verdicts), []

    def judge(self, question: str, first: str, second: str) -> Verdict:
        self.shown.append((question, first, second))
        return parse_verdict(self.verdicts.pop(0))


def test_both_orders_are_asked():
    judge = Shown("[[A]]", "[[B]]")
    assert both_orders(judge, "Why?", "x", "y").winner == "a"
    assert judge.shown == [("Why?", "x", "y"), ("Why?", "y", "x")]
    assert both_orders(Shown("[[B]]", "[[A]]"), "", "x", "y").winner == "b"


def test_a_judge_that_looks_at_the_place_alone_decides_nothing():
    for letter in "AB":
        found = both_orders(Shown(*[f"[[{letter}]]"] * 2), "Why?", "x", "y")
        assert found.winner == "tie" and found.place is not None and not found.is_consistent


def test_a_verdict_that_cannot_be_read_is_a_tie_with_its_problem():
    found = both_orders(Shown("[[A]]", "Yes"), "Why?", "x", "y")
    assert found.winner == "tie" and found.place is None and not found.is_consistent
    assert found.problem.startswith(
        "NoVerdictError: the judge's answer holds no verdict: 'Yes'"
    )
    both = both_orders(Shown("No", '{"winner": "'), "Why?", "x", "y")
    assert both.votes == (None, None) and not both.is_consistent
    assert "NoVerdictError" in both.problem and "; TruncatedVerdictError" in both.problem


def test_other_errors_of_a_judge_are_not_ties():
    class Broken:
        def judge(self, question: str, first: str, second: str) -> Verdict:
            raise OSError("away")

    with pytest.raises(OSError, match="away"):
        both_orders(Broken(), "Why?", "x", "y")


def test_an_outcome_without_a_verdict_says_why():
    with pytest.raises(ValueError, match="a missing verdict has a problem"):
        Outcome(Verdict("first"), None)
    with pytest.raises(ValueError, match="two verdicts have none"):
        Outcome(Verdict("first"), Verdict("tie"), "away")


def test_many_pairs_keep_their_order():
    class Longer:
        def judge(self, question: str, first: str, second: str) -> Verdict:
            return Verdict("first" if len(first) > len(second) else "second")

    found = judge_pairs(Longer(), ["q", "r"], ["aaa", "a"], ["b", "bb"])
    assert [one.winner for one in found] == ["a", "b"]
    assert judge_pairs(Longer(), [], [], []) == []


def test_a_judge_may_ask_ahead():
    class Ahead(Shown):
        def ask_ahead(self, rows: list[tuple[str, str, str]]) -> None:
            assert not self.shown
            self.ahead = rows

    judge = Ahead(*["[[C]]"] * 4)
    judge_pairs(judge, ["q", "r"], ["a", "aa"], ["b", "bb"])
    assert sorted(judge.ahead) == sorted(judge.shown) and len(judge.shown) == 4


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ((["q"], ["a"], []), "there are 1 questions, 1 answers_a and 0 answers_b"),
        (("q", ["a"], ["b"]), "questions is 'q': give a sequence of texts"),
        ((["q"], [None], ["b"]), r"answers_a is \[None\]"),
    ],
)
def test_rows_that_are_no_pairs(rows, problem: str):
    with pytest.raises(ValueError, match=problem):
        judge_pairs(Shown(), *rows)


def test_json_round_trip_of_verdicts():
    for winner in ("first", "second", "tie"):
        text = json.dumps({"winner": winner, "reason": 'He said "[A]".\n{'})
        assert parse_verdict(text) == Verdict(winner, 'He said "[A]".\n{', text)
