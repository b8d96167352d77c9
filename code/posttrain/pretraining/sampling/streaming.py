"""Text as it is written: one token after the other, decoded when its letters are complete.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch

from posttrain.core.arguments import token_ids
from posttrain.core.seeds import base_seed
from posttrain.core.training.modes import evaluation_mode
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams, draw
from posttrain.pretraining.sampling.generation import check_stop_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@torch.no_grad()
def stream_tokens(
    model: GPT | PackedGPT,
    prompt: Sequence[int],
    params: SamplingParams | None = None,
    *,
    seed: int | None = None,
) -> Iterator[int]:
    """Draw the tokens of one completion and give each as soon as it is there.

    For the time of each token the model is in evaluation mode.

    Args:
        model: The model, or its packed copy for speed.
        prompt: Token ids.
        params: How to draw; one completion is drawn, whatever ``num_generations`` is.
        seed: Seed of the random numbers; the base seed where it is left out.

    Yields:
        Token ids; a stop token ends the completion and is not given.

    Raises:
        ValueError: If the prompt is empty or no list of token ids, a stop token is none of the
            model's, or no place is left in its context.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    params = params or SamplingParams()
    check_stop_tokens(model, params)
    given = token_ids(prompt, "prompt")
    room = model.config.max_position_embeddings - len(given)
    if not given or room < 1:
        raise ValueError(
            f"a prompt of {len(given)} tokens in a context of "
            f"{model.config.max_position_embeddings}: give at least one token, and leave room"
        )
    generator = torch.Generator().manual_seed(base_seed() if seed is None else seed)
    new = min(params.max_new_tokens, room)
    cache = model.new_cache(1, len(given) + new)
    input_ids = torch.tensor([given], device=model.device)
    mask = torch.ones(1, len(given) + new, dtype=torch.long, device=model.device)
    for _ in range(new):
        seen = cache.length + input_ids.shape[1]
        with evaluation_mode(model):
            logits = model(input_ids, mask[:, :seen], cache, logits_to_keep=1)[:, -1]
        uniform = torch.rand(1, generator=generator).to(model.device)
        token = int(draw(logits, params, uniform)[0])
        if token in params.stop_token_ids:
            return
        yield token
        input_ids = torch.tensor([[token]], device=model.device)


def stream_text(tokens: Iterable[int], tokenizer: PreTrainedTokenizerBase) -> Iterator[str]:
    """Decode tokens as they come.

    A letter outside ASCII may take several tokens, and a half of it decodes to a replacement
    character: text is held back until it is whole.

    Args:
        tokens: Token ids.
        tokenizer: What decodes them.

    Yields:
        Pieces of text; joined, they are what decoding all tokens at once gives.

    Chapter: sft/your_model.
    """
    ids: list[int] = []
    given = ""
    for token in tokens:
        ids.append(token)
        text = str(tokenizer.decode(ids, skip_special_tokens=True))
        if text.startswith(given) and not text.endswith("\ufffd") and text != given:
            yield text[len(given) :]
            given = text
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    if text != given and text.startswith(given):
        yield text[len(given) :]
