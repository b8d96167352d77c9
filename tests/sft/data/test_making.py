"""Rows from templates, kept by a verifier, and free of the test's questions."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain.sft.data import making, teacher
from posttrain.sft.data.hub import ChatRow
from posttrain.sft.data.making import (
    decontaminate,
    from_templates,
    keep_verified,
    write_rows,
)
from posttrain.sft.data.own_rows import load_rows

TEMPLATES = [("What is {a} + {b}?", "{sum}"), ("Add {b} to {a}.", '{"sum": {sum}}')]
VALUES: dict[str, Any] = {
    "a": range(20),
    "b": [1, 2, 3],
    "sum": lambda v: v["a"] + v["b"],
}


def texts(row: ChatRow) -> tuple[str, ...]:
    return tuple(message["content"] for message in row["messages"])


def asks(*questions: str, answer: str = "So.") -> list[ChatRow]:
    return [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": answer},
            ]
        }
        for question in questions
    ]


# --- templates ---


def test_templates_are_filled_with_values_and_what_follows_from_them():
    rows = from_templates(TEMPLATES, VALUES, seed=0, n=100)
    assert len({texts(row)[0] for row in rows}) == 100
    for row in rows:
        question, answer = texts(row)
        numbers = list(map(int, re.findall(r"\d+", question)))
        total = str(sum(numbers))
        assert answer == (total if question.startswith("What") else f'{{"sum": {total}}}')
    assert rows == from_templates(TEMPLATES, VALUES, 0, 100)
    assert rows[:30] == from_templates(TEMPLATES, VALUES, 0, 30)
    assert rows != from_templates(TEMPLATES, VALUES, 1, 100)


def test_every_different_question_can_be_had():
    rows = from_templates(TEMPLATES, VALUES, seed=3, n=120)
    assert len({texts(row)[0] for row in rows}) == 2 * 20 * 3
    with pytest.raises(
        ValueError, match="give about 120 different questions, and not 121: add"
    ):
        from_templates(TEMPLATES, VALUES, seed=3, n=121)


def test_a_system_message_is_added_where_one_is_given():
    [row] = from_templates([("{x}?", "{x}.")], {"x": ["Why"]}, 0, 1, system="Be brief. {x}")
    assert texts(row) == ("Be brief. {x}", "Why?", "Why.")


def test_other_braces_stay():
    [row] = from_templates([("{} {x} { x } {{x}}", "{}")], {"x": [1]}, 0, 1)
    assert texts(row) == ("{} 1 { x } {1}", "{}")


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([], VALUES, 0, 1), "there are 0 templates for 1 rows: give 1 or more"),
        ((TEMPLATES, VALUES, 0, 0), "there are 2 templates for 0 rows"),
        (([("{c}?", "")], VALUES, 0, 1), r"asks for 'c', and the values are a, b, sum: add it"),
        (([("Why?", "{c}")], {}, 0, 1), r"the template '\{c\}' asks for 'c', .* are none"),
        ((TEMPLATES, VALUES | {"b": []}, 0, 1), "'b' has no values: give at least one"),
    ],
)
def test_templates_that_cannot_be_filled(arguments: Any, problem: str):
    with pytest.raises(ValueError, match=problem):
        from_templates(*arguments)


# --- a verifier ---


def test_what_a_verifier_refuses_is_counted():
    rows = asks("a", "bb", "c", "dd", "e")
    kept = keep_verified(rows, lambda row: len(texts(row)[0]) == 1)
    assert kept.rows == [rows[0], rows[2], rows[4]] and kept.dropped == {"not verified": 2}
    reasons = {"bb": "too long", "dd": "too long", "e": "a vowel"}
    kept = keep_verified(rows, lambda row: reasons.get(texts(row)[0], True))
    assert kept.rows == [rows[0], rows[2]]
    assert kept.dropped == Counter({"too long": 2, "a vowel": 1})
    assert kept.first_dropped == {"too long": "row 1: too long", "a vowel": "row 4: a vowel"}
    assert keep_verified([], bool).rows == []


@pytest.mark.parametrize("verdict", [None, 1, 0, "", [], float("nan")])
def test_a_verifier_that_says_neither_is_refused(verdict: Any):
    with pytest.raises(
        ValueError, match=r"^the verifier returned .* for row 0: return True to"
    ):
        keep_verified(asks("a"), lambda row: verdict)


# --- the test's questions ---


def test_what_a_held_out_set_asks_goes():
    rows = asks("How far is it?", "Why?", "how FAR, is it", "Who?", "It is how far!")
    held = asks("Where?", "How far is it", answer="Far.")
    clean = decontaminate(rows, held)
    assert clean.rows == [rows[1], rows[3]] and clean.dropped == {"held out": 3}
    assert clean.first_dropped == {"held out": "row 0 asks what row 1 of the held-out set asks"}
    assert decontaminate(rows, []).rows == rows and decontaminate([], held).rows == []


def test_rows_that_repeat_a_leaking_one_go_too():
    """`near_duplicates` pairs a repetition with its first text only."""
    text = "river stone apple window garden silver morning paper engine candle forest market"
    rows = asks(f"{text} sky", f"{text.upper()} sky", "Why?")
    held = asks(f"{text} sea")
    assert decontaminate(rows, held).rows == rows
    assert decontaminate(rows, held, threshold=0.7).rows == rows[2:]
    assert decontaminate(rows, rows[1:2] + held).rows == rows[2:]


def test_signs_make_another_question():
    rows = asks("3 - 5", "3 + 5", "👍", "👎")
    assert decontaminate(rows, asks("3-5", "👎")).rows == [rows[1], rows[2]]


# --- the file ---


def test_rows_are_written_and_read_again(tmp_path: Path):
    rows = [*asks("Why?\u2028", "é\n?", answer='{"a": "☃"}')]
    rows[1]["messages"][1]["weight"] = 1
    write_rows(rows, tmp_path / "new" / "rows.jsonl")
    read = load_rows(tmp_path / "new" / "rows.jsonl")
    assert [texts(row) for row in read.rows] == [texts(row) for row in rows]
    datasets = pytest.importorskip("datasets")
    file, cache = str(tmp_path / "new" / "rows.jsonl"), str(tmp_path / "cache")
    theirs = datasets.Dataset.from_json(file, cache_dir=cache)
    assert [texts(row) for row in theirs] == [texts(row) for row in rows]
    with pytest.raises(
        ValueError, match=r"^0 rows for .*: give at least one, and a \.jsonl file"
    ):
        write_rows([], tmp_path / "rows.jsonl")
    with pytest.raises(ValueError, match=r"^2 rows for .*rows\.json: give at least one"):
        write_rows(rows, tmp_path / "rows.json")
    assert not list(tmp_path.glob("rows*"))


def test_the_teacher_can_be_had_from_here():
    assert making.ask_teacher is teacher.ask_teacher
