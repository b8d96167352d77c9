"""posttrain.sft.training.memory: formulas against counted tensors, and by hand."""

from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from posttrain.pretraining.model.accounting import training_memory
from posttrain.pretraining.model.gpt import GPT, GPTConfig, next_token_loss
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training.memory import (
    NF4_BITS,
    PUBLISHED_SHAPES,
    finetune_memory,
    kept_for_backward,
    kept_per_token,
    measured_training_bytes,
)

TINY = GPTConfig(vocab_size=64, num_key_value_heads=2)  # 4 blocks of width 128
SIZE = {"batch_size": 4, "T": 64}
IDS = torch.zeros(4, 64, dtype=torch.long)
ATTENTION = ("q_proj", "v_proj")
Method = Literal["full", "lora", "qlora"]


def model_for(
    method: Method, lora: LoRAConfig | None, dtype: torch.dtype, config: GPTConfig = TINY
) -> GPT:
    torch.manual_seed(0)
    model = GPT(config).to(dtype)
    if method == "qlora":
        quantize_model(model)
    if lora is not None:
        inject_lora(model, lora)
    return model


def loss_of(model: GPT, autocast: bool = False) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        return next_token_loss(model(IDS), IDS)


# --- weights, gradients, moments ---


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("method", "lora"),
    [("full", None), ("lora", LoRAConfig(r=4)), ("lora", LoRAConfig(use_dora=True)),
     ("qlora", LoRAConfig(r=2, target_modules=ATTENTION))],
)  # fmt: skip
def test_bytes_are_those_of_the_tensors(
    method: Method, lora: LoRAConfig | None, dtype: torch.dtype
) -> None:
    model = model_for(method, lora, dtype)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    loss_of(model).backward()
    optimizer.step()
    measured = measured_training_bytes(model, optimizer)
    predicted = finetune_memory(
        TINY, method, lora, **SIZE, weight_bytes=dtype.itemsize, activation_bytes=dtype.itemsize
    )
    assert predicted.adapter == measured.adapter
    assert predicted.gradients == measured.gradients
    assert predicted.optimizer == measured.optimizer - 4 * len(trained)  # its counts of steps
    # in 4 bits, one float32 a layer holds the mean of the scales
    means = 4 * 7 * 4 if method == "qlora" else 0
    assert abs(measured.weights - predicted.weights - means) <= 28  # a last block is shorter
    assert measured.activations == measured.logits == 0


def test_by_hand() -> None:
    config = GPTConfig(
        vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1,
    )  # fmt: skip
    matrices, rest = 2 * (16 + 8 + 8 + 16 + 72), 40 + 20  # embedding and norms
    lora = LoRAConfig(r=3, target_modules=("q_proj", "up_proj"))
    adapter = 2 * 3 * ((4 + 4) + (4 + 6))
    full = finetune_memory(config, "full", batch_size=2, T=5)
    assert full.weights == full.gradients == 4 * (matrices + rest)
    assert full.optimizer == 8 * (matrices + rest) and full.adapter == 0
    low = finetune_memory(config, "lora", lora, batch_size=2, T=5, weight_bytes=2,
                          activation_bytes=2, trained_tokens=3)  # fmt: skip
    assert low.weights == 2 * (matrices + rest)
    assert low.adapter == low.gradients == 4 * adapter and low.optimizer == 8 * adapter
    assert low.logits == 3 * 10 * 8
    passing = 2 * 4 * 4 + 2 * ((2 + 2) * 2 + 2 * 5 + 3 * 6)
    extra = 2 * (4 + 4 + 3 + 3)  # the inputs of q and of up, and r for each
    assert kept_per_token(config, lora, 5, weight_bytes=2, activation_bytes=2) == (
        passing,
        extra,
    )
    assert low.activations == 2 * 5 * 2 * (passing + extra) + 2 * adapter  # and A, B in 16 bits
    cast = finetune_memory(config, "lora", lora, batch_size=2, T=5, activation_bytes=2)
    head = 40  # the frozen weights that products read are kept in 16 bits as well
    assert cast.activations == low.activations + 2 * (matrices + head)
    four = finetune_memory(config, "qlora", lora, batch_size=2, T=5, weight_bytes=2,
                           activation_bytes=2)  # fmt: skip
    assert four.weights == round(matrices * NF4_BITS / 8) + 2 * rest
    assert four.total == sum(
        (four.weights, four.adapter, four.gradients, four.optimizer, four.activations,
         four.logits)
    )  # fmt: skip


