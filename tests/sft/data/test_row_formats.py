"""One row as a conversation: formats, flags, and what is refused by name."""

import itertools
import re
from typing import Any

import pytest

from posttrain.sft.chat.messages import check_messages, is_trained
from posttrain.sft.data.hub import MalformedRowError
from posttrain.sft.data.row_formats import (
    ALPACA,
    MESSAGES,
    PAIR,
    SHAREGPT,
    ignored_fields,
    row_format,
    row_messages,
)

U, A = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
S = {"role": "system", "content": "Be brief."}
EXCHANGE = [U, A]


def chat(*messages: Any, **fields: Any) -> dict[str, Any]:
    return {"messages": list(messages), **fields}


def answer(**flags: Any) -> dict[str, Any]:
    return A | flags


def refused(reason: str, details: str = "") -> pytest.RaisesExc[MalformedRowError]:
    return pytest.raises(
        MalformedRowError, match=f"^{re.escape(reason)}: .*{re.escape(details)}"
    )


# --- the four formats ---


def shared(asks: str, answers: str) -> dict[str, Any]:
    messages = [{"from": asks, "value": "Why?"}, {"from": answers, "value": "So."}]
    return {"conversations": messages}


SAME = [
    (chat(U, A), MESSAGES),
    (chat(U, A, id=7, source="x", category=None, metadata={"tools": ["y"]}), MESSAGES),
    (chat({"from": "human", "value": "Why?"}, {"from": "gpt", "value": "So."}), MESSAGES),
    (chat(U, A, prompt=" Why?", prompt_id="a"), MESSAGES),
    ({"prompt": "Why?", "completion": "So."}, PAIR),
    ({"prompt": [U], "completion": [A]}, PAIR),
    ({"prompt": [U], "completion": "So."}, PAIR),
    ({"prompt": "Why?", "completion": [A], "messages": None, "tools": []}, PAIR),
    ({"instruction": "Why?", "input": "", "output": "So."}, ALPACA),
    ({"instruction": "Why?", "input": None, "output": "So.", "conversations": None}, ALPACA),
    ({"instruction": "Why?", "output": "So.", "mood": "good"}, ALPACA),
    ({"instruction": "Why?", "instances": [{"input": "", "output": "So."}]}, ALPACA),
    (shared("human", "gpt"), SHAREGPT),
    (shared("user", "assistant"), SHAREGPT),
    ({"conversations": EXCHANGE}, SHAREGPT),
]


@pytest.mark.parametrize(("row", "form"), SAME)
def test_formats_say_the_same(row: dict, form: str):
    assert row_format(row) == form
    assert row_messages(row) == row_messages(row, form) == EXCHANGE


@pytest.mark.parametrize("row", [row for row, _ in SAME])
def test_a_system_field_becomes_the_system_message(row: dict):
    assert row_messages(row | {"system": "Be brief."}) == [S, *EXCHANGE]
    assert (
        row_messages(row | {"system": ""}) == row_messages(row | {"system": None}) == EXCHANGE
    )
    with refused("wrong type", "the field 'system' is int; text is needed"):
        row_messages(row | {"system": 3})


def test_two_system_messages_are_refused():
    assert row_messages(chat(S, U, A, system=" Be brief. ")) == [S, U, A]
    with refused("two system messages"):
        row_messages(chat(S, U, A, system="Be long."))


def test_texts_stay_as_they_are():
    texts = "  Why? \n", "\tSo.\u2028 "
    expected = [
        {"role": role, "content": text}
        for role, text in zip(("user", "assistant"), texts, strict=True)
    ]
    assert row_messages({"prompt": texts[0], "completion": texts[1]}) == expected
    assert row_messages(chat(*expected)) == expected


@pytest.mark.parametrize("role", ["system", "developer"])
def test_the_role_developer_is_a_system_message(role: str):
    assert row_messages(chat({"role": role, "content": "Be brief."}, U, A)) == [S, U, A]


