"""posttrain.sft.training.engine_costs: against counted tensors, live bytes, and by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.pretraining.model.accounting import forward_flops, training_flops
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import A100, CPU, T4, SFTPreset
from posttrain.sft.quantization.nf4 import bits_per_weight
from posttrain.sft.training import loss as by_hand_loss
from posttrain.sft.training.engine_costs import (
    BY_HAND_BLOCK,
    TRL_CHUNK,
    MicroBatch,
    RunMemory,
    bytes_of,
    largest_micro_batch,
    pads,
    peft_kept_per_token,
    recomputes,
    run_memory,
    run_operations,
    unpacked_weights,
)
from posttrain.sft.training.loss import blockwise_nll
from posttrain.sft.training.memory import PUBLISHED_SHAPES, kept_for_backward
from posttrain.sft.training.model_shapes import adapter_parameters, total_parameters
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import pack
from posttrain.sft.training.trl_engine import peft_config, sft_config

TINY = GPTConfig(
    vocab_size=64, hidden_size=128, intermediate_size=352, num_hidden_layers=4,
    num_attention_heads=4, num_key_value_heads=2,
)  # fmt: skip
LORA = LoRAConfig(r=4)


def preset(engine: str, dtype: str = "bfloat16", **changed: Any) -> SFTPreset:
    return replace(
        CPU, engine=engine, dtype=dtype, lora=LORA, **changed  # type: ignore[arg-type]
    )  # fmt: skip


# --- the largest batch ---


def test_the_longest_rows_make_the_largest_batch() -> None:
    batch = largest_micro_batch([3, 9, 4, 7], [1, 5, 2, 6], 2)
    assert batch == MicroBatch(rows=2, longest=9, tokens=16, trained=11)
    assert batch.padded == 18
    assert largest_micro_batch([3, 9], [1, 5], 8) == MicroBatch(2, 9, 12, 6)
    assert largest_micro_batch([5, 2], [0, 2], 1) == MicroBatch(1, 5, 5, 2)  # a bound


@pytest.mark.parametrize(
    ("lengths", "trained", "size", "sentence"),
    [
        ([], [], 1, "0 lengths and 0 numbers of trained tokens: give one of each"),
        ([3], [1, 2], 1, "1 lengths and 2 numbers"),
        ([3], [1], 0, "batch_size is 0: give a whole number from 1 up"),
        ([0], [0], 1, "a length is 0: give a whole number from 1 up"),
        ([3], [-1], 1, "trained tokens is -1: give a whole number from 0 up"),
    ],
)
def test_what_is_no_batch_is_refused(
    lengths: list[int], trained: list[int], size: int, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        largest_micro_batch(lengths, trained, size)


# --- the peak, by hand ---


def memory_of(**sizes: int) -> RunMemory:
    names = ("weights", "mapped", "adapter", "gradients", "optimizer", "activations", "logits",
             "workspace", "loading", "process")  # fmt: skip
    return RunMemory(**{name: sizes.get(name, 0) for name in names})


def test_of_three_moments_the_largest_counts() -> None:
    steady: dict[str, int] = {
        "weights": 100, "mapped": 40, "adapter": 3, "gradients": 3, "optimizer": 6,
        "activations": 20, "process": 7,
    }  # fmt: skip
    assert memory_of(**steady, logits=9, workspace=5).growth == 140 + 32 + 9
    assert memory_of(**steady, logits=9, workspace=11).growth == 140 + 32 + 11
    loaded = memory_of(**steady, logits=9, workspace=11, loading=200)
    assert loaded.growth == 340
    assert loaded.needed == 340 - 40 + 7  # the process too, and no page that can be taken back
    assert list(loaded.parts()) == list(RunMemory.__dataclass_fields__)


def test_by_hand_part_by_part() -> None:
    config = GPTConfig(
        vocab_size=1000, hidden_size=4, intermediate_size=6, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    lora = LoRAConfig(r=3, target_modules=("q_proj", "up_proj"))
    matrices, rest = 2 * (16 + 8 + 8 + 16 + 72), 4000 + 20
    adapter = 2 * 3 * ((4 + 4) + (4 + 6))
    batch = MicroBatch(rows=2, longest=5, tokens=8, trained=3)

    found = run_memory(replace(preset("by_hand"), lora=lora), config, batch)
    assert found.weights == 2 * (matrices + rest) and found.mapped == found.loading == 0
    assert found.adapter == found.gradients == 4 * adapter
    assert found.optimizer == 8 * adapter
    # two norms in float32 and SwiGLU; q, k, v and the scores are those of padded rows
    packed, padded = 2 * 4 * 4 + 2 * 3 * 6 + 2 * (4 + 4 + 3 + 3), 2 * ((2 + 2) * 2 + 2 * 5)
    assert found.activations == 2 * (8 * packed + 10 * padded) + 2 * adapter
    assert found.logits == 1000 * 3 * (2 + 4 + 4)  # as the head gives them, and twice float32
    assert found.workspace == 3 * 2 * 6 * 8
    assert found.growth == sum(found.parts().values()) - min(found.logits, found.workspace)

    four = run_memory(replace(preset("by_hand", quantization="nf4"), lora=lora), config, batch)
    packed_bytes = round(matrices * bits_per_weight(64, double_quant=True) / 8)
    assert four.weights == packed_bytes + 2 * rest
    assert four.mapped == 2 * matrices  # of the file, which the embedding keeps in view
    assert four.workspace == 6 * 24 + 3 * 2 * 6 * 8

    wide = run_memory(replace(preset("by_hand", "float32"), lora=lora), config, batch)
    assert wide.weights == 4 * (matrices + rest) and wide.loading == 2 * (matrices + rest)
    assert wide.mapped == 0 and wide.logits == 1000 * 3 * (4 + 4)
    both = run_memory(
        replace(preset("by_hand", "float32", quantization="nf4"), lora=lora), config, batch
    )
    assert both.weights + both.loading == (2 + 4) * (matrices + rest)  # 4 bits come later
    theirs = run_memory(
        replace(preset("trl", "float32", quantization="nf4"), lora=lora), config, batch
    )
    assert theirs.loading == 2 * (matrices + rest)  # matrix by matrix


def test_more_than_one_block_of_logits_holds_the_gradient_of_the_last() -> None:
    few, many = (
        run_memory(preset("by_hand"), TINY, MicroBatch(1, 300, 300, n)).logits
        for n in (BY_HAND_BLOCK, BY_HAND_BLOCK + 1)
    )
    assert few == 64 * 128 * 10 and many == few + 64 * 128 * 4


def test_no_file_is_in_view_on_a_gpu() -> None:
    batch = MicroBatch(2, 64, 128, 64)
    for engine in ("by_hand", "trl", "unsloth"):
        for quantization in (None, "nf4"):
            card = replace(A100, engine=engine, quantization=quantization)  # type: ignore[arg-type]
            found = run_memory(card, TINY, batch, process=5)
            assert found.mapped == 0 and found.process == 5
            # by hand the model is on the card in 16 bits before its matrices are in 4
            dense = 2 * total_parameters(TINY) - found.weights
            by_hand = engine == "by_hand" and quantization == "nf4"
            assert found.loading == (dense if by_hand else 0)


def test_checkpointing_keeps_the_input_of_each_block_and_one_block() -> None:
    batch = MicroBatch(2, 64, 100, 50)
    card = replace(preset("trl"), device="cuda")
    passing, extra = peft_kept_per_token(card, TINY, 64, padding=True)
    assert recomputes(card) and not recomputes(preset("trl"))
    assert run_memory(card, TINY, batch).activations == 128 * (4 * 128 * 2 + passing + extra)
    plain = run_memory(preset("trl"), TINY, batch).activations
    assert plain == 128 * 4 * (passing + extra)
    lean = run_memory(replace(card, engine="unsloth"), TINY, batch).activations
    assert lean < run_memory(card, TINY, batch).activations  # no casts, no repeated keys
    assert not recomputes(replace(card, engine="by_hand"))


def test_the_presets_checkpoint_where_the_formula_says(tmp_path: Path) -> None:
    for one in (T4, A100, replace(CPU, engine="trl")):
        assert sft_config(one, tmp_path).gradient_checkpointing is recomputes(one)


def test_unsloths_own_loss_reads_an_eighth_at_once() -> None:
    V = PUBLISHED_SHAPES["Llama-3.2-1B"].vocab_size
    for tokens, rows in ((256, 256), (1024, 512), (8192, 1024), (10**6, 2**31 // (8 * V))):
        found = run_memory(
            T4, PUBLISHED_SHAPES["Llama-3.2-1B"], MicroBatch(1, tokens, tokens, tokens)
        )
        assert found.logits == 8 * V * rows


# --- activations, against the tensors that are kept ---


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("quantized", [False, True])
def test_packed_rows_keep_what_is_predicted(dtype: str, quantized: bool) -> None:
    from posttrain.sft.quantization.nf4_linear import quantize_model

    torch.manual_seed(0)
    model = GPT(TINY).to(getattr(torch, dtype))
    if quantized:
        quantize_model(model)
    inject_lora(model, LORA)
    lengths = (60, 12, 40, 7)
    batch = pack([EncodedChat(list(range(n)), [0] + [1] * (n - 1)) for n in lengths])
    kept = kept_for_backward(lambda: packed_hidden(model, batch), model)
    own = preset("by_hand", dtype, quantization="nf4" if quantized else None)
    micro = largest_micro_batch(lengths, lengths, 4)
    assert run_memory(own, TINY, micro).activations == pytest.approx(kept, rel=0.03)
    # Were rows taken for padded everywhere, it would be far too much.
    wrong = replace(micro, tokens=micro.padded)
    assert run_memory(own, TINY, wrong).activations > 1.3 * kept


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Tiny random Llamas of two and of four blocks."""
    torch.manual_seed(0)
    made = {}
    for L in (2, 4):
        made[L] = tmp_path_factory.mktemp(f"blocks-{L}")
        save_pretrained(GPT(replace(TINY, num_hidden_layers=L)), made[L])
    return made