def test_published_sizes() -> None:
    assert NF4_BITS == pytest.approx(4 + 8 / 64 + 32 / (64 * 256))
    smol = PUBLISHED_SHAPES["SmolLM2-135M"]
    kwargs: dict[str, Any] = {"batch_size": 1, "T": 1, "weight_bytes": 2, "activation_bytes": 2}
    four = finetune_memory(smol, "qlora", LoRAConfig(), **kwargs)
    assert four.weights == pytest.approx(111.4e6, rel=1e-3)
    large = PUBLISHED_SHAPES["Llama-3.1-70B"]
    assert finetune_memory(large, "full", batch_size=1, T=1).optimizer == 8 * 70_553_706_496
    assert finetune_memory(large, "lora", LoRAConfig(), **kwargs).weights == 2 * 70_553_706_496


# --- activations ---

MODES = {"fp32": (torch.float32, False), "bf16": (torch.bfloat16, False),
         "autocast": (torch.float32, True)}  # fmt: skip
ADAPTERS = {
    "all": (LoRAConfig(), 0.02),
    "q, v": (LoRAConfig(target_modules=ATTENTION), 0.02),
    "mlp": (LoRAConfig(target_modules=("gate_proj", "up_proj", "down_proj")), 0.05),
    "dora": (LoRAConfig(use_dora=True), 0.02),
    "dropout": (LoRAConfig(lora_dropout=0.1), 0.05),
    "upper blocks": (LoRAConfig(layers_to_transform=(2, 3)), 0.02),
    "one block": (LoRAConfig(layers_to_transform=(1,)), 0.02),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ADAPTERS)
def test_activations_of_an_adapter_are_predicted(name: str, mode: str) -> None:
    (lora, tolerance), (dtype, autocast) = ADAPTERS[name], MODES[mode]
    # The lowest block keeps no scores where only its MLP has adapters: one of twelve.
    config = replace(TINY, num_hidden_layers=12) if name == "mlp" else TINY
    model = model_for("lora", lora, dtype, config)
    kept = kept_for_backward(lambda: loss_of(model, autocast), model)
    predicted = finetune_memory(
        config, "lora", lora, **SIZE, weight_bytes=dtype.itemsize,
        activation_bytes=4 if mode == "fp32" else 2,
    )  # fmt: skip
    # The gradient of the log-probabilities is there only once the backward pass has begun.
    assert predicted.activations + predicted.logits // 2 == pytest.approx(kept, rel=tolerance)


def test_4_bits_keep_no_dense_weight() -> None:
    lora = LoRAConfig()
    model = model_for("qlora", lora, torch.float32)
    kept = kept_for_backward(lambda: loss_of(model), model)
    predicted = finetune_memory(TINY, "qlora", lora, **SIZE)
    assert predicted.activations + predicted.logits // 2 == pytest.approx(kept, rel=0.02)


@pytest.mark.parametrize("bytes_each", [4, 2])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_full_training_is_what_stage_0_says(kind: str, bytes_each: int) -> None:
    config = TINY
    if kind == "gpt2":
        config = replace(TINY, norm="layernorm", position="learned", mlp="gelu")
    before = training_memory(config, 4, 64, bytes_each)
    now = finetune_memory(config, "full", **SIZE, activation_bytes=bytes_each)
    assert now.activations + now.logits == before.activations
    assert now.total == before.total


def test_full_training_in_bfloat16_alone() -> None:
    model = model_for("full", None, torch.bfloat16)
    kept = kept_for_backward(lambda: loss_of(model), model)
    predicted = finetune_memory(TINY, "full", **SIZE, weight_bytes=2, activation_bytes=2)
    # What the last norm and the head keep is left out: a quarter of what a block's norms do.
    assert predicted.activations + predicted.logits // 2 == pytest.approx(kept, rel=0.06)


