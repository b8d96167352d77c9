"""A pair in one row gives the log-probabilities of two rows, and mutants of it do not."""

import random
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.dpo.data.shared_prompt import CHOSEN, REJECTED, PackedPair, pack_pair
from posttrain.dpo.data.tokenizing import EncodedPair, collate_pairs
from posttrain.sft.chat.masking import IGNORE_INDEX

VOCABULARY = 23


@pytest.fixture(scope="module")
def model() -> Any:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=64, initializer_range=0.5,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).double().eval()


def pair(generator: random.Random) -> EncodedPair:
    def some() -> tuple[int, ...]:
        return tuple(generator.choices(range(VOCABULARY - 2), k=generator.randint(1, 9)))

    return EncodedPair(some(), (*some(), VOCABULARY - 2), (*some(), VOCABULARY - 1))


def in_two_rows(model: Any, given: EncodedPair) -> Tensor:
    batch = collate_pairs([given], pad_token_id=0)
    with torch.no_grad():
        logits = model(batch.input_ids, attention_mask=batch.attention_mask).logits
    labels = batch.labels[:, 1:]
    logps = logits[:, :-1].log_softmax(-1).gather(2, labels.clamp(min=0)[..., None])[..., 0]
    return (logps * (labels != IGNORE_INDEX)).sum(1)


def in_one_row(model: Any, packed: PackedPair, mask: Tensor | None = None) -> Tensor:
    seen = packed.attention_mask if mask is None else mask
    bias = torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, -torch.inf)
    with torch.no_grad():
        logits = model(
            packed.input_ids[None],
            attention_mask=bias[None, None],
            position_ids=packed.position_ids[None],
        ).logits[0]
    sums = []
    for part in (CHOSEN, REJECTED):
        places = (packed.parts == part).nonzero()[:, 0]
        logps = logits[packed.predicted_by[places]].log_softmax(-1)
        sums.append(logps.gather(1, packed.input_ids[places, None]).sum())
    return torch.stack(sums)


def test_one_row_gives_what_two_rows_give(model: Any):
    generator = random.Random(0)
    for _ in range(30):
        given = pair(generator)
        torch.testing.assert_close(
            in_one_row(model, pack_pair(given)), in_two_rows(model, given)
        )


def test_mutants_give_something_else(model: Any):
    given = pair(random.Random(1))
    right, expected = pack_pair(given), in_two_rows(model, given)
    T = len(right.input_ids)
    mutants = [
        in_one_row(model, replace(right, position_ids=torch.arange(T))),
        in_one_row(model, replace(right, predicted_by=(torch.arange(T) - 1).clamp(min=0))),
        in_one_row(model, right, torch.ones(T, T, dtype=torch.bool).tril()),
    ]
    for got in mutants:
        assert not torch.allclose(got, expected, atol=1e-4)


def test_the_row_is_laid_out_as_said():
    packed = pack_pair(EncodedPair((7, 8), (1, 2), (3, 4, 5)))
    assert packed.input_ids.tolist() == [7, 8, 1, 2, 3, 4, 5]
    assert packed.position_ids.tolist() == [0, 1, 2, 3, 2, 3, 4]
    assert packed.parts.tolist() == [0, 0, 1, 1, 2, 2, 2]
    assert packed.predicted_by.tolist() == [-1, 0, 1, 2, 1, 4, 5]
    assert packed.attention_mask[4].tolist() == [True, True, False, False, True, False, False]