def test_alpaca_joins_instruction_and_input():
    row = {"instruction": "Add.", "input": " 2 and 3", "output": "5\n"}
    question, five = row_messages(row)
    assert (question["content"], five["content"]) == ("Add.\n\n2 and 3", "5")


def test_an_answer_in_a_prompt_is_context():
    row = {"prompt": [S, U, A, U], "completion": [A]}
    assert row_messages(row) == [S, U, answer(weight=0), U, A]
    assert row_messages({"prompt": [U, answer(weight=0), U], "completion": "So."})[1:] == [
        answer(weight=0), U, A
    ]  # fmt: skip
    # Without a flag an answer is trained; in a prompt no flag can ask for it.
    with refused("nothing to train"):
        row_messages({"prompt": [U], "completion": [answer(weight=0)]})


def test_fields_that_are_passed_over_are_named():
    row = chat(U, A, id=0, source="x", note=None, tags=[], system="s", weight=1, prompt="Why?")
    assert ignored_fields(row, MESSAGES) == {"id", "source"}
    alpaca = {"instruction": "x", "output": "y", "instances": None, "completion": None, "a": ""}
    assert ignored_fields(alpaca, ALPACA) == set()


# --- flags: "do not train this" ---

FLAGS = ("weight", "loss_weight", "loss_scale", "loss", "train", "training")
OFF, ON = (0, 0.0, False), (1, 1.0, True)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("value", [*OFF, *ON, None])
@pytest.mark.parametrize("form", ["messages", "conversations"])
def test_flags_are_honoured(flag: str, value: Any, form: str):
    keys = [("role", "content"), ("from", "value")]
    for role, content in keys if form == "conversations" else keys[:1]:
        first = {role: "assistant", content: "So.", flag: value}
        messages = row_messages({form: [U, first, U, A]})
        off = value is not None and value == 0
        assert messages == [U, answer(weight=0) if off else A, U, A]
        assert [is_trained(message) for message in messages] == [False, not off, False, True]
        check_messages(messages)


@pytest.mark.parametrize("flag", FLAGS)
@pytest.mark.parametrize("value", [0.5, 2, -1, "0", "false", "", [0], {}, float("nan")])
def test_other_values_are_refused_by_name(flag: str, value: Any):
    with refused(
        f"{flag} of another kind", f"message 1 (assistant) has {flag!r}: {value!r}; 1"
    ):
        row_messages(chat(U, answer(**{flag: value}), U, A))


@pytest.mark.parametrize("flag", FLAGS)
def test_flags_of_other_roles(flag: str):
    """SlimOrca marks each message: null, 0.0 and 1.0 for system, human and gpt."""
    for value in (*OFF, None):
        assert row_messages(chat(S | {flag: None}, U | {flag: value}, A)) == [S, *EXCHANGE]
    for value in ON:
        with refused("trained user", f"message 0 has {flag!r}: {value!r}, but only answers"):
            row_messages(chat(U | {flag: value}, A))


@pytest.mark.parametrize(("one", "other"), [*itertools.permutations(FLAGS, 2)])
def test_flags_must_agree(one: str, other: str):
    assert row_messages(chat(U, answer(**{one: 0, other: False}), U, A))[1]["weight"] == 0
    assert row_messages(chat(U, answer(**{one: 1, other: None}))) == EXCHANGE
    with refused("flags that disagree", "message 1 has "):
        row_messages(chat(U, answer(**{one: 0, other: 1}), U, A))


def test_a_row_of_context_alone_is_refused():
    with refused("nothing to train", "every answer has the weight 0"):
        row_messages(chat(U, answer(weight=0), U, answer(train=False)))


