"""What Stage 1 measures: answers, format, accuracy, and what the model has forgotten.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posttrain.core.arguments import names, whole_number
from posttrain.core.assets import load_tokenizer
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.model.gpt import GPT, check_unchanged
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.sft.adapters.lora import full_weight
from posttrain.sft.adapters.merge import merged_state
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.masking import IGNORE_INDEX, encode_for_training
from posttrain.sft.chat.template import EncodedChat, Message, encode_chat, special_tokens
from posttrain.sft.data.answer_format import LABELS, find_answer, parse_answer
from posttrain.sft.data.dataset import Row, verify
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LINE_BREAK = "Ċ"  # how byte-level vocabularies write it
MAX_NEW_TOKENS = 48  # the longest answer of the data set has 41


@functools.lru_cache(maxsize=4)
def tokenizer_of(model: str) -> PreTrainedTokenizerBase:
    """Load a tokenizer once per process.

    Args:
        model: A name that ``posttrain.core.assets`` knows.

    Returns:
        The tokenizer.

    Chapter: sft/fine_tuning.
    """
    return load_tokenizer(model)


def encode_rows(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    chat_format: str = "smollm2",
) -> list[EncodedChat]:
    """Encode conversations for training.

    Args:
        rows: Rows with ``messages``; an ``id`` names them in errors.
        tokenizer: The model's tokenizer.
        max_length: Longest conversation allowed, in tokens.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.

    Returns:
        One encoded conversation per row.

    Raises:
        ValueError: If a conversation is longer, since cutting it would drop the stop token;
            if it is none, or does not end with an answer; or if the format is unknown or not
            the tokenizer's.

    Chapter: sft/fine_tuning.
    """
    special_tokens(tokenizer, chat_format)  # else the first row would be blamed
    encoded = []
    for index, row in enumerate(rows):
        messages = row.get("messages") if isinstance(row, Mapping) else None
        if messages is None:
            raise ValueError(f"{row_name(row, index)} has no 'messages': give a conversation")
        try:
            example = encode_for_training(messages, tokenizer, chat_format)
        except ValueError as error:
            raise ValueError(f"{row_name(row, index)}: {error}") from error
        if len(example.input_ids) > max_length:
            raise ValueError(
                f"{row_name(row, index)} has {len(example.input_ids)} tokens and max_length is "
                f"{max_length}: raise max_length, or drop the row before"
            )
        encoded.append(example)
    return encoded


def row_name(row: object, index: int) -> str:
    """Name a row in a message: by its ``id`` where it has one, else by its place.

    Args:
        row: Any row.
        index: Its place, from 0.

    Returns:
        Such as ``the row 'sum-3'``.

    Chapter: sft/your_model.
    """
    known = row.get("id") if isinstance(row, Mapping) else None
    return f"row {index}, counted from 0," if known is None else f"the row {known!r}"


def plain_model(model: GPT) -> GPT:
    """Copy a model with its adapters folded in, as one without.

    Args:
        model: A model with adapters, or without.

    Returns:
        A model of plain layers; what carries no adapter shares its memory.

    Chapter: sft/fine_tuning.
    """
    with torch.device("meta"):
        plain = GPT(model.config)
    has_adapters = any(".lora_A" in name for name, _ in model.named_parameters())
    check_unchanged(model)
    plain.load_state_dict(merged_state(model) if has_adapters else _dense(model), assign=True)
    head, embedding = plain.lm_head.weight, plain.embed_tokens.weight
    if model.config.tie_word_embeddings and torch.equal(head, embedding):
        plain.lm_head.weight = embedding  # a head that has gone its own way stays
    return plain.requires_grad_(False).eval()


def _dense(model: GPT) -> dict[str, Tensor]:
    """List the weights of a model without adapters, those in 4 bits dequantized."""
    state = model.state_dict()
    for name, layer in model.named_modules():
        if hasattr(layer, "dequantize"):
            state = {k: v for k, v in state.items() if not k.startswith(f"{name}.")}
            state[f"{name}.weight"] = full_weight(layer)
            if (bias := getattr(layer, "bias", None)) is not None:
                state[f"{name}.bias"] = bias.detach()
    return state


def write_answers(
    model: GPT | PackedGPT,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    *,
    shared: int = 0,
    stop: Sequence[str] | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    batch_size: int = 160,
    chat_format: str = "smollm2",
) -> list[str]:
    """Let a model answer, greedily, and in evaluation mode for that time.

    Args:
        model: The model; adapters are folded into a copy first.
        tokenizer: Its tokenizer.
        conversations: Conversations that end with a user's message.
        shared: How many messages at the start are the same in all of them, such as worked
            examples: these are read once.
        stop: Tokens that end an answer; the format's stop token where they are left out.
        max_new_tokens: Longest answer, in tokens.
        batch_size: Conversations at once.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.

    Returns:
        The answers, without the stop token.

    Raises:
        ValueError: If the conversations differ in their shared part, the format is unknown or
            not the tokenizer's, or a stop token is none of the tokenizer's.

    Chapter: sft/fine_tuning.
    """
    special_tokens(tokenizer, chat_format)
    stops = _stop_ids(
        tokenizer, (format_named(chat_format).stop_token,) if stop is None else stop
    )
    batch_size = whole_number(batch_size, "batch_size", 1)
    shared = whole_number(shared, "shared")
    params = SamplingParams(
        temperature=0.0, max_new_tokens=max_new_tokens, stop_token_ids=stops
    )
    packed = model if isinstance(model, PackedGPT) else PackedGPT(plain_model(model))
    prompts = [
        encode_chat(conversation, tokenizer, chat_format, add_generation_prompt=True).input_ids
        for conversation in conversations
    ]
    prefix: list[int] = []
    if shared and conversations:
        prefix = encode_chat(conversations[0][:shared], tokenizer, chat_format).input_ids
        if any(prompt[: len(prefix)] != prefix for prompt in prompts):
            raise ValueError(f"the first {shared} messages differ: pass shared=0")
        prompts = [prompt[len(prefix) :] for prompt in prompts]
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))  # little padding
    texts = [""] * len(prompts)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        drawn = generate(
            packed, [prompts[row] for row in rows], params, prefix=prefix, pad_token_id=stops[0]
        )
        for row, tokens in zip(rows, drawn.to_lists(), strict=True):
            texts[row] = str(
                tokenizer.decode([token for token in tokens if token not in stops])
            )
    return texts


def _stop_ids(tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]) -> tuple[int, ...]:
    vocabulary, wanted = tokenizer.get_vocab(), names(stop, "stop", "tokens")
    unknown = [token for token in wanted if token not in vocabulary]
    if unknown or not wanted:
        raise ValueError(
            f"stop is {wanted!r}: give at least one token, and only such as the tokenizer has"
        )
    return tuple(vocabulary[token] for token in wanted)


def right_answers(rows: Sequence[Row], texts: Sequence[str], *, strict: bool) -> list[bool]:
    """Let each task's verifier judge the answers.

    Args:
        rows: The questions.
        texts: What the model wrote.
        strict: Whether an answer outside the format counts as wrong. Otherwise the answer is
            looked for leniently, so that a model is judged by what it knows.

    Returns:
        Whether each answer is right.

    Raises:
        ValueError: If there is not one text for each row.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    found = []
    for row, text in zip(rows, names(texts, "texts"), strict=True):
        parsed = parse_answer(text)
        answer = (parsed.answer if parsed else None) if strict else find_answer(text)
        found.append(answer is not None and verify(row, answer))
    return found


