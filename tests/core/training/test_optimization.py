"""posttrain.core.training.optimization: settings, the schedule, AdamW and its groups."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from torch import nn

from posttrain.core.training.optimization import (
    TrainingConfig,
    build_optimizer,
    learning_rate_at,
)

CONFIG = TrainingConfig(max_steps=12, learning_rate=0.1, warmup_steps=4, min_lr_ratio=0.1)

# --- settings ---


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("max_steps", 0, "give a whole number from 1 up"),
        ("max_steps", 1.5, "give a whole number from 1 up"),
        ("max_steps", "10", "give a whole number from 1 up"),
        ("max_steps", True, "give a whole number from 1 up"),
        ("learning_rate", True, "give a number above 0"),
        ("bf16", "yes", "give True, False or None"),
        ("warmup_steps", -1, "give a whole number from 0 up"),
        ("warmup_steps", 13, r"give 0 to max_steps \(12\)"),
        ("gradient_accumulation_steps", 0, "give a whole number from 1 up"),
        ("eval_steps", -5, "give a whole number from 0 up"),
        ("save_steps", -5, "give a whole number from 0 up"),
        ("seed", -1, "give a whole number from 0 up"),
        ("seed", 2**32, "NumPy takes 0 to 4294967295"),
        ("learning_rate", 0.0, "give a number above 0"),
        ("learning_rate", math.nan, "give a number above 0"),
        ("learning_rate", math.inf, "give a number above 0"),
        ("learning_rate", "1e-3", "give a number above 0"),
        ("min_lr_ratio", 1.1, "give a number from 0 to 1"),
        ("weight_decay", -0.1, "give a number from 0 up"),
        ("adam_beta1", 1.0, "give a number from 0 to below 1"),
        ("adam_beta2", -0.1, "give a number from 0 to below 1"),
        ("adam_epsilon", 0.0, "give a number above 0"),
        ("max_grad_norm", -1.0, "give a number from 0 up"),  # would turn the gradient around
        ("explosion_ratio", -1.0, "give a number from 0 up"),
        ("lr_scheduler_type", "linear", "give 'cosine' or 'constant'"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(name: str, value: object, accepted: str):
    with pytest.raises(
        ValueError, match=f"^{name} is .*: {accepted}$|^{name} is .*{accepted}$"
    ):
        replace(CONFIG, **{name: value})


def test_numpy_numbers_become_plain_ones():
    """Sweeps over ``np.logspace`` give them, and a checkpoint could not be read back."""
    config = TrainingConfig(
        max_steps=np.int64(5), learning_rate=np.float64(0.1), seed=np.int32(3)
    )
    assert {type(value) for value in asdict(config).values()} <= {int, float, str, type(None)}
    assert config == TrainingConfig(max_steps=5, learning_rate=0.1, seed=3)


@pytest.mark.parametrize("preferred", [torch.bfloat16, torch.float32])
def test_bf16_is_the_machines_choice_unless_set(monkeypatch: pytest.MonkeyPatch, preferred):
    monkeypatch.setattr(
        "posttrain.core.training.optimization.preferred_dtype", lambda: preferred
    )
    assert CONFIG.use_bf16 is (preferred == torch.bfloat16)
    assert replace(CONFIG, bf16=True).use_bf16 is True
    assert replace(CONFIG, bf16=False).use_bf16 is False


# --- the schedule ---


def test_the_schedule_by_hand():
    """Steps 0-3 warm up by quarters; then half a cosine over 8 steps, from 0.1 towards 0.01."""
    rates = [learning_rate_at(step, CONFIG) for step in range(12)]
    assert rates[:5] == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1])
    assert rates[6] == pytest.approx(
        0.01 + 0.09 * (1 + math.sqrt(0.5)) / 2
    )  # a quarter: cos 45
    assert rates[8] == pytest.approx(0.055)  # half way: cos 90 = 0
    assert rates[11] == pytest.approx(0.01 + 0.09 * (1 + math.cos(math.pi * 7 / 8)) / 2)
    assert learning_rate_at(12, CONFIG) == learning_rate_at(99, CONFIG) == pytest.approx(0.01)
    assert rates[3:] == sorted(rates[3:], reverse=True)


def test_the_constant_schedule_warms_up_and_stays():
    config = replace(CONFIG, lr_scheduler_type="constant")
    rates = [learning_rate_at(step, config) for step in range(12)]
    assert rates == pytest.approx([0.025, 0.05, 0.075] + [0.1] * 9)


@pytest.mark.parametrize("warmup", [0, 12])
def test_the_schedule_at_its_ends(warmup: int):
    rates = [learning_rate_at(s, replace(CONFIG, warmup_steps=warmup)) for s in range(12)]
    assert all(rate > 0 for rate in rates)
    assert max(rates) == pytest.approx(0.1)
    assert rates[11 if warmup else 0] == pytest.approx(0.1)


@pytest.mark.parity
@pytest.mark.parametrize("min_lr_ratio", [0.0, 0.1])
def test_the_schedule_is_that_of_transformers_but_one_step_ahead_in_the_warmup(min_lr_ratio):
    """Transformers divides the step by the warm-up, so its first step has a rate of 0."""
    from transformers import get_cosine_with_min_lr_schedule_with_warmup

    config = replace(CONFIG, min_lr_ratio=min_lr_ratio)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, num_warmup_steps=4, num_training_steps=12, min_lr_rate=min_lr_ratio
    )
    theirs = []
    for _ in range(13):
        theirs.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    ours = [learning_rate_at(step, config) for step in range(13)]
    assert theirs[0] == 0 and ours[0] == pytest.approx(0.1 / 4)
    assert ours[:4] == pytest.approx(theirs[1:5])
    assert ours[4:] == pytest.approx(theirs[4:])


# --- AdamW ---


class Odd(nn.Module):
    """A matrix, a bias, a norm's scale, an embedding and a frozen matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)
        self.embedding, self.frozen = nn.Embedding(5, 3), nn.Linear(2, 2, bias=False)
        self.frozen.requires_grad_(False)


