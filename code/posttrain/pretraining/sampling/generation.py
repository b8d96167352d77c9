"""From prompts to text: the batched sampler that later stages use.

``N`` completions are drawn for ``P`` prompts, ``num_generations`` each, so ``N`` is
``P * num_generations``; rows that share a prompt stand next to each other.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm.auto import tqdm

from posttrain.core.arguments import shortened, token_ids
from posttrain.core.seeds import base_seed
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.kv_cache import KVCache
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams as SamplingParams
from posttrain.pretraining.sampling.filters import draw

_KEPT_SHARE = 7 / 8  # cutting rows out copies the cache: wait until an eighth has stopped


@dataclass(frozen=True)
class Completions:
    """What the sampler drew.

    Attributes:
        token_ids: Shape (N, T_new), right-padded with ``pad_token_id``.
        completion_mask: 1 where a token was drawn, 0 on padding, shape (N, T_new).
        logps: Log-probability of each drawn token at the sampling temperature (at 1 for
            greedy), before any filter, float32, in nats, 0 on padding, shape (N, T_new).
        sampling_logps: The same under the filtered distribution it was drawn from.
        stopped: Whether each row ended with a stop token, shape (N,).

    Chapter: pretraining/sampling.
    """

    token_ids: Tensor
    completion_mask: Tensor
    logps: Tensor
    sampling_logps: Tensor
    stopped: Tensor

    def to_lists(self) -> list[list[int]]:
        """Return the drawn tokens of each row, without padding.

        Returns:
            ``N`` lists of token ids.
        """
        lengths = self.completion_mask.sum(dim=-1).tolist()
        rows = self.token_ids.tolist()
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def pad_left(prompts: Sequence[Sequence[int]], pad_token_id: int) -> tuple[Tensor, Tensor]:
    """Stack prompts of unequal length so that all of them end at the same place.

    Args:
        prompts: Token ids, ``P`` lists.
        pad_token_id: What to fill with.

    Returns:
        Token ids and attention mask, both of shape (P, T_longest).

    Raises:
        ValueError: If there is no prompt, or one of them is empty or no list of token ids.

    Chapter: pretraining/sampling.
    """
    try:
        rows = [token_ids(prompt, "a prompt") for prompt in prompts]
    except (TypeError, ValueError):
        raise ValueError(
            f"prompts is {shortened(prompts)}: prompts must be lists of token ids, such as "
            "[[5, 2], [7]]; encode a text first, and put a single prompt into a list"
        ) from None
    if not rows or not all(rows):
        raise ValueError(
            "every prompt needs at least one token: give a start token to an empty one"
        )
    longest = max(map(len, rows))
    padded = [[pad_token_id] * (longest - len(row)) + row for row in rows]
    mask = [[0] * (longest - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(padded), torch.tensor(mask)


@torch.no_grad()  # inference_mode would make tensors that no later loss may use
@in_evaluation_mode
def generate(
    model: GPT | PackedGPT,
    prompts: Sequence[Sequence[int]],
    params: SamplingParams | None = None,
    *,
    prefix: Sequence[int] = (),
    seed: int | None = None,
    pad_token_id: int = 0,
    progress: bool = False,
) -> Completions:
    """Draw completions for a batch of prompts.

    Each prompt is read once, however many completions it gets, and a prefix that all prompts
    share is read once for all of them. Rows that have stopped leave the batch, an eighth of it
    at a time. Each row has random numbers of its own, so what it draws does not depend on when
    the others stop.

    The model is put into evaluation mode for this time, so that no dropout changes the draws.

    Args:
        model: The model, or its packed copy for speed.
        prompts: Token ids, ``P`` lists of any lengths.
        params: How to draw; the defaults of :class:`SamplingParams` where it is left out.
        prefix: Token ids that stand before every prompt, such as worked examples.
        seed: Seed of the random numbers; the base seed where it is left out.
        pad_token_id: Fills the places after a row's end.
        progress: Whether to show a progress bar over the new tokens.

    Returns:
        The completions, prompt by prompt.

    Raises:
        ValueError: If a prompt is empty or no list of the model's token ids, if prompt and
            completion exceed the model's context, if a stop token is none of the model's, or if
            the model's logits hold NaN.

    Chapter: pretraining/sampling.
    """  # noqa: DOC502
    params = params or SamplingParams()
    seed = base_seed() if seed is None else seed
    start = token_ids(prefix, "prefix")
    input_ids, mask = pad_left(prompts, pad_token_id)
    device = model.device
    T, T_new = len(start) + input_ids.shape[1], params.max_new_tokens
    check_stop_tokens(model, params)
    if T + T_new > model.config.max_position_embeddings + 1:
        raise ValueError(
            f"a prompt of {T} tokens and {T_new} new ones exceed the model's context of "
            f"{model.config.max_position_embeddings}: shorten one of them"
        )
    cache = _cache_of(model, start, len(prompts), T + T_new)
    before, after = (mask.new_ones(len(prompts), n) for n in (len(start), T_new))
    mask = torch.cat((before, mask, after), dim=1).to(device)
    logits = model(input_ids.to(device), mask[:, :T], cache, logits_to_keep=1)[:, -1]

    N = len(prompts) * params.num_generations
    rows = torch.arange(len(prompts), device=device).repeat_interleave(params.num_generations)
    if params.num_generations > 1:
        logits, mask, cache = logits[rows], mask[rows], cache.select(rows)
    uniform = torch.rand(N, T_new, generator=torch.Generator().manual_seed(seed)).to(device)
    record = _Record(N, T_new, pad_token_id, device)
    stop = torch.tensor(list(params.stop_token_ids), dtype=torch.long, device=device)
    active = torch.arange(N, device=device)  # which completion each row of the batch is
    going = torch.ones(N, dtype=torch.bool, device=device)  # which of these have not stopped
    for t in tqdm(range(T_new), desc="tokens", disable=not progress):
        token, logp, drawn = draw(logits, params, uniform[active, t])
        record.write(t, active[going], token[going], logp[going], drawn[going])
        going &= ~torch.isin(token, stop)
        record.stopped[active[~going]] = True
        if t == T_new - 1 or not going.any():
            break
        if going.sum() <= _KEPT_SHARE * len(going):
            kept = going.nonzero()[:, 0]
            active, token, mask, cache, going = (
                active[kept],
                token[kept],
                mask[kept],
                cache.select(kept),
                going[kept],
            )
        logits = model(token[:, None], mask[:, : T + t + 1], cache, logits_to_keep=1)[:, -1]
    return record.completions()


def check_stop_tokens(model: GPT | PackedGPT, params: SamplingParams) -> None:
    """Refuse stop tokens that a model cannot write: it would never stop.

    Args:
        model: The model.
        params: Name the stop tokens.

    Raises:
        ValueError: If one is outside the model's vocabulary.

    Chapter: sft/your_model.
    """
    vocab_size = model.config.vocab_size
    if (last := max(params.stop_token_ids, default=0)) >= vocab_size:
        raise ValueError(
            f"stop_token_ids holds {last} and this model knows 0 to {vocab_size - 1}, so that "
            "token would never come: take the tokenizer that the model was trained with"
        )


def _cache_of(
    model: GPT | PackedGPT, prefix: list[int], batch_size: int, max_length: int
) -> KVCache:
    """Make a cache in which every row has read the prefix."""
    if not prefix:
        return model.new_cache(batch_size, max_length)
    token_ids = torch.tensor([prefix], device=model.device)
    cache = model.new_cache(1, max_length)
    model(token_ids, torch.ones_like(token_ids), cache, logits_to_keep=1)
    return cache.select(torch.zeros(batch_size, dtype=torch.long, device=model.device))


class _Record:
    """The arrays that :func:`generate` fills, one column per step."""

    def __init__(self, N: int, T_new: int, pad_token_id: int, device: torch.device) -> None:
        self.token_ids = torch.full((N, T_new), pad_token_id, device=device)
        self.mask = torch.zeros(N, T_new, dtype=torch.long, device=device)
        self.logps = torch.zeros(N, T_new, device=device)
        self.sampling_logps = torch.zeros(N, T_new, device=device)
        self.stopped = torch.zeros(N, dtype=torch.bool, device=device)
        self.length = 0

    def write(self, t: int, rows: Tensor, token: Tensor, logp: Tensor, drawn: Tensor) -> None:
        self.token_ids[rows, t] = token
        self.mask[rows, t] = 1
        self.logps[rows, t] = logp
        self.sampling_logps[rows, t] = drawn
        self.length = t + 1

    def completions(self) -> Completions:
        T = self.length
        return Completions(
            self.token_ids[:, :T],
            self.mask[:, :T],
            self.logps[:, :T],
            self.sampling_logps[:, :T],
            self.stopped,
        )
