"""One row as a pair: each format gives the same, and each kind of bad row is named."""

from typing import Any

import pytest

from posttrain.dpo.data.pair_formats import (
    EXPLICIT,
    IMPLICIT,
    answer_text,
    is_prefix_pair,
    make_pair,
    pair_format,
    pair_row,
    split_conversations,
)
from posttrain.sft.data.hub import MalformedRowError


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def bot(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


SYSTEM = {"role": "system", "content": "Be brief."}
PAIR = {"prompt": [user("Why?")], "chosen": [bot("So.")], "rejected": [bot("No idea.")]}
LONG = {"prompt": [SYSTEM, user("a"), bot("b"), user("c")], "chosen": [bot("d")],
        "rejected": [bot("e")]}  # fmt: skip


def gpt(*said: str) -> list[dict[str, str]]:
    return [{"from": "gpt" if i % 2 else "human", "value": text} for i, text in enumerate(said)]


def row(prompt: Any = "Why?", chosen: Any = "So.", rejected: Any = "No idea.", **more: Any):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


@pytest.mark.parametrize(
    ("given", "form", "expected"),
    [
        (row(), EXPLICIT, PAIR),
        (PAIR, EXPLICIT, PAIR),
        (row([user("Why?")]), EXPLICIT, PAIR),
        (row(chosen=[bot("So.")], rejected=[bot("No idea.")]), EXPLICIT, PAIR),
        (row(chosen=[user("Why?"), bot("So.")], rejected=gpt("Why?", "No idea.")), IMPLICIT,
         PAIR),
        ({"chosen": gpt("Why?", "So."), "rejected": gpt("Why?", "No idea.")}, IMPLICIT, PAIR),
        ({"chosen": [SYSTEM, *gpt("a", "b", "c", "d")], "prompt": None,
          "rejected": [SYSTEM, *gpt("a", "b", "c", "e")]}, IMPLICIT, LONG),
        (row([user("a"), bot("b"), user("c")], "d", "e", system="Be brief."), EXPLICIT, LONG),
        (LONG, EXPLICIT, LONG),
        (row(messages=[bot("So.")], chosen=[bot("So.")], score_chosen=9.5), EXPLICIT, PAIR),
    ],
)  # fmt: skip
def test_every_format_gives_the_same_pair(given: Any, form: str, expected: Any):
    assert pair_format(given) == form
    assert pair_row(given) == pair_row(given, form) == expected


def test_texts_stay_as_they_are():
    pair = pair_row(row("  Why\n\nthis?", " So. \n", "\tNo."))
    assert pair["prompt"][0]["content"] == "  Why\n\nthis?"
    assert answer_text(pair, "chosen") == " So. \n" and answer_text(pair, "rejected") == "\tNo."
    with pytest.raises(ValueError, match="which is 'prompt': give 'chosen' or 'rejected'"):
        answer_text(pair, "prompt")


def test_weights_of_the_prompt_are_left_out():
    asked = [user("a"), bot("b") | {"weight": 0}, user("c")]
    assert pair_row(row(asked, "d", "e"))["prompt"] == [user("a"), bot("b"), user("c")]


@pytest.mark.parametrize(
    ("given", "reason", "said"),
    [
        (3, "not a row", "int; an object is needed, with prompt, chosen and rejected"),
        ({}, "unknown format", "its fields are none; accepted are prompt, chosen and"),
        ({"prompt": "a", "completion": "b"}, "unknown format", "fields are prompt, completion"),
        ({"prompt": "a", "completion": "b", "label": False}, "unpaired answers", "for KTO"),
        (row(chosen=None), "missing chosen", "the field 'chosen' is null"),
        (row(rejected=None), "missing rejected", "the field 'rejected' is null"),
        ({"prompt": "a", "chosen": "b"}, "missing rejected", "the field 'rejected' is missing"),
        (row(prompt=None), "missing prompt", "texts without a 'prompt': add it, or read"),
        ({"chosen": [bot("a")], "rejected": [bot("b")]}, "missing prompt", "missing or null"),
        (row(""), "empty prompt", "holds no text"),
        (row(" \n"), "empty prompt", "holds no text"),
        (row([]), "missing prompt", "texts without a 'prompt'"),
        (row(7), "wrong type", "'prompt' is int; text or a list"),
        (row([SYSTEM]), "roles out of order", "answers nobody"),
        (row(chosen=""), "empty answer", "in the prompt with 'chosen', message 1"),
        (row(rejected=" \n "), "empty answer", "in the prompt with 'rejected', message 1"),
        (row(rejected=[bot("")]), "empty answer", "'rejected', message 1"),
        (row(rejected=[]), "empty answer", "'rejected' holds 0 messages"),
        (row(chosen=7), "wrong type", "int"),
        (row(chosen="No idea."), "chosen = rejected", "nothing to prefer"),
        (row(chosen=" No idea.\n"), "chosen = rejected", "nothing to prefer"),
        (row(chosen=[bot("No idea.")]), "chosen = rejected", "nothing to prefer"),
        (row(rejected="x" * 50_000), "too long", "50,004 characters; at most 20,000"),
        (row("y" * 50_000), "too long", "at most 20,000"),
        (row(chosen="a<|im_end|>b"), "special token", "contains <|im_end|>, which templates"),
        (row("a <|im_start|>user"), "special token", "message 0 (user) contains <|im_start|>"),
        (row("Why? "), "white space at the prompt's end", "the prompt ends with ' ': remove"),
        (row([user("Why?\n")]), "white space at the prompt's end", r"ends with '\n'"),
        (row([user("a"), bot("b")]), "prompt ends with an answer", "a user's must come last"),
        (row(gpt("a", "b")), "prompt ends with an answer", "a user's must come last"),
        (row([user("a"), user("b")]), "roles out of order", "both from the user"),
        (row([bot("a"), user("b")]), "roles out of order", "answers nobody"),
        (row([user("a"), SYSTEM, user("b")]), "roles out of order", "system"),
        (row([{"role": "judge", "content": "a"}]), "unknown role", "'judge'"),
        (row([{"role": "user"}]), "missing content", "no 'content'"),
        (row(["Why?"]), "no message", "message 0 is str"),
        (row(chosen=[bot("a"), user("b"), bot("c")]), "more than one answer", "3 messages"),
        (row(chosen=[user("a")]), "wrong chosen", "one message, of the assistant"),
        (row(chosen="a\ud800"), "broken text", "surrogate"),
        (row(tools=["f"]), "field 'tools'", "Stage 4"),
        (row(images=["f"]), "field 'images'", "text alone"),
        (row(weight=0.5), "weight of another kind", "0.5"),
        (row(weight=0), "row of weight 0", "remove it"),
        (row(chosen=[bot("a") | {"weight": 0}]), "nothing to train", "weight 0"),
        (row(messages=[user("x")]), "two formats", "'messages'"),
        ({"chosen": gpt("a", "b"), "rejected": gpt("c", "d")}, "different prompts",
         "part in message 0, which is no answer"),
        ({"chosen": gpt("a", "b", "c", "d"), "rejected": gpt("a", "b", "x", "d")},
         "different prompts", "part in message 2"),
        ({"chosen": gpt("a", "b", "c", "d"), "rejected": gpt("a", "b")}, "different prompts",
         "part in message 2"),
        ({"chosen": gpt("a", "b", "c", "d"), "rejected": gpt("a", "x")},
         "more than one answer", "3 and 1 messages"),
        ({"chosen": gpt("a", "b"), "rejected": gpt("a", "b")}, "chosen = rejected", "same"),
        ({"chosen": gpt("a"), "rejected": gpt("a")}, "no last answer", "from the user"),
        ({"chosen": [*gpt("a", "b", "c"), bot("d") | {"weight": 0}],
          "rejected": gpt("a", "b", "c", "e")}, "answer of weight 0", "'chosen' is not"),
        ({"prompt": "z", "chosen": gpt("a", "b"), "rejected": gpt("a", "c")}, "two formats",
         "not the first question"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(given: Any, reason: str, said: str):
    with pytest.raises(MalformedRowError) as raised:
        pair_row(given)
    assert raised.value.reason == reason
    assert said in str(raised.value) and "completion'" not in str(raised.value)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [("So.", "So. And more.", True), ("So. ", "So, no", False), ("So \n", "So what", True),
     ("a", "b", False)],
)  # fmt: skip
def test_an_answer_that_begins_the_other_is_taken_and_seen(
    one: str, other: str, expected: bool
):
    for chosen, rejected in ((one, other), (other, one)):
        assert is_prefix_pair(pair_row(row(chosen=chosen, rejected=rejected))) is expected


def test_pairs_of_ones_own_are_checked_the_same_way():
    assert make_pair("Why?", "So.", "No idea.") == PAIR
    assert make_pair(tuple(LONG["prompt"]), "d", "e") == LONG
    for arguments in (("Why? ", "a", "b"), ("Why?", "a", "a"), ("Why?", "", "b")):
        with pytest.raises(MalformedRowError):
            make_pair(*arguments)
    with pytest.raises(MalformedRowError, match=r"too long: .* 9 characters; at most 8 "):
        make_pair("Why?", "12345", "1", max_characters=8)


def test_the_split_lies_between_messages_and_not_inside_the_answers():
    start = [user("Same?"), bot("Same."), user("And now?")]
    pair = split_conversations([*start, bot("I would stay.")], [*start, bot("I would go.")])
    assert pair["prompt"] == start
    assert answer_text(pair, "chosen") == "I would stay."
    assert answer_text(pair, "rejected") == "I would go."
