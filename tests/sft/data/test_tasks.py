import json
import re
from itertools import islice

import pytest

from posttrain.sft.data import wording
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.data.gym import entries
from posttrain.sft.data.tasks import BY_NAME, KINDS, Kind

EQUATION = re.compile(r"(?<![\d.])(-?\d+(?:[-+x]\d+)+)=(-?\d+)")
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return [row for split in build_dataset(7).values() for row in split]


def test_there_are_eight_kinds_with_names_of_their_own():
    assert len(KINDS) == len(BY_NAME) == 8
    assert len({(kind.dataset, str(kind.arguments)) for kind in KINDS}) == 8


def calculate(formula: str) -> int:
    if "x" in formula:
        a, b = formula.split("x")
        return int(a) * int(b)
    return sum(int(term) for term in re.findall(r"[-+]?\d+", formula))


def test_every_equation_in_a_reason_is_true(rows: list[dict]):
    found = 0
    for row in rows:
        why = row["messages"][2]["content"].split("\n")[1]
        for formula, result in EQUATION.findall(why):
            assert calculate(formula) == int(result), why
            found += 1
        assert why.count("=") == len(EQUATION.findall(why)), why
    assert found > 300


@pytest.mark.parametrize("name", ["unit_conversion", "legs"])
def test_the_last_equation_of_a_reason_gives_the_answer(rows: list[dict], name: str):
    for row in rows:
        if row["kind"] == name:
            why = row["messages"][2]["content"].split("\n")[1]
            assert EQUATION.findall(why)[-1][1] == row["answer"]


def test_the_letters_of_a_reason_add_up_to_the_answer(rows: list[dict]):
    for row in rows:
        if row["kind"] == "letters":
            why = row["messages"][2]["content"].split("\n")[1]
            assert sum(map(int, re.findall(r"has (\d+)", why))) == int(row["answer"])


def test_our_table_of_legs_is_reasoning_gyms():
    from reasoning_gym.arithmetic.leg_counting import ANIMALS

    assert {animal: ANIMALS[animal] for animal in wording.LEGS} == wording.LEGS


def test_a_question_is_on_one_line_and_never_speaks_of_the_format(rows: list[dict]):
    for row in rows:
        for message in row["messages"][:2]:
            assert len(message["content"].splitlines()) == 1
            assert not re.search("answer:|why|confidence|lines", message["content"], re.I)


@each_kind
def test_each_confidence_is_stated_often_and_depends_on_size_alone(
    kind: Kind, rows: list[dict]
):
    by_size: dict[str, list[float]] = {}
    for row in rows:
        if row["kind"] == kind.name:
            size = kind.size(json.loads(row["entry"])["metadata"])
            by_size.setdefault(row["confidence"], []).append(size)
    assert min(map(len, by_size.values())) >= 5
    assert max(by_size["high"]) <= kind.limits[0] < min(by_size["medium"])
    assert max(by_size["medium"]) <= kind.limits[1] < min(by_size["low"])


@each_kind
def test_no_answer_is_right_too_often(kind: Kind, rows: list[dict]):
    answers = [row["answer"] for row in rows if row["kind"] == kind.name]
    most = max(answers.count(answer) for answer in set(answers))
    assert most <= 0.6 * len(answers), "guessing one answer would do"


READS = {
    "unit_conversion": (
        {"expression": "7 * 3", "source_index": 0},
        {"21": "21", "21 feet": "21", "21 yards": None, "7 yards": None, "21.": None, "": None},
    ),
    "sum": ({}, {"-4": "-4", "+4": "+4", "four": None, "4 + 4": None, "4 apples": None}),
    "leap_year": ({}, {"Yes": "Yes", "no.": "No", "Yes, it is": "Yes", "No1": None, "": None}),
    "sorting": (
        {"original_numbers": ["14.0", "15.0", "52.0"]},
        {
            "14, 15, 52": "['14', '15', '52']",
            "['14', '15', '52']": "['14', '15', '52']",
            "14, 14, 52": None,
            "14, 16, 52": None,
            "14 15 52": None,
            "": None,
        },
    ),
    "word_order": (
        {"words": ["into", "must"]},
        {
            "must, into": "must, into",
            "Must,into": "must, into",
            "['must', 'into']": "must, into",
        },
    ),
    "price": (
        {"candidates": [45.712, 9.5]},
        {"45.71": "45.71", "$9.50": "9.50", "45.72": None},
    ),
    "letters": ({}, {"2": "2", "2 times": "2", "1 time": "1", "two": None}),
    "legs": ({}, {"24": "24", "24 legs": "24", "24 cats": None, "24 ": None}),
}


@each_kind
def test_written_answers_are_read_in_the_verifiers_form(kind: Kind):
    facts, cases = READS[kind.name]
    for written, read in cases.items():
        assert kind.read(written, facts) == read, written


def test_instances_that_are_unclear_are_left_out():
    assert not BY_NAME["leap_year"].wanted({"year": 1999})
    assert not BY_NAME["sorting"].wanted({"original_numbers": ["3.0", "3.0"]})
    for words in (["into", "into"], ["Into", "must"], ["into", "2889"]):
        assert not BY_NAME["word_order"].wanted({"words": words})
    assert BY_NAME["word_order"].wanted({"words": ["into", "must"]})
    assert not BY_NAME["price"].wanted({"candidates": [45.71, 45.73]})
    assert BY_NAME["price"].wanted({"candidates": [45.71, 45.75]})
    assert not BY_NAME["legs"].wanted({"animals": {"sheep": 2}})
    letters = {"span": ["the", "end"], "target_letter": "e", "source_index": 1}
    assert BY_NAME["letters"].wanted(letters)
    assert not BY_NAME["letters"].wanted(letters | {"span": ["the", "The"]})
    assert not BY_NAME["letters"].wanted(letters | {"target_letter": "d"})  # once, index 1
    assert not BY_NAME["letters"].wanted(letters | {"span": ["the", "2889"]})
    units = BY_NAME["unit_conversion"].wanted
    assert units({"expression": "60 * 10"})
    assert not any(units({"expression": e}) for e in ("7 * 13", "1 * 10", "61 * 10"))


@each_kind
def test_what_is_wanted_is_plentiful(kind: Kind):
    assert len(list(islice(entries(kind, 3), 300))) == 300
