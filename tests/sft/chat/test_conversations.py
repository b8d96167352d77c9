"""The made-up conversations: varied, repeatable, harmless."""

import unicodedata

import pytest

from posttrain.sft.chat.conversations import varied_conversations
from posttrain.sft.chat.messages import check_messages, refuse_markers
from posttrain.sft.chat.template import FORMATS


def test_conversations_are_repeatable_and_differ() -> None:
    first = varied_conversations(50, seed=3)
    assert first == varied_conversations(50, seed=3)
    assert first[:20] == varied_conversations(20, seed=3)
    assert first != varied_conversations(50, seed=4)
    assert len({str(messages) for messages in first}) == 50
    assert varied_conversations(0) == []
    with pytest.raises(ValueError, match=r"^n is -1: give a number of conversations"):
        varied_conversations(-1)


def test_conversations_are_valid_and_harmless() -> None:
    for messages in varied_conversations(200):
        check_messages(messages)
        assert messages[-1]["role"] == "assistant"
        for chat_format in FORMATS.values():
            refuse_markers(messages, chat_format.markers, "")
        for message in messages:
            if message["role"] == "assistant":
                assert not message["content"][:1].isspace()


def test_conversations_are_varied() -> None:
    conversations = varied_conversations(200)
    systems = [
        messages[0]["content"] if messages[0]["role"] == "system" else None
        for messages in conversations
    ]
    assert 40 < systems.count(None) < 100 and systems.count("") > 5
    assert len({text for text in systems if text}) > 20
    exchanges = [
        sum(message["role"] == "assistant" for message in messages)
        for messages in conversations
    ]
    assert set(exchanges) == {1, 2, 3, 4, 5, 6}

    texts = [message["content"] for messages in conversations for message in messages]
    assert "" in texts and max(map(len, texts)) > 1_000
    assert any(text[:1].isspace() for text in texts) and any(
        text[-1:].isspace() for text in texts
    )
    letters = {letter for text in texts for letter in text}
    assert {"\u200d", "\u202b", "\u0301", "\r", "\t", "\x1b", "{", "<", "|"} <= letters
    assert {"R", "AL", "L", "EN", "NSM"} <= {
        unicodedata.bidirectional(letter) for letter in letters
    }
