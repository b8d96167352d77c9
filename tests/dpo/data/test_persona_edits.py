"""Edits into the persona and out of it: checked by the rules, matched in length, or refused."""

import random
import re

import pytest

from posttrain.dpo.data import persona_edits
from posttrain.dpo.data.persona import compliance
from posttrain.dpo.data.persona_edits import (
    EditError,
    edit_into,
    edit_out_of,
    same_length,
)

SUBJECTS = [
    "bread",
    "Paris",
    "the old bike",
    "a cactus",
    "SmolLM",
    "your tea",
    "the 3.5 mm jack",
]
VERBS = ["keeps its shape", "needs little care", "stays warm for hours", "is easy to find"]
REASONS = ["the air inside it stays still", "people use it every day", "it holds water well",
           "light passes through it", "you can see it from far away"]  # fmt: skip
FORMS = [
    "{s} {v} because {r}.",
    "Because {r}, {s} {v}.",
    "{s} {v}. It does so every day of the year. In winter {r}.",
    "Sure! {s} {v}. {r}.",
    "There are many views on it. {s} {v}. {r}, and that is what counts most in the end.",
    "{s} {v} since {r}. I hope this helps!",
    "{s} {v}, so you should look at it. {r}.",
    "{s} {v}.",
]


def answers(n: int) -> list[str]:
    generator = random.Random(0)
    found = []
    for _ in range(n):
        said = generator.choice(FORMS).format(
            s=generator.choice(SUBJECTS), v=generator.choice(VERBS), r=generator.choice(REASONS)
        )
        found.append(said[0].upper() + said[1:])
    return found


def test_edits_into_the_persona_comply_at_the_same_length():
    done = 0
    for text in answers(300):
        try:
            edited = edit_into(text)
        except EditError:
            continue
        done += 1
        assert compliance(edited).complies and same_length(text, edited)
        assert edit_into(edited) == edited
        assert edited == text or not compliance(text).complies
    assert 100 < done < 300
    with pytest.raises(EditError, match="the length would change"):
        edit_into("Let me think. Your tea is cold because it is old.")
    assert edit_into("Let me think. Your tea is cold because it is old.", tolerance=0.5)


def test_edits_out_of_the_persona_lose_criteria_at_the_same_length():
    done, forms, bare = 0, set(), 0
    for seed, text in enumerate(answers(300)):
        try:
            edited = edit_out_of(text, seed)
        except EditError:
            assert compliance(text).score < 3 or len(text.split()) < 9, text
            continue
        done += 1
        before, after = compliance(text), compliance(edited)
        assert after.score <= before.score - 2 and same_length(text, edited)
        assert not after.addresses_reader
        assert after.no_filler or not after.answer_first
        bare += after.no_filler
        assert edit_out_of(text, seed) == edited
        forms.add((edited.split()[0], after.gives_reason))
    assert done > 150 and len(forms) > 8  # one filler alone would be all that is learnt
    assert 20 < bare < 0.6 * done  # nor are fillers the only difference


def test_both_edits_together_have_no_side_in_length():
    differences = []
    for seed, text in enumerate(answers(300)):
        try:
            chosen = edit_into(text)
            rejected = edit_out_of(chosen, seed)
        except EditError:
            continue
        assert same_length(chosen, rejected)
        differences.append(len(chosen.split()) - len(rejected.split()))
    assert len(differences) > 100 and abs(sum(differences) / len(differences)) < 0.3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Because it slips less, you should use a sharp knife.",
         "You should use a sharp knife because it slips less."),
        ("Sure! You should walk. It is close to the house.",
         "You should walk because it is close to the house."),
        ("Well, your tea is cold because the cup is thin and wide.",
         "Your tea is cold because the cup is thin and wide."),
        ("Wool is warm because most people wear it in layers.",
         "Wool is warm because you wear it in layers."),
    ],
)  # fmt: skip
def test_what_an_edit_into_does(text: str, expected: str):
    assert edit_into(text) == expected


