"""posttrain.dpo.exercises.pairs: right answers, and every named wrong one."""

import re
from typing import Any

import pytest

from posttrain.dpo.data.hh_rlhf import hh_pair
from posttrain.dpo.exercises.pairs import SPLIT, grade_split

Row = dict[str, str]


def turns(text: str) -> list[dict[str, str]]:
    parts = re.split(r"\n\n(Human|Assistant): ", text)[1:]
    names = {"Human": "user", "Assistant": "assistant"}
    return [
        {"role": names[a], "content": b} for a, b in zip(parts[::2], parts[1::2], strict=True)
    ]


def right(row: Row) -> list[Any]:
    chosen, rejected = turns(row["chosen"]), turns(row["rejected"])
    assert chosen[:-1] == rejected[:-1]
    return [chosen[:-1], chosen[-1]["content"].rstrip(), rejected[-1]["content"].rstrip()]


def by_package(row: Row) -> tuple[Any, ...]:
    pair = hh_pair(row)
    return pair["prompt"], pair["chosen"][0]["content"], pair["rejected"][0]["content"]


def at_first(row: Row) -> list[Any]:
    answers = [
        row[name].split("\n\nAssistant: ", 1)[1].rstrip() for name in ("chosen", "rejected")
    ]
    return [turns(row["chosen"])[:1], *answers]


def at_character(row: Row) -> list[Any]:
    n = 0
    while row["chosen"][n] == row["rejected"][n]:
        n += 1
    prompt, _, _ = right(row)
    return [prompt, row["chosen"][n:].rstrip(), row["rejected"][n:].rstrip()]


def change(function: Any) -> Any:
    return lambda row: function(*right(row))


WRONG = [
    (at_first, "You split behind the first turn"),
    (at_character, "You split at the last common character"),
    (change(lambda p, c, r: [
        [{"role": "user", "content": "\n\n".join(m["content"] for m in p)}], c, r
    ]), "You lost the roles"),
    (change(lambda p, c, r: [p[-1:], c, r]), "You kept the last question alone"),
    (change(lambda p, c, r: [p, r, c]), "You swapped the two answers"),
    (change(lambda p, c, r: [
        [m | {"role": m["role"].replace("user", "human")} for m in p], c, r
    ]), "You kept the name 'human'"),
    (lambda row: [turns(row["chosen"])[:-1], *(turns(row[n])[-1]["content"]
                                               for n in ("chosen", "rejected"))],
     "You kept white space at the end of an answer"),
    (change(lambda p, c, r: [
        [m | {"content": " " + m["content"]} for m in p], " " + c, " " + r
    ]), "You kept the space behind the speaker's colon"),
]  # fmt: skip


@pytest.mark.parametrize("answer", [right, by_package])
def test_a_right_answer_passes(answer: Any):
    assert grade_split(answer).passed


@pytest.mark.parametrize(("wrong", "sentence"), WRONG)
def test_each_mistake_is_named(wrong: Any, sentence: str):
    found = grade_split(wrong)
    assert not found.passed and sentence in str(found)


def test_every_mistake_is_tried():
    assert len(WRONG) == len(SPLIT)


def raises(row: Row) -> Any:
    raise RuntimeError("my own words")


def empty(row: Row) -> Any:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("junk", "sentence"),
    [
        (raises, "Your function raised `RuntimeError: my own words`"),
        (empty, "Your function is still empty"),
        (lambda row: None, "Your function returned `None`: does it end with `return`?"),
        (lambda row: "text", "Your function returned `str` where "),
        (lambda row: [[], "a"], "Your function returned 2 entries where 3 are expected"),
        (lambda a, b: 0, "Your function must take 1 arguments: row"),
        (None, "You handed over `NoneType`: hand over the function itself"),
    ],
)
def test_junk_gets_a_kind_sentence(junk: Any, sentence: str):
    found = grade_split(junk)
    assert not found.passed and found.message.startswith(sentence)
