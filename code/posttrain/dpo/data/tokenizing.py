"""Pairs as tokens: one prompt for both answers, whole answers, and batches of both.

Prompt and answer are not tokenized apart and glued, nor is the answer found by looking where
two token lists part. The chat template's own pieces are encoded one after another, as in Stage
1, so the boundary between prompt and answer is the template's: the prompt ends with the header
of an assistant's turn, which is what the model is given at generation.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from posttrain.dpo.data.pair_formats import ANSWERS, PairRow, answer_text
from posttrain.sft.chat.formats import ChatFormat
from posttrain.sft.chat.masking import IGNORE_INDEX
from posttrain.sft.chat.messages import Message
from posttrain.sft.chat.template import encode_chat
from posttrain.sft.data.sources import OnBadRow, check_on_bad_row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OnTooLong = Literal["drop", "cut_prompt"]


@dataclass(frozen=True)
class EncodedPair:
    """A preference pair as tokens.

    Attributes:
        prompt_ids: Tokens of the prompt, to the end of the header of an assistant's turn.
        chosen_ids: Tokens of the better answer, its stop token the last.
        rejected_ids: Tokens of the worse answer, its stop token the last.
    """

    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what has no log-probability, or no difference of two."""
        for name in ("prompt_ids", "chosen_ids", "rejected_ids"):
            if not getattr(self, name):
                raise ValueError(f"{name} is empty: a pair needs a prompt and two answers")
        if self.chosen_ids == self.rejected_ids:
            raise ValueError(
                "chosen_ids and rejected_ids are the same, so there is nothing to prefer: drop "
                "the pair"
            )

    @property
    def longest(self) -> int:
        """Tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))


@dataclass(frozen=True)
class EncodedPairs:
    """Pairs as tokens, and what became of the others.

    Attributes:
        pairs: The encoded pairs, in order.
        indices: Index of each among the pairs that were given.
        dropped: Number of pairs left out, by reason.
        first_dropped: The first error message of each reason, with the pair's index.
        cut: Indices of pairs whose prompt lost its oldest exchanges.
    """

    pairs: list[EncodedPair]
    indices: list[int]
    dropped: Counter[str]
    first_dropped: dict[str, str]
    cut: list[int]

    def __repr__(self) -> str:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
        text = f"{len(self.pairs):,} encoded pairs; dropped: {reasons or 'none'}"
        return text + (f"; {len(self.cut):,} prompts cut" if self.cut else "")


def encode_pair(
    pair: PairRow,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat = "smollm2",
    *,
    markers: Literal["refuse", "as_text"] = "refuse",
) -> EncodedPair:
    """Encode a pair, whole.

    An answer is its content and the stop token, as in Stage 1. What the template writes behind
    the stop token is left out: the model never writes it.

    Args:
        pair: The pair.
        tokenizer: Must have the format's markers as special tokens.
        chat_format: A key of `FORMATS`, or a format.
        markers: See `encode_chat`.

    Returns:
        The tokens. A beginning-of-text token, where the format has one, stands once, at the
        start of the prompt.

    Raises:
        ValueError: If both answers give the same tokens, or `encode_chat` refuses the pair.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    prompt = encode_chat(
        pair["prompt"], tokenizer, chat_format, add_generation_prompt=True, markers=markers
    ).input_ids
    answers = []
    for name in ANSWERS:
        answer: Message = {"role": "assistant", "content": answer_text(pair, name)}
        whole = encode_chat(
            [*pair["prompt"], answer], tokenizer, chat_format, markers=markers, train_on="last"
        )
        if whole.input_ids[: len(prompt)] != prompt:  # encode_chat promises that it never is
            raise ValueError(f"the prompt's tokens change when {name!r} follows: drop the pair")
        end = len(prompt) + sum(whole.assistant_mask)
        answers.append(tuple(whole.input_ids[len(prompt) : end]))
    return EncodedPair(tuple(prompt), *answers)


