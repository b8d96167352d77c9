"""posttrain.dpo.training.divergence: how far the policy is from the reference."""

from __future__ import annotations

import pytest
import torch

from posttrain.dpo.training.divergence import reference_states, token_divergence
from posttrain.dpo.training.pair_batches import pack_pairs
from posttrain.dpo.training.pair_forward import answer_states, pair_logps
from posttrain.sft.adapters.injection import lora_parameters

from .test_pair_forward import drawn_pairs, model_of


@pytest.mark.parametrize("seed", range(20))
def test_it_is_the_sum_over_the_vocabulary(seed: int) -> None:
    model, other, pairs = model_of(seed), model_of(seed), drawn_pairs(seed, 1 + seed % 5)
    for parameter in lora_parameters(other).values():
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
        )
    batch = pack_pairs(pairs)
    (kept,) = reference_states(other, pairs, len(pairs))
    found = token_divergence(model, answer_states(model, batch), kept)
    policy = model.lm_head(answer_states(model, batch)).softmax(-1)
    reference = other.lm_head(answer_states(other, batch)).softmax(-1)
    by_hand = [
        sum(float(p * (p / q).log()) for p, q in zip(one, two, strict=True))
        for one, two in zip(policy, reference, strict=True)
    ]
    torch.testing.assert_close(
        found.double(), torch.tensor(by_hand).double(), atol=1e-5, rtol=1e-4
    )
    assert float(found.min()) > 0
    backward = token_divergence(other, answer_states(other, batch), answer_states(model, batch))
    assert not torch.allclose(found, backward, rtol=1e-3)  # it has a direction


def test_a_model_does_not_diverge_from_itself() -> None:
    model, pairs = model_of(1), drawn_pairs(1, 11)
    kept = reference_states(model, pairs, 4)
    assert [len(part) for part in kept] == [
        len(pack_pairs(pairs[i : i + 4]).sources) for i in (0, 4, 8)
    ]
    for place, states in enumerate(kept):
        batch = pack_pairs(pairs[4 * place : 4 * place + 4])
        found = token_divergence(model, answer_states(model, batch), states)
        assert torch.equal(found, torch.zeros_like(found))


def test_dropout_of_the_reference_is_off() -> None:
    model, pairs = model_of(2), drawn_pairs(2, 3)
    expected = reference_states(model, pairs)
    for module in model.modules():
        if hasattr(module, "lora_dropout"):
            module.lora_dropout.p = 0.5
    model.train()
    again = reference_states(model, pairs)
    assert model.training
    torch.testing.assert_close(again, expected, rtol=0, atol=0)
    assert pair_logps(model, pack_pairs(pairs))[0].requires_grad


def test_what_is_refused() -> None:
    model, pairs = model_of(0), drawn_pairs(0, 2)
    with pytest.raises(ValueError, match="give at least one pair"):
        reference_states(model, [])
    with pytest.raises(ValueError, match="batch_size"):
        reference_states(model, pairs, 0)
    (kept,) = reference_states(model, pairs)
    with pytest.raises(ValueError, match="the same pairs in the same batches"):
        token_divergence(model, kept[:-1], kept)
    model.lm_head.weight.requires_grad_(True)
    with pytest.raises(ValueError, match="leave lm_head out of target_modules"):
        reference_states(model, pairs)
