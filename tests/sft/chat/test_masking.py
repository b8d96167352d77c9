"""Labels, the rules of a training row, truncation."""

from __future__ import annotations

import copy
import gc
import re
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest

from posttrain.sft.chat.conversations import varied_conversations
from posttrain.sft.chat.masking import (
    IGNORE_INDEX,
    answer_spans,
    check_encoded,
    drop_untrainable,
    encode_for_training,
    labels_of,
    truncate,
)
from posttrain.sft.chat.template import FORMATS, EncodedChat, Message, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TWICE: list[Message] = [
    {"role": "user", "content": "Capital of France?"},
    {"role": "assistant", "content": "Paris."},
    {"role": "user", "content": "Of Italy?"},
    {"role": "assistant", "content": "Rome."},
]
# In ChatML the header of a user has 3 tokens and that of an assistant 4; the first question 4.
FIRST, SECOND = range(13, 16), range(29, 32)  # Paris . <|im_end|>, and Rome . <|im_end|>


@pytest.fixture
def encoded(tokenizer: PreTrainedTokenizerBase) -> EncodedChat:
    return encode_chat(TWICE, tokenizer, "chatml")


def with_mask(encoded: EncodedChat, changes: dict[int, int]) -> EncodedChat:
    mask = [changes.get(index, entry) for index, entry in enumerate(encoded.assistant_mask)]
    return EncodedChat(encoded.input_ids, mask)


def refused(problem: str) -> pytest.RaisesExc[ValueError]:
    return pytest.raises(ValueError, match=f"^{re.escape(problem)}")


def test_labels_are_the_trained_tokens(encoded: EncodedChat) -> None:
    assert IGNORE_INDEX == -100
    labels = labels_of(encoded)
    assert len(labels) == len(encoded.input_ids)
    for index, label in enumerate(labels):
        inside = index in FIRST or index in SECOND
        assert label == (encoded.input_ids[index] if inside else -100)
    with refused("2 mask entries for 3 tokens: give one for each"):
        labels_of(EncodedChat([5, 6, 7], [0, 1]))


@pytest.mark.parametrize(
    ("mask", "problem"),
    [
        ([0, 1], "2 mask entries for 3 tokens: give one for each"),
        ([0, 2, 1], "the mask contains 2: give 1 where a token is trained, else 0"),
        ([0, -100, 1], "the mask contains -100: give 1"),
        ([1, 1, 1], "the first token is trained, but no token comes before it to predict it"),
        ([0, 0, 0], "none of the 3 tokens is trained: drop such rows with drop_untrainable"),
    ],
)
def test_rules_of_every_row(mask: list[int], problem: str) -> None:
    check_encoded(EncodedChat([5, 6, 7], [0, 0, 1]))
    with refused(problem):
        check_encoded(EncodedChat([5, 6, 7], mask))
    with refused("none of the 0 tokens is trained"):
        check_encoded(EncodedChat([], []))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({3: 1}, "token 3 ('Capital') is trained, but it is no part of an answer"),
        ({12: 1}, "token 12 ('\\n') is trained, but it is no part of an answer"),
        ({16: 1}, "token 16 ('\\n') is trained, but it is no part of an answer"),
        (
            {15: 0},
            "token 15 ('<|im_end|>') ends an answer and is not trained: the model would ",
        ),
        ({30: 0}, "token 30 ('.') is part of an answer and is not trained"),
        ({13: 0, 14: 0, 15: 0}, "token 13 ('Paris') is part of an answer and is not trained"),
        ({12: 1, 15: 0, 28: 1, 31: 0}, "token 12 ('\\n') is trained"),  # off by one
    ],
)
def test_rules_about_answers(
    tokenizer: PreTrainedTokenizerBase,
    encoded: EncodedChat,
    changes: dict[int, int],
    problem: str,
) -> None:
    check_encoded(encoded, tokenizer, "chatml")
    broken = with_mask(encoded, changes)
    check_encoded(broken)  # alone, the mask does not show it
    with refused(problem):
        check_encoded(broken, tokenizer, "chatml")


def test_rules_about_the_last_answer(
    tokenizer: PreTrainedTokenizerBase, encoded: EncodedChat
) -> None:
    last = encode_chat(TWICE, tokenizer, "chatml", train_on="last")
    check_encoded(last, tokenizer, "chatml", train_on="last")
    with refused("token 13 ('Paris') is trained, but it is no part of the last answer"):
        check_encoded(encoded, tokenizer, "chatml", train_on="last")
    with refused("token 13 ('Paris') is part of an answer and is not trained"):
        check_encoded(last, tokenizer, "chatml")


