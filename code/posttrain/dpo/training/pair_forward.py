"""The model on packed pairs: each prompt computed once, logits on the answers alone.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from posttrain.core.arguments import whole_number
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.dpo.data.shared_prompt import PROMPT
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.training.pair_batches import PackedPairs, ReferenceLogps, pack_pairs
from posttrain.pretraining.model.attention import causal_mask, rotary_angles
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT, Block, check_unchanged
from posttrain.sft.training.packed_forward import PackedLayout, packed_attention


class PairLayout(PackedLayout):
    """Where the tokens of packed pairs stand once pairs are rows again, and what they see.

    A token sees the prompt, and what stands before it in its own answer. The rejected answer
    begins at the position at which the chosen one does, though it lies behind it.

    Args:
        batch: The packed pairs.
        config: The model's shape.
    """

    def __init__(self, batch: PackedPairs, config: GPTConfig) -> None:
        self.documents, self.longest = batch.pairs, batch.longest
        self.slots, self.head_dim = batch.slots, config.channels_per_head
        positions = self._table(batch.position_ids)
        parts = self._table(batch.parts)
        self.rotary = rotary_angles(
            positions, self.head_dim, config.rope_theta, config.rope_scaling
        )
        own = (parts[:, None, :] == PROMPT) | (parts[:, None, :] == parts[:, :, None])
        before = causal_mask(self.longest).to(parts.device)
        self.mask = (own & before)[:, None]  # (B, 1, T, T)

    def _table(self, values: Tensor) -> Tensor:
        """Turn one number a token into a table of pairs, zero on padding, shape (B, T)."""
        table = values.new_zeros(self.documents * self.longest)
        return table.index_copy(0, self.slots, values).view(self.documents, self.longest)


def pair_hidden(model: GPT, batch: PackedPairs) -> Tensor:
    """Run the model on packed pairs, up to the last norm.

    Args:
        model: A Llama-style model.
        batch: The packed pairs.

    Returns:
        Hidden states before the output head, shape (N, C).

    Raises:
        ValueError: If the model has learned positions or is a subclass that computes something
            else, or a sequence exceeds its context.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    config = model.config
    check_unchanged(model)
    if config.position != "rope":
        raise ValueError("only a model with rotary positions reads packed pairs here")
    if (most := int(batch.position_ids.max()) + 1) > config.max_position_embeddings:
        raise ValueError(
            f"a prompt with its answer has {most} tokens and the model a context of "
            f"{config.max_position_embeddings}: encode the pairs with a lower max_length"
        )
    layout = PairLayout(batch, config)
    x = model.embed_tokens(batch.input_ids)  # (N, C)
    for block in model.layers:
        assert isinstance(block, Block)
        x = x + packed_attention(block.self_attn, block.input_layernorm(x), layout)
        x = x + block.mlp(block.post_attention_layernorm(x))
    hidden: Tensor = model.norm(x)
    return hidden


def pair_logps(model: GPT, batch: PackedPairs) -> tuple[Tensor, Tensor]:
    """Compute the log-probability of each answer, given its prompt.

    Args:
        model: A Llama-style model.
        batch: The packed pairs.

    Returns:
        Sums over the tokens of the chosen and of the rejected answers, in nats, float32 or
        the model's float64, shape (B,) each. They carry the gradient.

    Raises:
        ValueError: See :func:`pair_hidden`.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    return logps_from_states(model, batch, answer_states(model, batch))


def answer_states(model: GPT, batch: PackedPairs) -> Tensor:
    """Run the model, and keep what the output head needs to predict the answers.

    Args:
        model: A Llama-style model.
        batch: The packed pairs.

    Returns:
        Hidden states of the places before each token of an answer, shape (M, C).

    Raises:
        ValueError: See :func:`pair_hidden`.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    return pair_hidden(model, batch)[batch.sources]


def logps_from_states(model: GPT, batch: PackedPairs, states: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the log-probability of each answer from the states before its tokens.

    Args:
        model: The model whose states they are.
        batch: The packed pairs.
        states: What :func:`answer_states` returned, shape (M, C).

    Returns:
        See :func:`pair_logps`.

    Chapter: dpo/alignment.
    """
    logits = model.lm_head(states)  # (M, V)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    own = logits.gather(-1, batch.targets[:, None])[:, 0]
    tokens = own - logits.logsumexp(dim=-1)  # (M,)
    sums = tokens.new_zeros(2 * batch.pairs).index_add(0, batch.owners, tokens)
    return sums[: batch.pairs], sums[batch.pairs :]


@torch.no_grad()
@in_evaluation_mode
def reference_logps(
    model: GPT, pairs: Sequence[EncodedPair], batch_size: int = 8
) -> ReferenceLogps:
    """Compute once what the reference says of all pairs.

    It runs in evaluation mode and without gradients, whatever mode the model is in: dropout in
    the reference would add noise to every margin.

    Args:
        model: The reference: the model as it is before the first step.
        pairs: The pairs.
        batch_size: Pairs at once.

    Returns:
        Log-probabilities in the order of the pairs, on the CPU.

    Raises:
        ValueError: If there is no pair.

    Chapter: dpo/alignment.
    """
    if not pairs:
        raise ValueError("there is nothing to measure: give at least one pair")
    batch_size = whole_number(batch_size, "batch_size", 1)
    order = sorted(range(len(pairs)), key=lambda row: pairs[row].longest)  # little padding
    chosen, rejected = torch.zeros(len(pairs)), torch.zeros(len(pairs))
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = pack_pairs([pairs[row] for row in rows]).to(model.device)
        chosen[rows], rejected[rows] = (part.float().cpu() for part in pair_logps(model, batch))
    return ReferenceLogps(chosen, rejected)
