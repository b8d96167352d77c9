"""posttrain.sft.training.engine_costs: parts by hand, and how they come together."""

from dataclasses import replace

import pytest

from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import CPU, T4
from posttrain.sft.training.engine_costs import (
    MicroBatch,
    RunMemory,
    bytes_of,
    largest_micro_batch,
    pads,
    recomputes,
    run_memory,
    run_operations,
    unpacked_weights,
)
from posttrain.sft.training.model_shapes import PUBLISHED_SHAPES, total_parameters

TINY = GPTConfig(vocab_size=100, hidden_size=8, intermediate_size=16, num_hidden_layers=2,
                 num_attention_heads=2, num_key_value_heads=1)  # fmt: skip
HAND = replace(CPU, dtype="float32", lora=LoRAConfig(r=2, target_modules=("q_proj",)))
BATCH = MicroBatch(rows=2, longest=5, tokens=8, trained=3)


def test_the_longest_rows_may_come_together() -> None:
    batch = largest_micro_batch([3, 9, 4, 7], [1, 2, 4, 3], 2)
    assert batch == MicroBatch(rows=2, longest=9, tokens=16, trained=7) and batch.padded == 18
    assert largest_micro_batch([3], [2], 8) == MicroBatch(1, 3, 3, 2)
    for lengths, trained, size in (([], [], 1), ([3], [], 1), ([3], [1], 0), ([0], [0], 1)):
        with pytest.raises(ValueError, match="give"):
            largest_micro_batch(lengths, trained, size)


def test_an_adapter_is_held_four_times() -> None:
    memory = run_memory(HAND, TINY, BATCH)
    adapter = 2 * 2 * (8 + 8)  # two blocks, r = 2, q_proj from 8 to 8
    assert memory.weights == 4 * total_parameters(TINY)
    assert memory.adapter == memory.gradients == 4 * adapter
    assert memory.optimizer == 2 * memory.gradients
    assert memory.loading == 2 * total_parameters(TINY)  # the file in 16 bits beside the copy


def test_three_moments_do_not_add_up() -> None:
    parts = dict(weights=100, mapped=10, adapter=1, gradients=1, optimizer=2, activations=20)
    assert RunMemory(**parts, logits=30, workspace=5).growth == 164
    assert RunMemory(**parts, logits=3, workspace=50).growth == 184
    assert RunMemory(**parts, logits=3, workspace=5, loading=90).growth == 200
    whole = RunMemory(**parts, logits=30, workspace=5, process=7)
    assert whole.needed == 164 - 10 + 7 and sum(whole.parts().values()) > whole.growth


def test_more_rows_and_longer_ones_need_more() -> None:
    for preset in (CPU, replace(CPU, engine="trl"), T4, replace(T4, engine="by_hand")):
        shape = PUBLISHED_SHAPES["Llama-3.2-1B"]
        small, wide, long = (
            run_memory(preset, shape, MicroBatch(n, T, n * T, n * T // 2)).growth
            for n, T in ((1, 256), (8, 256), (1, 2048))
        )
        assert small < wide and small < long
    four, sixteen = (
        run_memory(replace(T4, quantization=q), PUBLISHED_SHAPES["Llama-3.2-1B"], BATCH).weights
        for q in ("nf4", None)
    )
    assert 0.3 < four / sixteen < 0.5


def test_what_engines_do() -> None:
    assert bytes_of(replace(CPU, dtype="float32")) == 4 and bytes_of(T4) == 2
    assert recomputes(T4) and not recomputes(replace(T4, engine="by_hand"))
    assert pads(T4) and not pads(CPU)
    assert unpacked_weights(HAND, TINY) == 0 < unpacked_weights(T4, TINY)
    once, twice = (run_operations(HAND, TINY, n, 5, n, 5 * n) for n in (1, 2))
    assert twice == pytest.approx(2 * once, rel=0.01)
    # frozen weights: two products for each weight instead of three
    full = 6 * total_parameters(TINY) * 40
    assert run_operations(HAND, TINY, 8, 5, 40, 40) < 0.9 * full