@pytest.mark.parametrize("train_on", ["all", "last"])
def test_every_single_wrong_entry_is_found(
    tokenizer: PreTrainedTokenizerBase, train_on: Literal["all", "last"]
) -> None:
    messages: list[Message] = [{"role": "system", "content": ""}, *TWICE]
    row = encode_chat(messages, tokenizer, train_on=train_on)
    for index, entry in enumerate(row.assistant_mask):
        with pytest.raises(ValueError, match="trained"):
            check_encoded(with_mask(row, {index: 1 - entry}), tokenizer, train_on=train_on)


def test_answers_are_found_by_their_markers(
    tokenizer: PreTrainedTokenizerBase, encoded: EncodedChat
) -> None:
    ids = encoded.input_ids
    assert answer_spans(ids, tokenizer, "chatml") == [FIRST, SECOND]
    assert answer_spans(ids[:30], tokenizer, "chatml") == [FIRST, range(29, 30)]
    assert answer_spans(ids[:29], tokenizer, "chatml") == [FIRST]
    assert answer_spans([], tokenizer, "chatml") == []
    # what only reads like an answer is none
    text = "x\n<|im_start|>assistant\nParis.<|im_end|>"
    fake = encode_chat([{"role": "user", "content": text}], tokenizer, markers="as_text")
    assert answer_spans(fake.input_ids, tokenizer) == []


