"""posttrain.dpo.runs.costs: tokens of pairs, and what they take in memory and time."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from posttrain.dpo.data.tokenizing import EncodedPair, collate_pairs
from posttrain.dpo.presets import CPU, T4, DPOPreset
from posttrain.dpo.runs.costs import (
    PairTokens,
    forward_share,
    pair_memory,
    pair_operations,
    pair_tokens,
)
from posttrain.dpo.training.pair_batches import pack_pairs
from posttrain.sft.training.memory import PUBLISHED_SHAPES

LLAMA = PUBLISHED_SHAPES["Llama-3.2-1B"]


def drawn(seed: int, count: int = 9) -> list[EncodedPair]:
    rng = random.Random(seed)
    return [
        EncodedPair(
            (1,) * rng.randint(1, 30), (2,) * rng.randint(1, 20), (3,) * rng.randint(1, 20)
        )
        for _ in range(count)
    ]


def with_engine(preset: DPOPreset, **changed: Any) -> DPOPreset:
    return replace(preset, start=replace(preset.start, **changed))


def test_a_micro_batch_is_what_the_engines_read() -> None:
    padded = with_engine(CPU, engine="trl").start
    for seed in range(20):
        pairs = drawn(seed)
        tokens = pair_tokens(pairs, 3)
        packed = pack_pairs(pairs[2:6])
        batch = tokens.batch(CPU.start, 2, 4)
        assert (batch.rows, batch.longest, batch.tokens, batch.trained) == (
            4, packed.longest, len(packed.input_ids), len(packed.targets),
        )  # fmt: skip
        collated = collate_pairs(pairs[2:6], pad_token_id=0)
        batch = tokens.batch(padded, 2, 4)
        assert (batch.rows, batch.longest) == tuple(collated.input_ids.shape)
        assert batch.tokens == int(collated.attention_mask.sum())
        assert batch.trained == int((collated.labels != -100).sum())


def test_the_largest_pairs_come_first() -> None:
    for preset in (CPU, with_engine(CPU, engine="trl")):
        tokens = pair_tokens(drawn(1, 30), 3)
        ordered = tokens.sorted(preset.start)
        sizes = ordered.once if preset is CPU else ordered.rows
        assert sizes == sorted(sizes, reverse=True) and ordered.validation == 3
        assert sorted(ordered.once) == sorted(tokens.once)
        largest = ordered.batch(preset.start, 0, 4).longest
        assert all(tokens.batch(preset.start, i, 4).longest <= largest for i in range(26))
    with pytest.raises(ValueError, match="at least one pair"):
        pair_tokens([])


def test_logits_of_every_position_against_those_of_the_answers() -> None:
    tokens = PairTokens((100,) * 2, (20,) * 2, (10,) * 2)
    preset = with_engine(T4, device="cpu", dtype="bfloat16")
    by_hand = replace(with_engine(preset, engine="by_hand"), gradient_checkpointing=False)
    ours = pair_memory(by_hand, LLAMA, tokens.batch(by_hand.start, 0, 2))
    theirs = pair_memory(preset, LLAMA, tokens.batch(preset.start, 0, 2))
    assert ours.logits == 16 * LLAMA.vocab_size * 60
    assert theirs.logits == 10 * LLAMA.vocab_size * 4 * 120
    assert theirs.adapter == 2 * ours.adapter  # its copy is the reference
    assert theirs.weights == ours.weights  # and no second model
    t4 = pair_memory(T4, LLAMA, tokens.batch(T4.start, 0, 2))
    assert t4.logits == 15 * LLAMA.vocab_size * 4 * 120  # float16: autocast gives float32


def test_checkpointing_goes_by_the_setting_and_not_by_the_device() -> None:
    tokens = PairTokens((100,) * 2, (20,) * 2, (10,) * 2)
    for device in ("cpu", "cuda"):
        on = with_engine(T4, engine="trl", device=device, dtype="bfloat16")
        off = replace(on, gradient_checkpointing=False)
        batch = tokens.batch(on.start, 0, 2)
        less, more = (pair_memory(p, LLAMA, batch) for p in (on, off))
        assert less.activations < more.activations / 3
        assert pair_operations(on, LLAMA, batch) > 1.2 * pair_operations(off, LLAMA, batch)
        assert forward_share(on) == 1 / 3 and forward_share(off) == 1 / 2


def test_the_prompt_costs_twice_where_it_is_read_twice() -> None:
    by_hand = replace(with_engine(T4, engine="by_hand"), gradient_checkpointing=False)
    trl = replace(with_engine(T4, engine="trl"), gradient_checkpointing=False)
    tokens = PairTokens((900,), (10,), (10,))
    ours, theirs = (
        pair_operations(p, LLAMA, tokens.batch(p.start, 0, 1)) for p in (by_hand, trl)
    )
    assert 1.8 < theirs / ours < 3.5