class Recomputed(nn.Module):
    """A block that keeps its input only."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, *inputs: object) -> object:
        return checkpoint(self.block, *inputs, use_reentrant=True)


def test_checkpointing_keeps_the_input_of_each_block_and_one_block() -> None:
    lora = LoRAConfig()
    model = model_for("lora", lora, torch.float32)
    model.embed_tokens.register_forward_hook(lambda *call: call[-1].requires_grad_())
    model.layers = nn.ModuleList(Recomputed(block) for block in model.layers)
    kept = kept_for_backward(lambda: loss_of(model), model)
    predicted = finetune_memory(TINY, "lora", lora, **SIZE, gradient_checkpointing=True)
    block = 4 * 64 * sum(kept_per_token(TINY, lora, 64))
    last_norm = 4 * 64 * 128 * 4
    assert predicted.activations - block + last_norm + predicted.logits // 2 == pytest.approx(
        kept, rel=0.02
    )
    plain = finetune_memory(TINY, "lora", lora, **SIZE)
    assert predicted.activations < plain.activations / 2


def test_a_fused_kernel_keeps_no_attention_weights() -> None:
    plain = finetune_memory(TINY, "full", **SIZE)
    fused = finetune_memory(TINY, "full", **SIZE, fused_attention=True)
    weights = 4 * 4 * 4 * 64 * 64 * 4  # blocks, sequences, heads, T, T, bytes
    assert plain.activations - fused.activations == weights


def test_kept_for_backward_by_hand() -> None:
    layer, x = nn.Linear(8, 8), torch.randn(5, 8, requires_grad=True)
    assert kept_for_backward(lambda: layer(x).exp(), layer) == 2 * 5 * 8 * 4  # x, the result
    frozen = layer.requires_grad_(False)
    assert kept_for_backward(lambda: frozen(x), layer) == 0


# --- bad input ---


@pytest.mark.parametrize(
    ("method", "given", "sentence"),
    [
        ("dora", {}, "method is 'dora': choose 'full', 'lora' or 'qlora'"),
        ("full", {"lora": LoRAConfig()}, "method 'full' with lora=LoRAConfig.*has no adapter"),
        ("qlora", {}, "method 'qlora' with lora=None: .*the others need one"),
        ("full", {"weight_bytes": 1}, r"are \(1, 4\): give 4 and 4, 4 and 2, or 2 and 2"),
        ("full", {"weight_bytes": 2}, r"weight_bytes and activation_bytes are \(2, 4\)"),
        ("full", {"T": 0}, "T is 0: give a whole number from 1 up"),
        ("full", {"T": -2}, "T is -2: give a whole number from 1 up"),
        ("full", {"T": 64.0}, "T is 64.0: give a whole number"),
        ("full", {"batch_size": 0}, "batch_size is 0: give a whole number from 1 up"),
        ("full", {"batch_size": -2}, "batch_size is -2: give a whole number from 1 up"),
        ("full", {"batch_size": -2, "T": -64}, "batch_size is -2: give"),  # a product above 0
        ("full", {"batch_size": True}, "batch_size is True: give a whole number"),
        ("full", {"batch_size": "4"}, "batch_size is '4': give a whole number"),
        ("full", {"trained_tokens": 257}, "trained_tokens is 257 and batch_size x T = 256"),
        ("full", {"trained_tokens": -1}, "trained_tokens is -1: give a whole number from 0"),
    ],
)
def test_what_cannot_be_is_refused(
    method: Method, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        finetune_memory(TINY, method, **{**SIZE, **given})


# --- which card holds what, as chapter sft/qlora says ---


def on_a_card(name: str, method: Method, batch_size: int = 2, T: int = 2048) -> float:
    """GB of a step: full training in float32, LoRA and QLoRA on 16-bit weights."""
    lora, weight_bytes = (None, 4) if method == "full" else (LoRAConfig(r=16), 2)
    return finetune_memory(
        PUBLISHED_SHAPES[name], method, lora, batch_size=batch_size, T=T,
        weight_bytes=weight_bytes, activation_bytes=2, gradient_checkpointing=True,
        fused_attention=True,
    ).total / 1e9  # fmt: skip


def test_a_7b_model_needs_24_gb_in_16_bits_and_16_in_4() -> None:
    assert on_a_card("Qwen2.5-7B", "qlora") < 16 < on_a_card("Qwen2.5-7B", "lora") < 24
    assert on_a_card("Qwen2.5-7B", "lora", 1, 64) > 16  # not even a row of 64 tokens


def test_a_70b_model_fits_80_gb_in_4_bits_only() -> None:
    sizes = [on_a_card("Llama-3.1-70B", method) for method in ("qlora", "lora")]
    assert sizes[0] < 80 < sizes[1]


def test_what_one_token_keeps_needs_a_token() -> None:
    with pytest.raises(ValueError, match="T is -1: give a whole number from 1 up"):
        kept_per_token(TINY, None, -1)
    with pytest.raises(ValueError, match=r"weight_bytes and activation_bytes are \(2, 4\)"):
        kept_per_token(TINY, None, 8, weight_bytes=2)
