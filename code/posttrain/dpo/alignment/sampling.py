"""Answers drawn from a model: what pairs are built from, and what is judged.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from posttrain.core.arguments import names, whole_number
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.template import Message, encode_chat
from posttrain.sft.training.evaluation import plain_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_ANSWER = 64
"""Tokens after which an answer is cut off."""


def sample_answers(
    model: GPT | PackedGPT,
    tokenizer: PreTrainedTokenizerBase,
    questions: Sequence[str],
    *,
    system: str | None = None,
    num_generations: int = 1,
    temperature: float = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int = LONGEST_ANSWER,
    seed: int = 0,
    batch_size: int = 128,
    chat_format: str = "smollm2",
    progress: bool = False,
) -> list[list[str]]:
    """Let a model answer questions, each one so many times.

    Args:
        model: The model; adapters are folded into a copy first.
        tokenizer: Its tokenizer.
        questions: One user's message each.
        system: A system message before each question; the format's own where it is left out.
        num_generations: Answers to each question.
        temperature: Divides the logits; 0 is greedy.
        top_p: Keeps the fewest tokens whose probabilities reach this sum.
        max_new_tokens: Longest answer, in tokens.
        seed: Seed of the draw. A batch is drawn with the seed and its place.
        batch_size: Answers at once.
        chat_format: How the model writes a conversation; see ``posttrain.sft.chat.formats``.
        progress: Show a bar over the batches.

    Returns:
        For each question its answers, without the stop token.

    Raises:
        ValueError: If there is no question, or a setting is no good.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    from tqdm.auto import tqdm

    asked = names(questions, "questions")
    if not asked:
        raise ValueError("there is nothing to answer: give at least one question")
    each = max(1, whole_number(batch_size, "batch_size", 1) // num_generations)
    before: list[Message] = []
    if system is not None:
        before = [{"role": "system", "content": system}]
    prompts = [
        encode_chat(
            [*before, {"role": "user", "content": question}],
            tokenizer,
            chat_format,
            add_generation_prompt=True,
        ).input_ids
        for question in asked
    ]
    shared = _shared(prompts)
    prefix = prompts[0][:shared]
    stop = tokenizer.get_vocab()[format_named(chat_format).stop_token]
    params = SamplingParams(
        temperature=temperature,
        top_p=top_p,
        max_new_tokens=max_new_tokens,
        num_generations=num_generations,
        stop_token_ids=(stop,),
    )
    packed = model if isinstance(model, PackedGPT) else PackedGPT(plain_model(model))
    order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))  # little padding
    answers: list[list[str]] = [[] for _ in prompts]
    starts = range(0, len(order), each)
    for start in tqdm(starts, "answers", disable=not progress):
        rows = order[start : start + each]
        drawn = generate(
            packed,
            [prompts[row][shared:] for row in rows],
            params,
            prefix=prefix,
            seed=seed + start,
            pad_token_id=stop,
        ).to_lists()
        for place, tokens in enumerate(drawn):
            text = tokenizer.decode([token for token in tokens if token != stop])
            answers[rows[place // num_generations]].append(str(text).strip())
    return answers


def _shared(prompts: Sequence[Sequence[int]]) -> int:
    """Count the tokens at the start that all prompts share, the last of each left out."""
    places = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda tokens: len(set(tokens)) == 1, places))
