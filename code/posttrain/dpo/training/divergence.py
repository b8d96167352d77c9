"""How far the policy has gone from the reference, token by token.

The output head is the same in both, since no adapter sits on it. So the reference is kept as
its last hidden states, a few hundred numbers a token, and not as a distribution over the whole
vocabulary.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from posttrain.core.arguments import whole_number
from posttrain.core.training.modes import in_evaluation_mode
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.training.pair_batches import pack_pairs
from posttrain.dpo.training.pair_forward import answer_states
from posttrain.pretraining.model.gpt import GPT

_TOKENS = 512  # at once: two tables of (512, V) in float32 are 200 MB for SmolLM2


@torch.no_grad()
@in_evaluation_mode
def reference_states(
    model: GPT, pairs: Sequence[EncodedPair], batch_size: int = 8
) -> list[Tensor]:
    """Keep the reference's states of some pairs, before the first step.

    Args:
        model: The model as it is before the first step.
        pairs: The pairs.
        batch_size: Pairs at once; later measurements take the same batches.

    Returns:
        For each batch the states before the tokens of all answers, in the model's type, on the
        CPU, shape (M, C).

    Raises:
        ValueError: If there is no pair, or the output head is trained.

    Chapter: dpo/alignment.
    """
    if not pairs:
        raise ValueError("there is nothing to measure: give at least one pair")
    if any(weight.requires_grad for weight in model.lm_head.parameters()):
        raise ValueError(
            "lm_head is trained, so the policy gets another output head than the reference: "
            "leave lm_head out of target_modules"
        )
    batch_size = whole_number(batch_size, "batch_size", 1)
    return [
        answer_states(model, pack_pairs(pairs[i : i + batch_size]).to(model.device)).cpu()
        for i in range(0, len(pairs), batch_size)
    ]


@torch.no_grad()
def token_divergence(model: GPT, states: Tensor, reference: Tensor) -> Tensor:
    """Compute the divergence of the policy from the reference at each token.

    It is exact: the sum over the whole vocabulary of ``pi log(pi / pi_ref)``, at the places of
    a given text. The text need not be the policy's own.

    Args:
        model: The policy, whose output head is the reference's too.
        states: The policy's states, shape (M, C).
        reference: The reference's states at the same places, shape (M, C).

    Returns:
        Nats, float32, shape (M,); never below 0 but for rounding.

    Raises:
        ValueError: If the shapes differ.

    Chapter: dpo/alignment.
    """
    if states.shape != reference.shape:
        raise ValueError(
            f"the states have the shapes {tuple(states.shape)} and {tuple(reference.shape)}: "
            "give those of the same pairs in the same batches"
        )
    found = []
    for own, theirs in zip(states.split(_TOKENS), reference.split(_TOKENS), strict=True):
        policy, other = (
            model.lm_head(part).float().log_softmax(dim=-1) for part in (own, theirs)
        )
        found.append((policy.exp() * (policy - other)).sum(dim=-1))
    return torch.cat(found)