def right_in_first_line(
    model: GPT,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    chat_format: str = "smollm2",
    *,
    asked: Sequence[Sequence[Message]] | None = None,
) -> list[bool]:
    """Say of each question whether a model answers it rightly in its first line.

    The answer stands there, so the model is stopped at the end of that line: writing all three
    would take three times as long.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        rows: Questions with their answers.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.
        asked: A conversation for each row that ends with its question; the row's own messages
            where they are left out.

    Returns:
        Whether each answer is right.

    Raises:
        ValueError: If there is no question, or not one conversation for each.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    if not rows:
        raise ValueError("there is nothing to measure: give at least one question")
    own = asked is None
    lines = write_answers(
        model,
        tokenizer,
        [row["messages"][:-1] for row in rows] if asked is None else asked,
        shared=int(own),  # the system message
        stop=(format_named(chat_format).stop_token, LINE_BREAK),
        max_new_tokens=24,  # the longest first line of the data set has 18
        chat_format=chat_format,
    )
    label = LABELS[0]
    firsts = [line.partition("\n")[0] for line in lines]  # a line break may end a longer token
    return [
        line.startswith(label) and verify(row, line.removeprefix(label))
        for row, line in zip(rows, firsts, strict=True)
    ]


def accuracy_of(
    model: GPT,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Row],
    chat_format: str = "smollm2",
) -> float:
    """Measure which share of the questions a model answers rightly in its first line.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        rows: Questions with their answers.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.

    Returns:
        The share; see :func:`right_in_first_line`.

    Raises:
        ValueError: If there is no question.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    right = right_in_first_line(model, tokenizer, rows, chat_format)
    return sum(right) / len(right)


@torch.no_grad()
@in_evaluation_mode
def conversation_losses(
    model: GPT,
    examples: Sequence[EncodedChat],
    streams: Sequence[Tensor] | None = None,
    first_block: int = 0,
    batch_size: int = 16,
) -> tuple[Tensor, Tensor]:
    """Measure the loss of each conversation's trained tokens.

    The model is put into evaluation mode for this time.

    Args:
        model: The model.
        examples: Encoded conversations.
        streams: See :func:`posttrain.sft.training.packing.pack`.
        first_block: Likewise.
        batch_size: Conversations at once.

    Returns:
        Summed loss of each conversation, in nats, and its number of trained tokens; both of
        shape (conversations,), float32.

    Raises:
        ValueError: If there is no conversation.

    Chapter: sft/fine_tuning.
    """
    if not examples:
        raise ValueError("there is nothing to measure: give at least one conversation")
    batch_size = whole_number(batch_size, "batch_size", 1)
    sums, counts = [], []
    for start in range(0, len(examples), batch_size):
        rows = slice(start, start + batch_size)
        batch = pack(examples[rows], None if streams is None else streams[rows], first_block)
        batch = batch.to(model.device)
        trained = batch.labels != IGNORE_INDEX
        hidden = packed_hidden(model, batch)[trained]
        logps = model.lm_head(hidden).log_softmax(dim=-1, dtype=torch.float32)
        losses = torch.zeros(len(trained), device=model.device)
        losses[trained] = -logps.gather(-1, batch.labels[trained, None])[:, 0]
        sums += [part.sum() for part in losses.split(batch.lengths)]
        counts += [part.sum() for part in trained.float().split(batch.lengths)]
    return torch.stack(sums).cpu(), torch.stack(counts).cpu()


def mean_loss(
    model: GPT,
    examples: Sequence[EncodedChat],
    streams: Sequence[Tensor] | None = None,
    first_block: int = 0,
) -> float:
    """Measure the mean loss per trained token.

    Args:
        model: The model.
        examples: Encoded conversations.
        streams: See :func:`posttrain.sft.training.packing.pack`.
        first_block: Likewise.

    Returns:
        Nats per token.

    Chapter: sft/fine_tuning.
    """
    sums, counts = conversation_losses(model, examples, streams, first_block)
    return float(sums.sum() / counts.sum())
