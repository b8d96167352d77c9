"""What a language model makes of an answer: hidden states, one vector for each answer.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

import torch
from torch import Tensor

from posttrain.core.arguments import names, shortened, whole_number
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.chat.formats import FORMATS
from posttrain.sft.chat.template import ChatFormat, EncodedChat, encode_chat
from posttrain.sft.training.packed_forward import packed_stream
from posttrain.sft.training.packing import pack

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Pooling = Literal["mean", "last"]

PLAIN_FORMAT = replace(FORMATS["smollm2"], default_system=None)
"""SmolLM2's format without the system message: the same 22 tokens in each row say nothing."""


@torch.no_grad()
@in_evaluation_mode
def answer_features(
    model: GPT,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    answers: Sequence[str],
    *,
    layer: int,
    pooling: Pooling = "mean",
    chat_format: str | ChatFormat = PLAIN_FORMAT,
    batch_size: int = 16,
) -> Tensor:
    """Read answers with a language model, and average its residual stream over each.

    The question stands before the answer, so that the states can say whether one fits the
    other. The stop token is left out of the mean: its share would tell how long the answer is.
    Answers of about the same length are read together, and blocks above ``layer`` do not run.

    Args:
        model: A Llama-style model.
        tokenizer: Its tokenizer.
        questions: What was asked, n texts.
        answers: An answer to each.
        layer: Blocks to run, from 1; the states are those after the last of them.
        pooling: "mean" over the answer's tokens, or the state of the stop token, which comes
            "last" and has seen all of them.
        chat_format: How the conversation is written.
        batch_size: Answers at once; it changes the result by rounding only.

    Returns:
        Features in the order of the answers, in the model's dtype, on the CPU, shape (n, C).

    Raises:
        ValueError: If there is no answer, one of them is blank or too long for the model's
            context, the numbers differ, or an option is out of range.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    blocks = model.config.num_hidden_layers
    if whole_number(layer, "layer", 1) > blocks:
        raise ValueError(f"layer is {layer}: give 1 to the model's {blocks} blocks")
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling is {pooling!r}: give 'mean' or 'last'")
    batch_size = whole_number(batch_size, "batch_size", 1)
    examples = [
        _encoded(question, answer, tokenizer, chat_format)
        for question, answer in _rows(questions, answers)
    ]
    features = torch.empty(len(examples), model.config.hidden_size, dtype=_dtype(model))
    order = sorted(range(len(examples)), key=lambda row: len(examples[row].input_ids))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = pack([examples[row] for row in rows]).to(model.device)
        states = packed_stream(model, batch, last_block=layer).split(batch.lengths)
        for row, state in zip(rows, states, strict=True):  # state: (T, C)
            inside = torch.tensor(examples[row].assistant_mask).nonzero()[:, 0]
            content, stop = inside[:-1].to(state.device), int(inside[-1])
            features[row] = state[content].mean(dim=0) if pooling == "mean" else state[stop]
    return features


def _rows(questions: Sequence[str], answers: Sequence[str]) -> list[tuple[str, str]]:
    asked, given = names(questions, "questions"), names(answers, "answers")
    if len(asked) != len(given):
        raise ValueError(
            f"there are {len(asked)} questions and {len(given)} answers: give one for each"
        )
    if not given:
        raise ValueError("there are no answers: give at least one")
    for row, answer in enumerate(given):
        if not answer.strip():
            raise ValueError(
                f"answer {row}, to {shortened(asked[row])}, is blank: nothing can be read from "
                "it, so count it as lost before you ask a judge"
            )
    return list(zip(asked, given, strict=True))


def _encoded(
    question: str,
    answer: str,
    tokenizer: PreTrainedTokenizerBase,
    chat_format: str | ChatFormat,
) -> EncodedChat:
    return encode_chat(
        [{"role": "user", "content": question}, {"role": "assistant", "content": answer}],
        tokenizer,
        chat_format,
        markers="as_text",
    )


def _dtype(model: GPT) -> torch.dtype:
    return model.embed_tokens.weight.dtype
