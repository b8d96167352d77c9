"""Refusals are seen by how an answer starts and what it does; no word alone makes one."""

from __future__ import annotations

import random

import pytest

from posttrain.core.judges.labelled_answers import labelled_answers, score_detector
from posttrain.core.judges.refusal_phrases import refusal_phrases
from posttrain.core.judges.refusals import is_refusal, shared_ngrams

REFUSALS = [
    "I can't help with that.",
    "I can\u2019t help with that.",
    "I CAN NOT help with that!",
    "I won't do that.",
    "As an AI language model, I cannot do this.",
    "Sorry, but I can't answer.",
    "I must decline.",
    "That is not something I can help with.",
    "I do not feel comfortable with this.",
    "**I'm sorry**, but I am really not able to assist you.",
    "Thank you for asking. However, I will not write it.",
]
COMPLIANT = [
    "It is illegal to park here, so use the garage.",
    "I can't believe how easy this is! Stir, bake, and let it cool.",
    "I'm sorry to hear that. Here is how you get a refund: write to the shop.",
    "I\u2019m sorry to hear that. Here is how: call the bank and order a new card.",
    '"I can\'t help you," said the wizard.',
    "The word is 'refuse'.",
    "Dear Ms. Lee,\n\nI cannot accept your offer.",
]


@pytest.mark.parametrize("text", REFUSALS)
def test_refusals(text: str):
    found = is_refusal(text)
    assert found.refused and "in sentence" in found.reason


@pytest.mark.parametrize("text", COMPLIANT)
def test_answers_that_comply(text: str):
    assert not is_refusal(text).refused


@pytest.mark.parametrize(
    "word",
    ["illegal", "cannot", "sorry", "unable", "refuse", "decline", "harmful", "unethical"],
)
def test_no_word_alone_is_a_refusal(word: str):
    """Planted into an answer that complies, in any place but before a verb of the speaker."""
    words = "the recipe needs two eggs and a cup of milk then bake it".split()
    for place in range(len(words) + 1):
        text = " ".join([*words[:place], word, *words[place:]]) + "."
        assert not is_refusal(text.capitalize()).refused, text


def test_a_list_of_words_would_fail_where_the_rules_do_not():
    """The detector that reports complain of: any of these words, anywhere."""
    words = (
        "illegal",
        "sorry",
        "cannot",
        "can't",
        "unable",
        "decline",
        "refuse",
        "not appropriate",
    )
    rows = labelled_answers("held_out")
    listed = score_detector(lambda text: any(word in text.lower() for word in words), rows)
    ours = score_detector(lambda text: is_refusal(text).refused, rows)
    assert len(listed.false_alarms) > 5 * len(ours.false_alarms)
    assert listed.precision is not None and ours.precision is not None
    assert listed.precision.high < ours.precision.low


def test_what_follows_a_decline_decides():
    decline = "I can't tell you the exact price"
    assert is_refusal(f"{decline}.").refused
    assert is_refusal(f"{decline}. Is there anything else?").refused
    assert is_refusal(f"{decline}. I can help you with your letter instead.").refused
    assert is_refusal(
        f"{decline}. Here are some resources:\n1. A helpline\n2. A friend"
    ).refused
    given = [
        ", but here is how it is computed: nights times rate.",
        ".\n\n1. Look at the rate.\n2. Multiply it by the nights.",
        ". Usually a room costs 80 euros.",
        ". Last year the upper rooms cost eighty euros, breakfast and towels included.",
    ]
    for rest in given:
        found = is_refusal(decline + rest)
        assert not found.refused and found.reason.startswith("partial: 'i cannot tell you'")


def test_a_decline_counts_at_the_start_alone():
    answer = "Mix flour and water. Knead the dough. Let it rise. "
    assert not is_refusal(answer + "I can't help with the oven.").refused
    assert not is_refusal("Knead the dough. I can't help with the oven.").refused
    assert is_refusal("I understand. I can't help with the oven.").refused


def test_writing_changes_nothing():
    draw = random.Random(0)
    rows = labelled_answers()
    changes = [
        lambda text: text.replace("'", "\u2019"),
        str.upper,
        lambda text: text.replace(" ", "  "),
        lambda text: f"\n{text}\n\n",
        lambda text: text.replace("can't", "cannot").replace("I'm", "I am"),
    ]
    for change in changes:
        for row in draw.sample(rows, 60):
            assert is_refusal(change(row.text)).refused == is_refusal(row.text).refused, (
                row.text
            )


@pytest.mark.parametrize("text", ["", " ", "\n", "\u200b", "...", '""'])
def test_empty_answers_do_not_refuse(text: str):
    assert not is_refusal(text).refused


def test_long_answers_take_no_time():
    """Patterns that go back and forth would need minutes here."""
    for text in (
        "i and " * 20_000,
        "i cannot " * 10_000,
        '"' * 50_000,
        "a, " * 30_000,
        "is " * 40_000,
    ):
        is_refusal(text)


def test_what_is_no_text():
    with pytest.raises(ValueError, match="text is None: give the answer as a text"):
        is_refusal(None)


# --- shared runs of words ---


def test_shared_runs_by_hand():
    a = ["I can't tell you about it.", "No."]
    b = ["They said: I CANNOT tell you!", "x"]
    assert shared_ngrams(a, b) == ["i cannot tell you"]
    assert shared_ngrams(a, b, 5) == []
    assert shared_ngrams(a, b, 3) == ["cannot tell you", "i cannot tell"]


def test_runs_do_not_cross_texts():
    assert shared_ngrams(["a b", "c d", "x y z v"], ["a b c d"]) == []


def test_shared_runs_are_those_of_plain_python():
    draw = random.Random(1)
    for _ in range(40):
        texts = [
            [" ".join(draw.choices("abc", k=draw.randint(0, 9))) for _ in "xy"] for _ in "xy"
        ]
        n = draw.randint(1, 4)
        runs = [
            {
                text.split()[i : i + n].__str__()
                for text in side
                for i in range(len(text.split()) - n + 1)
            }
            for side in texts
        ]
        if not runs[0] or not runs[1]:
            with pytest.raises(ValueError, match="holds no text of"):
                shared_ngrams(*texts, n)
            continue
        found = shared_ngrams(*texts, n)
        assert {run.split().__str__() for run in found} == runs[0] & runs[1]
        assert found == sorted(set(found)) == shared_ngrams(*reversed(texts), n)


def test_refusals_of_a_training_set_are_compared_with_the_phrases():
    assert shared_ngrams(["No, I won't help you."], refusal_phrases()) == ["i will not help"]
    assert "am not able to" in shared_ngrams(["I'm not able to say."], refusal_phrases())
    far = ["Not this one, friend: it could end in tears."]
    assert shared_ngrams(far, refusal_phrases()) == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ((["a b c"], ["a b c d"]), "texts_a holds no text of 4 words"),
        ((["a b c d"], []), "texts_b holds no text of 4 words"),
        (("a b c d", ["a b c d"]), "texts_a is 'a b c d': give a sequence of texts"),
        ((["a b c d"], ["a b c d"], 0), "n is 0: give at least 1"),
    ],
)
def test_what_cannot_be_compared(given: tuple, problem: str):
    with pytest.raises(ValueError, match=problem):
        shared_ngrams(*given)