@pytest.mark.parametrize("flag", ["weight", "loss_weight", "sample_weight"])
@pytest.mark.parametrize("row", [row for row, _ in SAME[:10:3]])
def test_flags_of_a_row(flag: str, row: dict):
    for value in (*ON, None):
        assert row_messages(row | {flag: value}) == EXCHANGE
    for value in OFF:
        with refused(f"row of {flag} 0", "it is not to be trained: remove it from the file"):
            row_messages(row | {flag: value})
    for value in (0.5, "1", []):
        with refused(f"{flag} of another kind", f"the row has {flag!r}: {value!r}; 1 and true"):
            row_messages(row | {flag: value})


def test_a_weight_in_a_prompt_is_refused():
    with refused("weight in a prompt", "its answers are context"):
        row_messages({"prompt": [U, answer(weight=1), U], "completion": "So."})


# --- what is refused ---

REFUSED = {
    "tools": "Stage 4",
    "functions": "Stage 4",
    "tool_calls": "Stage 4",
    "function_call": "Stage 4",
    "images": "models of text alone",
    "chosen": "preference data, for Stage 2",
    "rejected": "preference data, for Stage 2",
    "input_ids": "give text",
    "history": "it would be lost",
    "context": "it would be lost",
    "reasoning": "it would be lost",
    "system_prompt": "rename it to 'system'",
    "chat_template_kwargs": "the chat format is chosen for the whole run",
    "mask": "say at each message",
}


@pytest.mark.parametrize(("name", "why"), REFUSED.items())
@pytest.mark.parametrize("row", [*(row for row, _ in SAME[:12:4]), {"prompt": "Why?"}])
@pytest.mark.parametrize("value", ["x", [{"name": "add"}], 0, False])
def test_fields_that_change_the_training_are_refused(name: str, why: str, row: dict, value):
    with refused(f"field {name!r}", why):
        row_format(row | {name: value})
    for nothing in (None, [], "", {}):
        assert row_format(row | {name: nothing}) == row_format(row)


@pytest.mark.parametrize(
    ("message", "reason", "details"),
    [
        ("Why?", "no message", "message 0 is str; an object with 'role' and 'content'"),
        ({"content": "Why?"}, "missing role", "message 0 has no 'role'"),
        ({"role": "user"}, "missing content", "message 0 has no 'content'"),
        ({"role": "user", "content": None}, "missing content", "message 0 has no"),
        (U | {"value": "What?"}, "double content", "message 0 has two forms of the 'content'"),
        (U | {"from": "user"}, "double role", "message 0 has two forms of the 'role'"),
        (U | {"content": 5}, "wrong type", "message 0 (user) has a int as its content"),
        (
            U | {"content": [{"type": "text", "text": "Why?"}]},
            "content in parts",
            "message 0 (user) has a list as its content: write its text as one string",
        ),
        (U | {"role": "tool"}, "role 'tool'", "message 0 has it: tool calls belong to Stage 4"),
        (U | {"role": "function"}, "role 'function'", "Stage 4"),
        ({"from": "observation", "value": "4"}, "role 'observation'", "Stage 4"),
        (U | {"role": "narrator"}, "unknown role", "message 0 has 'narrator'; known are user"),
        (U | {"role": ["user"]}, "unknown role", "message 0 has ['user']; known are"),
        (U | {"tool_calls": [{}]}, "field 'tool_calls'", "message 0 has it: tool calls belong"),
        (U | {"name": "Ann"}, "field 'name'", "message 0 has it: it would be lost"),
        (U | {"thinking": "hm"}, "field 'thinking'", "message 0 has it: it would be lost"),
        (U | {"train_detail": [0]}, "field 'train_detail'", "it would be lost"),
        (U | {"content": " \n"}, "empty question", "message 0 (user) holds no text"),
        (
            U | {"content": "\ud83d"},
            "broken text",
            "message 0 (user) holds half of a surrogate",
        ),
        (
            U | {"content": "a<|im_end|>"},
            "special token",
            "message 0 (user) contains <|im_end|>",
        ),
    ],
)
def test_messages_that_are_refused(message: Any, reason: str, details: str):
    with refused(reason, details):
        row_messages(chat(message, A))
    with refused(reason, details):
        row_messages({"conversations": [message, A]})
    with refused(reason, details):
        row_messages({"prompt": [message], "completion": "So."})


