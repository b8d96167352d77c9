"""Text longer than the model's context, character by character.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

from dataclasses import replace

from posttrain.core.seeds import base_seed
from posttrain.pretraining.data import CharTokenizer
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.sampling.generation import SamplingParams, generate


def write_text(
    model: GPT,
    tokenizer: CharTokenizer,
    prompt: str = "\n",
    *,
    length: int = 400,
    texts: int = 1,
    params: SamplingParams | None = None,
    seed: int | None = None,
) -> list[str]:
    """Let a character model write on, past the end of its context.

    When the context is full, the model reads the last half of it again and goes on from there.

    Args:
        model: A character model.
        tokenizer: Its vocabulary.
        prompt: What to start from; at least one character.
        length: Characters to write.
        texts: How many texts to write at once.
        params: Temperature and filters; temperature 0.8 where they are left out.
        seed: Seed of the draws; the base seed where it is left out.

    Returns:
        ``texts`` strings of ``length`` characters, without the prompt.

    Raises:
        ValueError: If the prompt is empty or holds an unknown character, ``length`` is negative
            or ``texts`` is less than 1.

    Chapter: pretraining/training_dynamics.
    """
    if length < 0 or texts < 1:
        raise ValueError(
            f"length is {length} and texts is {texts}: give at least 0 characters and 1 text"
        )
    if not prompt:
        raise ValueError("the prompt is empty: give at least one character, such as a newline")
    params = params or SamplingParams(temperature=0.8)
    seed = base_seed() if seed is None else seed
    half = max(1, model.config.max_position_embeddings // 2)
    start = tokenizer.encode(prompt)
    rows = [list(start) for _ in range(texts)]
    written, sitting = 0, 0
    while written < length:
        new = min(half, length - written)
        chunk = replace(params, max_new_tokens=new, num_generations=1, stop_token_ids=())
        # one prime per sitting keeps the random numbers of the sittings apart
        completions = generate(
            model, [row[-half:] for row in rows], chunk, seed=seed + 7919 * sitting
        )
        for row, tokens in zip(rows, completions.to_lists(), strict=True):
            row.extend(tokens)
        written, sitting = written + new, sitting + 1
    return [tokenizer.decode(row[len(start) :]) for row in rows]