def test_only_matrices_decay_and_frozen_weights_are_left_out():
    model = Odd()
    decayed, plain = build_optimizer(model, replace(CONFIG, weight_decay=0.2)).param_groups
    assert decayed["weight_decay"] == 0.2 and plain["weight_decay"] == 0
    assert {id(p) for p in decayed["params"]} == {
        id(model.linear.weight),
        id(model.embedding.weight),
    }
    assert {id(p) for p in plain["params"]} == {
        id(model.linear.bias),
        id(model.norm.weight),
        id(model.norm.bias),
    }
    assert decayed["betas"] == (0.9, 0.95) and decayed["eps"] == 1e-8


def test_tied_weights_are_optimized_once():
    model = Odd()
    model.head = nn.Linear(3, 5, bias=False)
    model.head.weight = model.embedding.weight
    held = [p for g in build_optimizer(model, CONFIG).param_groups for p in g["params"]]
    assert len(held) == len({id(p) for p in held}) == 5


def test_a_model_without_anything_to_train_is_refused():
    model = nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter of the model requires a gradient"):
        build_optimizer(model, CONFIG)


def test_three_steps_of_adamw_by_hand():
    """Loshchilov & Hutter (2019), algorithm 2, in Python's floats."""
    config = replace(CONFIG, weight_decay=0.1, adam_beta1=0.8, adam_beta2=0.9)
    model = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        model.weight.fill_(0.5)
    optimizer = build_optimizer(model, config)
    x, m, v = 0.5, 0.0, 0.0
    for t, gradient in enumerate([0.3, -0.2, 0.7], start=1):
        model.weight.grad = torch.tensor([[gradient]], dtype=torch.float64)
        optimizer.step()
        m = 0.8 * m + 0.2 * gradient
        v = 0.9 * v + 0.1 * gradient**2
        m_hat, v_hat = m / (1 - 0.8**t), v / (1 - 0.9**t)
        x = x - 0.1 * (m_hat / (math.sqrt(v_hat) + 1e-8) + 0.1 * x)
        assert model.weight.item() == pytest.approx(x, rel=1e-12)


@pytest.mark.parametrize(("beta2", "times"), [(0.99, 1.0), (0.999, 3.1623)])
def test_a_rare_gradient_moves_its_weight_by_more_than_the_rate(beta2: float, times: float):
    """Kingma and Ba, 2015, section 2.1: at most (1 - beta1) / sqrt(1 - beta2) rates."""
    assert times == pytest.approx(max(1.0, (1 - 0.9) / (1 - beta2) ** 0.5), rel=1e-4)
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    adamw = torch.optim.AdamW(
        [weight], lr=1e-3, betas=(0.9, beta2), eps=1e-12, weight_decay=0.0
    )
    for step in range(20_000):
        last = step == 19_999
        weight.grad = torch.full_like(weight, 1.0 if last else 0.0)
        before = weight.item()
        adamw.step()
    assert abs(weight.item() - before) / 1e-3 == pytest.approx(times, rel=1e-3)