def test_markers_are_looked_up_once_and_again_when_tokens_were_added(
    tokenizer: PreTrainedTokenizerBase, encoded: EncodedChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, calls = copy.deepcopy(tokenizer), []

    def counted(*args: object, **options: object) -> EncodedChat:
        calls.append(args)
        return encode_chat(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("posttrain.sft.chat.masking.encode_chat", counted)
    for _ in range(3):
        check_encoded(encoded, own, "chatml")
    once = len(calls)
    assert once > 0
    check_encoded(encode_chat(TWICE, own), own, "smollm2")
    assert len(calls) == 2 * once  # another format
    own.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    check_encoded(encoded, own, "chatml")
    assert len(calls) == 3 * once
    calls.clear()  # it holds the tokenizer too
    gone = weakref.ref(own)
    del own
    gc.collect()
    assert gone() is None


def test_varied_conversations_keep_the_rules_wherever_they_are_cut(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    llama = copy.deepcopy(tokenizer)
    markers = list(FORMATS["llama-3"].markers)
    llama.add_special_tokens({"additional_special_tokens": markers})
    for messages in varied_conversations(12, seed=1):
        for name, known in (("smollm2", tokenizer), ("llama-3", llama)):
            row = encode_for_training(messages, known, name)
            spans = answer_spans(row.input_ids, known, name)
            assert len(spans) == sum(message["role"] == "assistant" for message in messages)
            for span in (spans[0], spans[-1]):
                for length in (span[0], span[0] + 1, span[-1], span[-1] + 1):
                    if any(row.assistant_mask[:length]):
                        check_encoded(truncate(row, length), known, name)
                    else:
                        assert drop_untrainable([row], length) == ([], 1)


def test_rows_for_training_end_with_an_answer(tokenizer: PreTrainedTokenizerBase) -> None:
    assert encode_for_training(TWICE, tokenizer) == encode_chat(TWICE, tokenizer)
    options: tuple[Literal["as_text"], Literal["last"]] = ("as_text", "last")
    messages: list[Message] = [*TWICE[:3], {"role": "assistant", "content": "a <|im_end|>"}]
    assert encode_for_training(
        messages, tokenizer, markers=options[0], train_on=options[1]
    ) == encode_chat(messages, tokenizer, markers=options[0], train_on=options[1])
    with refused("the last message is from the user and nobody answers it: a training row"):
        encode_for_training(TWICE[:3], tokenizer)
    with refused("the last message is from the system and nobody answers it"):
        encode_for_training([{"role": "system", "content": "x"}], tokenizer)
    with refused("the conversation is empty"):
        encode_for_training([], tokenizer)


def test_a_mask_that_breaks_the_rules_does_not_leave_encode_for_training(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode_without_stop(*args: object, **options: object) -> EncodedChat:
        row = encode_chat(*args, **options)  # type: ignore[arg-type]
        stop = tokenizer.eos_token_id
        pairs = zip(row.input_ids, row.assistant_mask, strict=True)
        return replace(row, assistant_mask=[m if t != stop else 0 for t, m in pairs])

    monkeypatch.setattr("posttrain.sft.chat.masking.encode_chat", encode_without_stop)
    with pytest.raises(ValueError, match="ends an answer and is not trained"):
        encode_for_training(TWICE, tokenizer)


def test_truncation_keeps_the_start_or_refuses(encoded: EncodedChat) -> None:
    ids, mask = encoded.input_ids, encoded.assistant_mask
    assert truncate(encoded, 14) == EncodedChat(ids[:14], mask[:14])
    assert truncate(encoded, len(ids)) == truncate(encoded, 10_000) == encoded
    with refused(
        "none of the first 13 of 33 tokens is trained: raise max_length, or drop such"
    ):
        truncate(encoded, 13)
    for length in (0, -1):
        with refused(f"max_length is {length}: give at least 1 token"):
            truncate(encoded, length)


def test_rows_without_anything_trained_are_dropped_and_counted(encoded: EncodedChat) -> None:
    untrained = EncodedChat([5, 6, 7], [0, 0, 0])
    short = EncodedChat([5, 6], [0, 1])
    rows = [untrained, encoded, short, untrained]
    assert drop_untrainable(iter(rows)) == ([encoded, short], 2)
    assert drop_untrainable(rows, 14) == ([truncate(encoded, 14), short], 2)
    assert drop_untrainable(rows, 13) == ([short], 3)
    assert drop_untrainable([]) == ([], 0)
    for length in (0, -1):
        with refused(f"max_length is {length}: give at least 1 token"):
            drop_untrainable([], length)


# --- answers that are context ---


def context(*weights: int) -> list[Message]:
    """The conversation with a weight at each answer."""
    given = iter(weights)
    return [
        {**message, "weight": next(given)} if message["role"] == "assistant" else message
        for message in TWICE
    ]


def trained(encoded: EncodedChat) -> list[int]:
    return [index for index, entry in enumerate(encoded.assistant_mask) if entry]


def test_an_answer_of_weight_0_is_left_out_of_the_loss(
    tokenizer: PreTrainedTokenizerBase, encoded: EncodedChat
) -> None:
    row = encode_for_training(context(0, 1), tokenizer, "chatml")
    assert row.input_ids == encoded.input_ids and trained(row) == list(SECOND)
    assert [label for label in labels_of(row) if label != IGNORE_INDEX] == [
        encoded.input_ids[index] for index in SECOND
    ]
    assert trained(encode_for_training(context(1, 0), tokenizer, "chatml")) == list(FIRST)
    assert encode_for_training(context(1, 1), tokenizer, "chatml") == encoded
    last = encode_for_training(context(0, 1), tokenizer, "chatml", train_on="last")
    assert last == row


def test_a_row_of_context_alone_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with refused("every answer has the weight 0, so there is nothing to train: drop the row"):
        encode_for_training(context(0, 0), tokenizer)
    with refused("the last answer has the weight 0, so there is nothing to train"):
        encode_for_training(context(1, 0), tokenizer, train_on="last")


def test_rules_about_context(tokenizer: PreTrainedTokenizerBase, encoded: EncodedChat) -> None:
    row = encode_for_training(context(0, 1), tokenizer, "chatml")
    check_encoded(row, tokenizer, "chatml", weights=[0, 1])
    check_encoded(row, tokenizer, "chatml", weights=[0, 1], train_on="last")
    check_encoded(truncate(row, 30), tokenizer, "chatml", weights=[0, 1])
    with refused("token 13 ('Paris') is trained, but its answer has the weight 0"):
        check_encoded(encoded, tokenizer, "chatml", weights=[0, 1])
    with refused("token 13 ('Paris') is part of an answer and is not trained"):
        check_encoded(row, tokenizer, "chatml")
    with refused("token 15 ('<|im_end|>') is trained, but its answer has the weight 0"):
        check_encoded(with_mask(row, {15: 1}), tokenizer, "chatml", weights=[0, 1])
    with refused("1 weights for 2 answers: give one for each"):
        check_encoded(row, tokenizer, "chatml", weights=[0])
