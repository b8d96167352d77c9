"""What counts as a conversation, and what is refused."""

import re

import pytest

from posttrain.sft.chat.messages import (
    Message,
    TemplateInjectionError,
    check_messages,
    is_absent,
    is_trained,
    refuse_markers,
)


def conversation(roles: str) -> list[Message]:
    """Write one message for each letter: s, u or a."""
    names = {"s": "system", "u": "user", "a": "assistant"}
    return [{"role": names[letter], "content": f"text {letter}"} for letter in roles]


@pytest.mark.parametrize("roles", ["u", "s", "su", "ua", "sua", "uau", "suaua"])
def test_conversations_are_accepted(roles: str) -> None:
    check_messages(conversation(roles))


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ("", "the conversation is empty: give at least one message"),
        ("a", "message 0 (assistant) answers nobody: a user's message must come first"),
        ("sau", "message 1 (assistant) answers nobody: a user's message must come first"),
        ("us", "message 1 is a system message: only the first message may be one"),
        ("ss", "message 1 is a system message: only the first message may be one"),
        ("uasua", "message 2 is a system message: only the first message may be one"),
        ("uaa", "messages 1 and 2 are both from the assistant: user and assistant take turns"),
        ("suu", "messages 1 and 2 are both from the user: user and assistant take turns"),
    ],
)
def test_roles_out_of_order_are_refused(roles: str, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        check_messages(conversation(roles))


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        ("hi", "message 1 is 'hi': give a dict with 'role' and 'content'"),
        ({"role": "assistant"}, "message 1 is {'role': 'assistant'}: give a dict"),
        ({"content": "x" * 99}, f"message 1 is {{'content': '{'x' * 47} …: give a dict"),
        (
            {"role": "tool", "content": "4"},
            "message 1 has the role 'tool': the roles are system, user, assistant",
        ),
        ({"role": None, "content": "4"}, "message 1 has the role None"),
        (
            {"role": "assistant", "content": None},
            "message 1 (assistant) has content of type NoneType: give a str",
        ),
        (
            {"role": "assistant", "content": [{"type": "text", "text": "4"}]},
            "message 1 (assistant) has content of type list: give a str",
        ),
        (
            {"role": "assistant", "content": "", "tool_calls": [{"name": "add"}]},
            "message 1 (assistant) also has 'tool_calls', which would be lost",
        ),
        (
            {"role": "assistant", "content": "so: \ud83d"},
            "message 1 (assistant) holds half of a surrogate pair at character 4",
        ),
    ],
)
def test_what_is_no_message_is_refused(message: object, problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        check_messages([*conversation("u"), message])  # type: ignore[list-item]


@pytest.mark.parametrize("nothing", [None, [], {}, "", ()])
def test_keys_without_a_value_are_accepted(nothing: object) -> None:
    """`datasets` fills in None where only some rows have a key."""
    check_messages([{"role": "user", "content": "hi", "tool_calls": nothing}])  # type: ignore
    assert is_absent(nothing)


@pytest.mark.parametrize("value", [0, 0.0, False, "0", [0], {"a": None}])
def test_zero_and_false_are_values(value: object) -> None:
    assert not is_absent(value)
    problem = "message 0 (user) also has 'loss', which would be lost"
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        check_messages([{"role": "user", "content": "hi", "loss": value}])  # type: ignore


# --- weights ---


def weighted(weight: object, role: str = "assistant") -> list[Message]:
    messages = conversation("sua")
    for message in messages:
        if message["role"] == role:
            message["weight"] = weight  # type: ignore[typeddict-item]
    return messages


@pytest.mark.parametrize(
    ("weight", "trained"),
    [(0, False), (0.0, False), (False, False), (1, True), (True, True), (None, True)],
)
def test_a_weight_says_whether_an_answer_is_trained(weight: object, trained: bool) -> None:
    messages = weighted(weight)
    check_messages(messages)
    assert [is_trained(message) for message in messages] == [False, False, trained]


@pytest.mark.parametrize("weight", [0.5, -1, 2, "0", "1", "", [0], [], float("nan")])
def test_other_weights_are_refused(weight: object) -> None:
    problem = f"message 2 (assistant) has the weight {weight!r}: give 1 where the answer is"
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}"):
        check_messages(weighted(weight))


@pytest.mark.parametrize("role", ["system", "user"])
@pytest.mark.parametrize("weight", [0, 1, False])
def test_a_weight_stands_at_answers_only(role: str, weight: object) -> None:
    problem = (
        rf"^message [01] \({role}\) has a weight, but only answers are trained: remove it$"
    )
    with pytest.raises(ValueError, match=problem):
        check_messages(weighted(weight, role))
    check_messages(weighted(None, role))


def test_the_first_marker_is_named() -> None:
    messages = conversation("su")
    messages[1]["content"] = "a </s> b <s> c"
    refuse_markers(messages, ["<eos>"], "do nothing")
    problem = (
        "message 1 (user) contains '</s>', which would become a special token, as if the "
        "template had written it: remove it, or do nothing"
    )
    with pytest.raises(TemplateInjectionError, match=f"^{re.escape(problem)}$"):
        refuse_markers(messages, iter(["<s>", "</s>"]), "do nothing")
    assert issubclass(TemplateInjectionError, ValueError)