def encode_pairs(
    pairs: Sequence[PairRow],
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat = "smollm2",
    *,
    max_length: int | None = None,
    on_too_long: OnTooLong = "drop",
    on_bad_row: OnBadRow = "error",
) -> EncodedPairs:
    """Encode pairs, and leave out or shorten those that are too long.

    No answer is ever cut. TRL's ``truncation_mode="keep_start"`` cuts what lies beyond
    ``max_length``, which is an answer's end with its stop token: the loss then compares two
    beginnings. Its ``"keep_end"`` cuts the prompt at another place for each answer, so that the
    two no longer follow the same prompt, and an answer longer than ``max_length`` still loses
    its start. Here a pair that is too long is dropped and counted; or its prompt loses its
    oldest exchanges, whole, the same for both answers. System message and last question stay.

    Args:
        pairs: The pairs.
        tokenizer: As in `encode_pair`.
        chat_format: As in `encode_pair`.
        max_length: Tokens of prompt and longer answer together; None takes any.
        on_too_long: "drop" such pairs, or "cut_prompt" and drop those that are too long still.
        on_bad_row: What to do with a pair that cannot be encoded, such as one that holds a
            special token of the tokenizer: raise an "error", or "drop" it and count it.

    Returns:
        The encoded pairs, at least one.

    Raises:
        ValueError: If a pair cannot be encoded and that is an error, none is left, or an option
            is unknown.

    Chapter: dpo/preference_data.
    """
    check_on_bad_row(on_bad_row)
    if on_too_long not in ("drop", "cut_prompt"):
        raise ValueError(f"on_too_long is {on_too_long!r}: give 'drop' or 'cut_prompt'")
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length is {max_length}: give at least 1 token")
    found = EncodedPairs([], [], Counter(), {}, [])

    def leave_out(index: int, reason: str, why: str) -> None:
        found.dropped[reason] += 1
        found.first_dropped.setdefault(reason, f"pair {index}: {why}")

    for index, pair in enumerate(pairs):
        try:
            encoded, cut = _fitted(pair, tokenizer, chat_format, max_length, on_too_long)
        except ValueError as error:
            if on_bad_row == "error":
                raise ValueError(
                    f"pair {index} cannot be encoded: {error}; or leave out such pairs with "
                    "on_bad_row='drop'"
                ) from error
            leave_out(index, "not encoded", str(error))
            continue
        if max_length is not None and encoded.longest > max_length:
            leave_out(
                index,
                "too long",
                f"{encoded.longest:,} tokens; at most {max_length:,} are taken",
            )
            continue
        found.pairs.append(encoded)
        found.indices.append(index)
        if cut:
            found.cut.append(index)
    if not found.pairs:
        why = "; ".join(found.first_dropped.values()) or "there are none"
        raise ValueError(
            f"none of {len(pairs)} pairs is left ({why}): raise max_length, or give other pairs"
        )
    return found


def _fitted(
    pair: PairRow,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat,
    max_length: int | None,
    on_too_long: OnTooLong,
) -> tuple[EncodedPair, bool]:
    """Encode a pair; cut exchanges while it is too long, may be cut, and has some to lose."""
    cut = False
    while True:
        encoded = encode_pair(pair, tokenizer, chat_format)
        if max_length is None or encoded.longest <= max_length or on_too_long == "drop":
            return encoded, cut
        start = int(pair["prompt"][0]["role"] == "system")
        shorter = pair["prompt"][:start] + pair["prompt"][start + 2 :]
        if len(shorter) == start:  # the last question is all that is left
            return encoded, cut
        pair, cut = {**pair, "prompt": shorter}, True


# --- batches ---


@dataclass(frozen=True)
class PairBatch:
    """Pairs as one padded batch, the chosen answers first.

    Row ``b`` is a prompt with its chosen answer, row ``B + b`` the same prompt with the
    rejected one.

    Attributes:
        input_ids: Tokens, shape (2B, T), int64.
        attention_mask: 1 at tokens, 0 at padding, shape (2B, T), int64.
        labels: The token itself in answers, ``IGNORE_INDEX`` in prompts and padding, shape
            (2B, T), int64. As TRL's they stand beside the tokens; the loss shifts them.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    @property
    def pairs(self) -> int:
        """Number of pairs, ``B``."""
        return len(self.input_ids) // 2

    def to(self, device: torch.device | str) -> PairBatch:
        """Move the tensors.

        Args:
            device: Where to.

        Returns:
            The batch there.
        """
        moved = (self.input_ids, self.attention_mask, self.labels)
        return PairBatch(*(tensor.to(device) for tensor in moved))


def collate_pairs(
    pairs: Sequence[EncodedPair],
    *,
    pad_token_id: int,
    padding_side: Literal["left", "right"] = "right",
    pad_to_multiple_of: int = 1,
) -> PairBatch:
    """Pad pairs to one length.

    Masks are made from lengths and never from ids, so a padding token that is the stop token
    too, as SmolLM2's is, changes nothing.

    Args:
        pairs: The pairs, ``B`` of them.
        pad_token_id: Token to pad with.
        padding_side: Where to pad.
        pad_to_multiple_of: ``T`` becomes a multiple of it.

    Returns:
        The batch. Each row holds at least one token with a label.

    Raises:
        ValueError: If there are no pairs, or an option makes no sense.

    Chapter: dpo/preference_data.
    """
    if not pairs:
        raise ValueError("there are no pairs: give at least one")
    if padding_side not in ("left", "right") or pad_to_multiple_of < 1 or pad_token_id < 0:
        raise ValueError(
            f"padding_side is {padding_side!r}, pad_to_multiple_of {pad_to_multiple_of} and "
            f"pad_token_id {pad_token_id}: give 'left' or 'right', 1 or more, and 0 or more"
        )
    rows = [(pair.prompt_ids, pair.chosen_ids) for pair in pairs]
    rows += [(pair.prompt_ids, pair.rejected_ids) for pair in pairs]
    longest = max(pair.longest for pair in pairs)
    T = -(-longest // pad_to_multiple_of) * pad_to_multiple_of
    input_ids = torch.full((len(rows), T), pad_token_id)
    attention_mask = torch.zeros((len(rows), T), dtype=torch.int64)
    labels = torch.full((len(rows), T), IGNORE_INDEX)
    for index, (prompt, answer) in enumerate(rows):
        n = len(prompt) + len(answer)
        start = 0 if padding_side == "right" else T - n
        input_ids[index, start : start + n] = torch.tensor(prompt + answer)
        attention_mask[index, start : start + n] = 1
        labels[index, start + len(prompt) : start + n] = torch.tensor(answer)
    return PairBatch(input_ids, attention_mask, labels)