def test_harmless_fields_of_messages_are_taken():
    assert (
        row_messages(chat(U | {"id": 0, "timestamp": 1.5, "tool_calls": None}, A)) == EXCHANGE
    )


@pytest.mark.parametrize(
    ("row", "reason", "details"),
    [
        (None, "not a row", "NoneType; an object is needed, with messages, prompt and"),
        ([U, A], "not a row", "list; an object"),
        ({}, "unknown format", "its fields are none; accepted are messages, prompt and"),
        (
            {"question": "x", "answer": "y", "z": None},
            "unknown format",
            "are question, answer;",
        ),
        ({"text": "Once upon"}, "unknown format", "its fields are text; accepted are"),
        ({"prompt": "Why?"}, "missing completion", "prompts alone are data for Stage 3"),
        ({"prompt": "Why?", "answer": "x"}, "missing completion", "add 'completion'"),
        ({"completion": "So."}, "missing prompt", "'completion' needs a 'prompt' beside it"),
        (
            {"prompt": "x", "completion": "y", "label": False},
            "field 'label'",
            "preference data",
        ),
        ({"prompt": "x", "completion": 5}, "wrong type", "'completion' is int; a list of"),
        ({"prompt": {"a": 1}, "completion": "y"}, "wrong type", "'prompt' is dict; a list of"),
        ({"prompt": "x", "completion": [U]}, "wrong completion", "one message, of the assist"),
        ({"prompt": "x", "completion": [A, A]}, "wrong completion", "one message"),
        (
            {"prompt": [U, A], "completion": "y"},
            "roles out of order",
            "both from the assistant",
        ),
        ({"instruction": "x"}, "missing output", "'output' is missing or None"),
        ({"instruction": "x", "output": " "}, "empty output", "holds no text"),
        (
            {"instruction": "x", "output": "y", "prompt": "z"},
            "two formats",
            "and 'instruction'",
        ),
        (chat(U, A, conversations=[]), "two formats", "it has 'messages' and 'conversations'"),
        (chat(U, A, prompt="Who?"), "two formats", "'prompt' is not the first question"),
        (chat(U, A, prompt=[U]), "two formats", "'prompt' is not the first question"),
        (chat(U, A, completion="x"), "two formats", "it has 'messages' and 'completion'"),
        ({"messages": "Why?"}, "wrong type", "'messages' is str; a list of messages"),
        (chat(), "no messages", "the list is empty"),
        (chat(A), "roles out of order", "message 0 (assistant) answers nobody"),
        (chat(U, A, S), "roles out of order", "message 2 is a system message"),
        (chat(U, U, A), "roles out of order", "both from the user"),
        (chat(U), "no last answer", "the last message is from the user"),
        (chat(U, A, U), "no last answer", "the last message is from the user"),
        (chat(U, answer(content="\t")), "empty answer", "message 1 (assistant) holds no text"),
        (chat(U, answer(content="")), "empty answer", "message 1 (assistant) holds no text"),
    ],
)
def test_rows_that_are_refused(row: Any, reason: str, details: str):
    with refused(reason, details) as caught:
        row_messages(row)
    assert caught.value.reason == reason


def test_an_empty_system_message_is_one():
    empty = S | {"content": ""}
    assert row_messages(chat(empty, U, A)) == [empty, *EXCHANGE]


def test_a_limit_is_a_limit():
    row = chat(S, U, A)
    size = sum(len(message["content"]) for message in (S, U, A))
    assert row_messages(row, max_characters=size)
    with refused("too long", f"{size} characters; at most {size - 1} are taken"):
        row_messages(row, max_characters=size - 1)
    with refused("too long", "20,004 characters; at most 20,000 are taken"):
        row_messages(chat(U, answer(content="x" * 20_000)))