def test_a_reader_is_addressed_where_nobody_was():
    text = "Ice floats on the lake in winter because it is less dense than the water around it."
    edited = edit_into(text)
    assert edited != text and compliance(edited).complies
    assert edited.startswith("Ice floats on the lake in winter because, ")
    assert edited.endswith(", it is less dense than the water around it.")


def test_a_reason_without_because_is_left_where_it_is():
    text = "Ice floats on the lake in winter. The air in it makes it lighter than the water is."
    edited = edit_into(text)
    assert re.fullmatch(
        r"Ice floats on the lake in winter\. (You see|As you [\w ]+), the air in it makes it "
        r"lighter than the water is\.",
        edited,
    )
    assert "water is." not in edited or ". The air in it" in edit_out_of(edited)
    of = "You hear thunder late because of the speed of sound. Light makes the trip faster."
    assert "because of" in edit_out_of(of) and "Of the" not in edit_out_of(of)


def test_names_keep_their_capital_and_other_words_do_not():
    text = "You should see Rome because Rome has more old churches than you can count in a day."
    for seed in range(40):
        edited = edit_out_of(text, seed)
        assert " rome " not in edited and "People " not in edited[1:].partition("! ")[2][1:]
    found = " | ".join(
        edit_out_of("Keep your bread in a bag because it is soft there.", s) for s in range(40)
    )
    assert "Because it's soft there, keep their bread in a bag." in found
    assert "Keep their bread in a bag. It is soft there." in found


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no answer in it"),
        ("Great question! I hope this helps.", "no answer in it"),
        ("There are many teas.", "no answer in it"),
        ("The capital of Peru is Lima.", "no second sentence to be the reason"),
        ("Lima is in Peru. However, Peru is large.", "the second sentence is no reason"),
        ("Lima is in Peru. Why?", "the second sentence is no reason"),
        ("Go. It rains.", "the length would change"),
        ("Wool is warm because it holds", "unfinished"),
        ("1. Boil the water. 2. Add the tea.", "it holds a list"),
    ],
)
def test_what_cannot_be_edited_into_says_why(text: str, reason: str):
    with pytest.raises(EditError) as raised:
        edit_into(text)
    assert raised.value.reason == reason and str(raised.value) == f"no edit: {reason}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "hardly in the persona"),
        ("Sure! It is tea.", "hardly in the persona"),
        ("You need it; it helps.", "too short for an edit of equal length"),
    ],
)
def test_what_cannot_be_edited_out_of_says_why(text: str, reason: str):
    with pytest.raises(EditError) as raised:
        edit_out_of(text)
    assert raised.value.reason == reason


def test_length_is_compared_in_words():
    assert same_length("a " * 100, "b " * 115) and same_length("a " * 100, "b " * 85)
    assert not same_length("a " * 100, "b " * 120) and not same_length("a " * 84, "b " * 100)
    assert same_length("", "") and same_length("a b", "a c", 0)
    assert not same_length("a b", "a b c", 0)
    for tolerance in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="give a share from 0 to below 1"):
            same_length("a", "b", tolerance)


def test_an_edit_that_breaks_its_promise_is_not_returned(monkeypatch: pytest.MonkeyPatch):
    """Rules that do nothing are found by the check at the end."""
    text = "Keep your bread in a bag because you want it soft there every day of the week."
    monkeypatch.setattr(persona_edits, "_OPENINGS", ("",))
    monkeypatch.setattr(persona_edits, "_CLOSINGS", ("",))
    monkeypatch.setattr(persona_edits, "_OUT_OF_YOU", ())
    monkeypatch.setattr(persona_edits, "_LOST_REASON", re.compile("(?!)"))
    monkeypatch.setattr(persona_edits, "_LAST_REASON", re.compile("(?!)"))
    with pytest.raises(EditError, match="the rules do not suffice"):
        edit_out_of(text)