def kept_by_peft(folder: Path, lora: LoRAConfig, dtype: str, ids: Tensor, mask: Tensor) -> int:
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype))
    tuned = get_peft_model(model, peft_config(lora)).train()
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # as fit does

    def forward() -> object:
        body: Any = tuned.base_model.model.model
        return body(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state

    return kept_for_backward(forward, tuned)


ADAPTERS = {
    "all": LORA,
    "q, v": LoRAConfig(r=4, target_modules=("q_proj", "v_proj")),
    "dropout": LoRAConfig(r=4, lora_dropout=0.1),
}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize("padding", [False, True])
@pytest.mark.parametrize("name", ADAPTERS)
def test_a_block_of_peft_keeps_what_is_predicted(
    folders: dict[int, Path], name: str, padding: bool, dtype: str
) -> None:
    ids, mask = torch.zeros(4, 64, dtype=torch.long), torch.ones(4, 64, dtype=torch.long)
    if padding:
        mask[0, 40:] = 0
    lora = ADAPTERS[name]
    two, four = (kept_by_peft(folders[L], lora, dtype, ids, mask) for L in (2, 4))
    kept = (four - two) / 2 / ids.numel()
    own = replace(preset("trl", dtype), lora=lora)
    predicted = sum(peft_kept_per_token(own, TINY, 64, padding=padding))
    assert predicted == pytest.approx(kept, rel=0.02)
    if name == "all" and dtype == "bfloat16":  # by the formula of the run by hand: too little
        by_hand = run_memory(preset("by_hand"), TINY, MicroBatch(1, 1, 1, 1)).activations
        assert by_hand - 2 * adapter_parameters(TINY, LORA) < 0.7 * 4 * kept


# --- logits, against the bytes that are live ---


def live_peak(work: Callable[[], object]) -> int:
    """Most bytes that tensors hold at once, of those that are made meanwhile."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    results: Any = profiled.profiler
    events = results.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    now = most = 0
    for _, change in changes:
        now += change
        most = max(most, now)
    return most


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("trained", [40, 400])
def test_logits_by_hand_are_those_of_a_block(dtype: torch.dtype, trained: int) -> None:
    V, C = 8192, 16
    hidden = torch.randn(trained, C, dtype=dtype, requires_grad=True)
    head, labels = torch.randn(V, C, dtype=dtype), torch.randint(V, (trained,))
    peak = live_peak(lambda: blockwise_nll(hidden, head, labels))
    own = preset("by_hand", str(dtype).removeprefix("torch."))
    config = replace(TINY, vocab_size=V)
    found = run_memory(own, config, MicroBatch(1, 500, 500, trained)).logits
    assert found == pytest.approx(peak, rel=0.03)
    assert found < 0.6 * 8 * V * 400 or trained == 40  # not of all positions


@pytest.mark.parametrize(("rows", "T"), [(1, 100), (3, 200)])
def test_logits_of_trl_are_those_of_a_chunk(rows: int, T: int) -> None:
    trainer = pytest.importorskip("trl.trainer.sft_trainer")
    V, C = 4096, 16
    hidden = torch.randn(rows, T, C, requires_grad=True)
    head, labels = torch.randn(V, C), torch.randint(V, (rows, T))

    def step() -> None:  # the entropy's graph is gone before the backward pass, as in TRL
        trainer._chunked_cross_entropy_loss(hidden, head, TRL_CHUNK, labels)[0].backward()

    found = run_memory(
        preset("trl"), replace(TINY, vocab_size=V), MicroBatch(rows, T, rows * T, rows * T)
    ).logits
    assert found == pytest.approx(live_peak(step), rel=0.05)


def test_the_blocks_are_those_of_the_losses() -> None:
    trainer = pytest.importorskip("trl.trainer.sft_trainer")
    assert by_hand_loss._BLOCK == BY_HAND_BLOCK
    assert trainer._CHUNKED_LM_HEAD_CHUNK_SIZE == TRL_CHUNK


# --- the settings that decide ---


def test_bytes_of_a_number() -> None:
    assert bytes_of(T4) == 2 and bytes_of(preset("trl", "float32")) == 4
    assert bytes_of(replace(CPU, device="cuda", dtype="auto")) == 2
    assert pads(T4) and not pads(CPU)


# --- operations ---


def test_a_lora_step_has_two_thirds_of_the_products_of_full_training() -> None:
    T = 64
    found = run_operations(preset("by_hand"), TINY, 1, T, T)
    full, forward = training_flops(TINY, T), forward_flops(TINY, T)
    channels = TINY.num_attention_heads * TINY.channels_per_head
    scores = 4 * TINY.num_hidden_layers * channels * T * T
    adapters = 6 * adapter_parameters(TINY, LORA) * T
    # Attention has no frozen factor: both of its products need two going back.
    assert found == 2 * full / 3 + scores + adapters == 2 * forward + scores + adapters
    head = 2 * TINY.vocab_size * TINY.hidden_size
    some = run_operations(preset("by_hand"), TINY, 1, T, 10)
    assert found - some == 2 * head * (T - 10)  # only where a token is trained


def test_packed_rows_multiply_no_padding() -> None:
    packed = run_operations(preset("by_hand"), TINY, 2, 64, 10, 70)
    padded = run_operations(preset("by_hand"), TINY, 2, 64, 10, 128)
    products = 4 * 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352)
    assert padded - packed == 58 * (products + 6 * adapter_parameters(TINY, LORA))
    trl = run_operations(preset("trl"), TINY, 2, 64, 10, 70)
    assert trl == run_operations(preset("trl"), TINY, 2, 64, 10, 128)  # it pads


def test_what_is_below_the_adapters_runs_forward_only() -> None:
    upper = replace(preset("by_hand"), lora=replace(LORA, layers_to_transform=(2, 3)))
    bare = replace(TINY, vocab_size=1)
    whole, half = (run_operations(one, bare, 1, 64, 0) for one in (preset("by_hand"), upper))
    products, scores = (forward_flops(bare, 64) - 2 * 64 * 128), 4 * 4 * 128 * 64 * 64
    blocks = products - scores
    assert whole - 6 * adapter_parameters(bare, LORA) * 64 == 2 * blocks + 3 * scores
    assert half - 6 * adapter_parameters(bare, upper.lora) * 64 == 1.5 * blocks + 2 * scores


def test_recomputing_adds_a_forward_pass() -> None:
    on_cpu = preset("trl")
    card = replace(on_cpu, device="cuda")
    more = run_operations(card, TINY, 2, 64, 128) - run_operations(on_cpu, TINY, 2, 64, 128)
    head = 2 * 64 * 128 * 128  # not again: the loss is outside of the blocks
    assert more == 2 * forward_flops(TINY, 64) - head


def test_4_bit_weights_are_unpacked_on_each_way() -> None:
    matrices = 4 * (2 * 128 * 128 + 2 * 128 * 64 + 3 * 128 * 352)
    assert unpacked_weights(preset("trl"), TINY) == 0
    four = preset("trl", quantization="nf4")
    assert unpacked_weights(four, TINY) == 2 * matrices
    assert unpacked_weights(replace(four, device="cuda"), TINY) == 3 * matrices
    upper = replace(four, lora=replace(LORA, layers_to_transform=(3,)))
    assert unpacked_weights(upper, TINY) == 1.25 * matrices


def test_the_published_shapes_are_planned() -> None:
    """GB that stay in mind: a 1B model on a T4, a 7B model on 24 GB."""
    small = run_memory(T4, PUBLISHED_SHAPES["Llama-3.2-1B"], MicroBatch(8, 1024, 8192, 4096))
    large = run_memory(A100, PUBLISHED_SHAPES["Qwen2.5-7B"], MicroBatch(4, 2048, 8192, 4096))
    assert 3 < small.growth / 1e9 < 5 and 9 < large.growth / 1e9 < 13
    assert math.isclose(small.weights, 1.03e9, rel_tol=0.01)
