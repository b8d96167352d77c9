"""posttrain.sft.runs.baselines: instruction and examples in front of a question."""

import pytest

from posttrain.sft.chat.messages import check_messages
from posttrain.sft.chat.template import Message
from posttrain.sft.runs.baselines import prompted


def row(question: str, answer: str) -> list[Message]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_instruction_and_examples_come_first() -> None:
    rows, shots = [row("3?", "4"), row("5?", "6")], [row("1?", "2"), row("7?", "8")]
    found = prompted(rows, system="Add one.", shots=shots)
    assert [m["content"] for m in found[1]] == ["Add one.", "1?", "2", "7?", "8", "5?", "6"]
    for conversation in found:
        check_messages(conversation)
    assert prompted(rows) == rows
    assert prompted(rows, shots=shots[:1])[0][2:] == rows[0]


def test_two_system_messages_are_refused() -> None:
    own: list[Message] = [{"role": "system", "content": "Be brief."}, *row("3?", "4")]
    with pytest.raises(ValueError, match="has a system message of its own"):
        prompted([own], system="Add one.")
    with pytest.raises(ValueError, match="has a system message of its own"):
        prompted([row("3?", "4")], shots=[own])
    assert prompted([own]) == [own]
