"""Which tokens are trained: labels, and the rules that every training row must keep.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal
from weakref import WeakKeyDictionary

from posttrain.sft.chat.mask_picture import MaskPicture, TokenRow, mask_rows, show_mask
from posttrain.sft.chat.messages import is_trained
from posttrain.sft.chat.template import (
    ChatFormat,
    EncodedChat,
    Message,
    encode_chat,
    format_named,
    special_tokens,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "IGNORE_INDEX",
    "MaskPicture",
    "TokenRow",
    "answer_spans",
    "check_encoded",
    "drop_untrainable",
    "encode_for_training",
    "labels_of",
    "mask_rows",
    "show_mask",
    "truncate",
]

IGNORE_INDEX = -100  # the label that PyTorch's cross-entropy leaves out


def labels_of(encoded: EncodedChat) -> list[int]:
    """Return the token itself where it is trained on, and `IGNORE_INDEX` elsewhere.

    The labels stand beside ``input_ids``, as TRL's do: label ``t`` is what position ``t - 1``
    must predict. The loss shifts them by one.

    Args:
        encoded: A conversation.

    Returns:
        As many labels as there are tokens.

    Raises:
        ValueError: If there is not one mask entry for each token.

    Chapter: sft/chat_templates.
    """  # noqa: DOC502
    _check_lengths(encoded)
    pairs = zip(encoded.input_ids, encoded.assistant_mask, strict=True)
    return [token if trained else IGNORE_INDEX for token, trained in pairs]


def check_encoded(
    encoded: EncodedChat,
    tokenizer: PreTrainedTokenizerBase | None = None,
    chat_format: str | ChatFormat = "smollm2",
    *,
    train_on: Literal["all", "last"] = "all",
    weights: Sequence[int] | None = None,
) -> None:
    """Check the rules of a training row.

    For every row: one mask entry per token, each 0 or 1; the first token is not trained, since
    nothing predicts it; at least one token is. With a tokenizer, the markers in ``input_ids``
    say where the answers are, and exactly the answers must be trained, each to its stop token;
    those with the weight 0 must not. A last answer that truncation left without a stop token is
    allowed.

    Args:
        encoded: A conversation.
        tokenizer: The tokenizer that encoded it; None checks the first rules only.
        chat_format: The format it is in, for the rules about answers.
        train_on: Which answers are to be trained.
        weights: Of each answer: 0 where it is context and must not be trained, else 1. None
            stands for 1 everywhere.

    Raises:
        ValueError: If a rule is broken. It says which one, and where.

    Chapter: sft/chat_templates.
    """
    mask, tokens = encoded.assistant_mask, len(encoded.input_ids)
    _check_lengths(encoded)
    odd = next((entry for entry in mask if entry not in (0, 1)), None)
    if odd is not None:
        raise ValueError(f"the mask contains {odd!r}: give 1 where a token is trained, else 0")
    if mask[:1] == [1]:
        raise ValueError(
            "the first token is trained, but no token comes before it to predict it"
        )
    if 1 not in mask:
        raise ValueError(
            f"none of the {tokens} tokens is trained: drop such rows with drop_untrainable"
        )
    if tokenizer is not None:
        _check_answers(encoded, tokenizer, chat_format, train_on, weights)


def _check_lengths(encoded: EncodedChat) -> None:
    mask, tokens = len(encoded.assistant_mask), len(encoded.input_ids)
    if mask != tokens:
        raise ValueError(f"{mask} mask entries for {tokens} tokens: give one for each")


def _check_answers(
    encoded: EncodedChat,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat,
    train_on: Literal["all", "last"],
    weights: Sequence[int] | None,
) -> None:
    ids, mask = encoded.input_ids, encoded.assistant_mask
    spans = answer_spans(ids, tokenizer, chat_format)
    _, stop = _header_and_stop(tokenizer, chat_format)
    given = [1] * len(spans) if weights is None else list(weights)
    if len(given) < len(spans):  # truncation may have left fewer answers, and never more
        raise ValueError(f"{len(given)} weights for {len(spans)} answers: give one for each")
    context = {index for span, w in zip(spans, given, strict=False) if not w for index in span}
    wanted = {index for span in (spans if train_on == "all" else spans[-1:]) for index in span}
    wanted -= context
    for index, trained in enumerate(mask):
        if trained == (index in wanted):
            continue
        token = f"token {index} ({tokenizer.decode([ids[index]])!r})"
        if trained:
            if index in context:
                raise ValueError(f"{token} is trained, but its answer has the weight 0")
            which = "an answer" if train_on == "all" else "the last answer"
            raise ValueError(f"{token} is trained, but it is no part of {which}")
        if ids[index] == stop:
            raise ValueError(
                f"{token} ends an answer and is not trained: the model would not learn to stop"
            )
        raise ValueError(f"{token} is part of an answer and is not trained")


def answer_spans(
    input_ids: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat = "smollm2",
) -> list[range]:
    """Find the assistant's answers in token ids, by the template's markers alone.

    Args:
        input_ids: A conversation from `encode_chat`, or the start of one.
        tokenizer: The tokenizer that encoded it.
        chat_format: The format it is in.

    Returns:
        The positions of each answer, from its first token to its stop token. An answer whose
        stop token is missing reaches to the end.

    Chapter: sft/chat_templates.
    """
    header, stop = _header_and_stop(tokenizer, chat_format)
    ids = list(input_ids)
    spans: list[range] = []
    first: int | None = None  # where the answer that is open began
    for end in range(1, len(ids) + 1):
        if first is not None and (ids[end - 1] == stop or end == len(ids)):
            spans.append(range(first, end))
            first = None
        elif first is None and ids[max(end - len(header), 0) : end] == header:
            first = end
    return spans


_Markers = tuple[list[int], int]
# A tokenizer that nobody else holds leaves the table, and what was found for it does too.
_FOUND: WeakKeyDictionary[PreTrainedTokenizerBase, dict[tuple[ChatFormat, int], _Markers]]
_FOUND = WeakKeyDictionary()


def _header_and_stop(
    tokenizer: PreTrainedTokenizerBase, chat_format: str | ChatFormat
) -> _Markers:
    """Return the ids of a generation prompt, and the id that ends an answer.

    Looked up once per tokenizer and format, and again when tokens were added.
    """
    written = format_named(chat_format)
    found = _FOUND.setdefault(tokenizer, {})
    key = written, len(tokenizer)
    if key not in found:
        message: list[Message] = [{"role": "user", "content": "?"}]
        turn = encode_chat(message, tokenizer, written).input_ids
        prompt = encode_chat(message, tokenizer, written, add_generation_prompt=True).input_ids
        stop = special_tokens(tokenizer, written)[written.stop_token]
        found[key] = prompt[len(turn) :], stop
    return found[key]


def encode_for_training(
    messages: Sequence[Message],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat = "smollm2",
    *,
    markers: Literal["refuse", "as_text"] = "refuse",
    train_on: Literal["all", "last"] = "all",
) -> EncodedChat:
    """Encode a conversation that ends with an answer, and check the rules of a training row.

    Args:
        messages: A system message or none, then user and assistant in turn.
        tokenizer: Must have the format's markers as special tokens.
        chat_format: A key of `FORMATS`, or a format.
        markers: See `encode_chat`.
        train_on: See `encode_chat`.

    Returns:
        Token ids and mask.

    Raises:
        ValueError: If the last message is no answer, no answer is left to train, or
            `encode_chat` refuses the conversation.

    Chapter: sft/chat_templates.
    """
    encoded = encode_chat(messages, tokenizer, chat_format, markers=markers, train_on=train_on)
    if messages[-1]["role"] != "assistant":
        raise ValueError(
            f"the last message is from the {messages[-1]['role']} and nobody answers it: a "
            "training row must end with the assistant, so add the answer or drop the row"
        )
    weights = [int(is_trained(m)) for m in messages if m["role"] == "assistant"]
    if not any(weights if train_on == "all" else weights[-1:]):
        which = "every answer" if train_on == "all" else "the last answer"
        raise ValueError(
            f"{which} has the weight 0, so there is nothing to train: drop the row, or remove "
            "the weight"
        )
    check_encoded(encoded, tokenizer, chat_format, train_on=train_on, weights=weights)
    return encoded


def truncate(encoded: EncodedChat, max_length: int) -> EncodedChat:
    """Keep the first tokens of a conversation.

    An answer that is cut has no stop token any more: it teaches the model what to say, and not
    when to stop.

    Args:
        encoded: A conversation.
        max_length: Tokens to keep; at least 1.

    Returns:
        The conversation, at most ``max_length`` tokens long.

    Raises:
        ValueError: If nothing trained is left, or ``max_length`` is less than 1.

    Chapter: sft/chat_templates.
    """
    _check_max_length(max_length)
    mask = encoded.assistant_mask[:max_length]
    if 1 not in mask:
        raise ValueError(
            f"none of the first {max_length} of {len(encoded.input_ids)} tokens is trained: "
            "raise max_length, or drop such rows with drop_untrainable"
        )
    return EncodedChat(encoded.input_ids[:max_length], mask)


def drop_untrainable(
    examples: Iterable[EncodedChat], max_length: int | None = None
) -> tuple[list[EncodedChat], int]:
    """Truncate conversations, and drop those of which nothing trained is left.

    A batch made of such rows has no loss: 0 tokens divide 0 nats, and the weights become NaN.

    Args:
        examples: Conversations.
        max_length: Tokens to keep of each; None keeps all.

    Returns:
        The conversations that stay, in their order, and how many were dropped.

    Raises:
        ValueError: If ``max_length`` is less than 1.

    Chapter: sft/chat_templates.
    """  # noqa: DOC502
    _check_max_length(max_length)
    kept, dropped = [], 0
    for encoded in examples:
        if 1 in encoded.assistant_mask[:max_length]:
            kept.append(truncate(encoded, max_length or len(encoded.input_ids)))
        else:
            dropped += 1
    return kept, dropped


def _check_max_length(max_length: int | None) -> None:
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}: give at least 1 token")
