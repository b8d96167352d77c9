"""posttrain.dpo.training.pair_forward: one row for a pair computes what two rows do."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch

from posttrain.dpo.data.tokenizing import EncodedPair, collate_pairs
from posttrain.dpo.losses.logprobs import sequence_logps
from posttrain.dpo.training.pair_batches import pack_pairs
from posttrain.dpo.training.pair_forward import PairLayout, pair_logps, reference_logps
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig

CONFIG = GPTConfig(
    vocab_size=61, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
    initializer_range=0.5,
)  # fmt: skip


def model_of(seed: int) -> GPT:
    torch.manual_seed(seed)
    model = GPT(CONFIG)
    inject_lora(model, LoRAConfig(r=2, lora_alpha=4), seed)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval().double()  # so that what differs is no rounding


def drawn_pairs(seed: int, count: int) -> list[EncodedPair]:
    rng = random.Random(seed)

    def ids(least: int, most: int) -> tuple[int, ...]:
        return tuple(rng.randrange(1, 61) for _ in range(rng.randint(least, most)))

    return [EncodedPair(ids(1, 12), (*ids(0, 9), 7), (*ids(1, 9), 8)) for _ in range(count)]


def two_rows(model: GPT, pairs: list[EncodedPair]) -> tuple[torch.Tensor, torch.Tensor]:
    """The other way: every prompt twice, padded, each logit computed."""
    batch = collate_pairs(pairs, pad_token_id=0)
    sums = sequence_logps(model(batch.input_ids), batch.labels).sums
    return sums[: len(pairs)], sums[len(pairs) :]


@pytest.mark.parametrize("seed", range(20))
def test_values_and_gradients_are_those_of_two_rows(seed: int) -> None:
    model, pairs = model_of(seed), drawn_pairs(seed, 1 + seed % 5)
    weights = torch.linspace(-1, 2, 2 * len(pairs), dtype=torch.float64)
    found = []
    for compute in (
        lambda: pair_logps(model, pack_pairs(pairs)),
        lambda: two_rows(model, pairs),
    ):
        model.zero_grad()
        sums = torch.cat(compute())
        (sums * weights).sum().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((sums.detach(), gradients))
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)
    assert our_gradients and len(our_gradients) == len(their_gradients)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_neither_answer_sees_the_other() -> None:
    model, (pair,) = model_of(0), drawn_pairs(3, 1)
    other = replace(pair, chosen_ids=(*pair.chosen_ids[::-1], 5, 6))
    a, b = (pair_logps(model, pack_pairs([p])) for p in (pair, other))
    assert a[0] != b[0]
    torch.testing.assert_close(a[1], b[1])


@pytest.mark.parametrize("mistake", ["positions", "mask", "sources"])
def test_planted_mistakes_are_seen(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = model_of(1), drawn_pairs(1, 3)
    batch = pack_pairs(pairs)
    if mistake == "positions":  # the rejected answer goes on where the chosen one ended
        places = torch.cat([torch.arange(length) for length in batch.lengths])
        batch = replace(batch, position_ids=places)
    elif mistake == "mask":  # the rejected answer reads the chosen one
        usual = PairLayout.__init__

        def plain(self: PairLayout, batch: object, config: GPTConfig) -> None:
            usual(self, batch, config)  # type: ignore[arg-type]
            self.mask = torch.ones(self.longest, self.longest).tril().bool()

        monkeypatch.setattr(PairLayout, "__init__", plain)
    else:  # the first token of the rejected answer predicted by the end of the chosen one
        first = torch.tensor([len(p.prompt_ids) + len(p.chosen_ids) - 1 for p in pairs])
        starts = torch.tensor([0, *batch.lengths[:-1]]).cumsum(0)
        sources = batch.sources.clone()
        for b in range(len(pairs)):
            mine = (batch.owners == len(pairs) + b).nonzero()[0, 0]
            sources[mine] = starts[b] + first[b]
        batch = replace(batch, sources=sources)
    wanted = two_rows(model, pairs)[1]
    assert not torch.allclose(pair_logps(model, batch)[1], wanted, atol=1e-3)


def test_the_order_and_size_of_batches_change_nothing() -> None:
    model, pairs = model_of(2), drawn_pairs(2, 7)
    whole = pair_logps(model, pack_pairs(pairs))
    for size in (1, 3, 7):
        found = reference_logps(model, pairs, batch_size=size)
        for ours, theirs in zip((found.chosen, found.rejected), whole, strict=True):
            torch.testing.assert_close(ours, theirs.detach().float())


def test_the_reference_is_asked_without_dropout_and_gradient() -> None:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    inject_lora(model, LoRAConfig(r=2, lora_alpha=4, lora_dropout=0.9), 0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    pairs = drawn_pairs(5, 2)
    model.train()
    found = [reference_logps(model, pairs) for _ in range(2)]
    assert model.training and not found[0].chosen.requires_grad
    assert torch.equal(found[0].chosen, found[1].chosen)


def test_a_sequence_beyond_the_context_is_refused() -> None:
    long = EncodedPair(tuple([1] * 60), (1, 2, 3, 4, 5), (2,))
    with pytest.raises(ValueError, match="has 65 tokens and the model a context of 64"):
        pair_logps(model_of(0), pack_pairs([long]))
    fits = EncodedPair(tuple([1] * 40), tuple([2] * 20), tuple([3] * 20))  # 80 in its row
    assert all(part.isfinite().all() for part in pair_logps(model_of(0), pack_pairs([fits])))
