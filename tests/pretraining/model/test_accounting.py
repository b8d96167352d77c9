"""pretraining.model.accounting: formulas against real models and counted operations."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from posttrain.pretraining.model.accounting import (
    forward_flops,
    parameter_count,
    training_flops,
    training_memory,
)
from posttrain.pretraining.model.gpt import GPT, GPTConfig, next_token_loss

SHAPES = {
    "default": GPTConfig(vocab_size=64),
    "grouped": GPTConfig(vocab_size=64, num_key_value_heads=1),
    "untied": GPTConfig(vocab_size=64, tie_word_embeddings=False),
    "wide heads": GPTConfig(vocab_size=64, num_key_value_heads=2, head_dim=48),
    "gpt2": GPTConfig(vocab_size=64, norm="layernorm", position="learned", mlp="gelu"),
}


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
def test_parameters_equal_the_models(config: GPTConfig) -> None:
    model, count = GPT(config), parameter_count(config)
    assert count.total == sum(p.numel() for p in model.parameters())

    def held(*names: str) -> int:
        return sum(p.numel() for n, p in model.named_parameters() if any(x in n for x in names))

    assert count.attention == held("self_attn")
    assert count.feed_forward == held("mlp")
    assert count.norms == held("norm")
    assert count.embedding == held("embed_")
    assert count.head == held("lm_head")


def test_parameters_by_hand() -> None:
    count = parameter_count(
        GPTConfig(vocab_size=10, hidden_size=4, intermediate_size=6, num_hidden_layers=2,
                  num_attention_heads=2, num_key_value_heads=1)
    )  # fmt: skip
    assert count.embedding == 40  # 10 x 4
    assert count.attention == 2 * (16 + 8 + 8 + 16)  # q, k, v, o
    assert count.feed_forward == 2 * 3 * 24
    assert count.norms == 5 * 4 and count.head == 0
    assert count.total == 40 + 96 + 144 + 20


@pytest.mark.parametrize("config", SHAPES.values(), ids=SHAPES.keys())
@pytest.mark.parametrize("T", [1, 7, 64])
def test_operations_equal_the_counted_ones(config: GPTConfig, T: int) -> None:
    model, ids = GPT(config), torch.zeros(1, T, dtype=torch.long)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    assert forward_flops(config, T) == counter.get_total_flops()


def test_a_training_step_costs_three_forward_passes() -> None:
    config = SHAPES["grouped"]
    model, ids = GPT(config), torch.zeros(1, 16, dtype=torch.long)
    with FlopCounterMode(display=False) as counter:
        next_token_loss(model(ids), ids).backward()
    assert training_flops(config, 16) == counter.get_total_flops()


def test_adamw_keeps_two_numbers_and_training_holds_four() -> None:
    config = SHAPES["grouped"]
    model, ids = GPT(config), torch.zeros(2, 8, dtype=torch.long)
    next_token_loss(model(ids), ids).backward()
    optimizer = torch.optim.AdamW(model.parameters())
    optimizer.step()
    kept = sum(
        value.nbytes
        for state in optimizer.state.values()
        for name, value in state.items()
        if name != "step"  # one counter for each tensor
    )
    weights = sum(p.nbytes for p in model.parameters())
    predicted = training_memory(config, batch_size=2, T=8)
    assert predicted.optimizer == kept == 2 * weights
    assert predicted.weights + predicted.gradients + predicted.optimizer == 4 * weights


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("T", [32, 128])
@pytest.mark.parametrize("name", ["default", "grouped", "gpt2"])
def test_memory_of_a_step_is_predicted(name: str, T: int, bf16: bool) -> None:
    config, kept = SHAPES[name], {}
    model, ids = GPT(config), torch.zeros(4, T, dtype=torch.long)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logits = model(ids)
        loss = next_token_loss(logits, ids)
    held = sum(size for pointer, size in kept.items() if pointer not in weights)
    predicted = training_memory(config, batch_size=4, T=T, bytes_each=2 if bf16 else 4)
    # The formula leaves out the small things: angles, roots of the norms, the final norm.
    assert predicted.activations == pytest.approx(held, rel=0.05)
    loss.backward()
    gradients = sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    assert predicted.gradients == predicted.weights == gradients
    assert predicted.optimizer == 2 * gradients
    assert predicted.total == 4 * gradients + predicted.activations


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": -2, "T": -8}, "batch_size is -2: give a whole number from 1 up"),
        ({"batch_size": 0}, "batch_size is 0: give"),
        ({"T": 0}, "T is 0: give"),
        ({"T": 8.0}, "T is 8.0: give a whole number"),
        ({"bytes_each": -4}, "bytes_each is -4: give 4 or 2"),
    ],
)
def test_a_step_needs_sequences_and_tokens(given: dict[str, Any], sentence: str) -> None:
    config = GPTConfig(vocab_size=8, hidden_size=8, num_attention_heads=2)
    with pytest.raises(ValueError, match=sentence):
        training_memory(config, **{"batch_size": 2, "T": 8, **given})


@pytest.mark.parametrize("count", [forward_flops, training_flops])
def test_operations_need_tokens(count: Callable[[GPTConfig, int], int]) -> None:
    config = GPTConfig(vocab_size=8, hidden_size=8, num_attention_heads=2)
    with pytest.raises(ValueError, match="T is -1: give a whole number from 1 up"):
        count(config, -1)
