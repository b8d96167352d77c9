"""posttrain.core.training.identity: what a stored run is, and what tells two runs apart."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from posttrain.core.training.identity import (
    differences,
    frozen_digest,
    require_same,
    run_identity,
    stored_values,
    tensor_digest,
)
from posttrain.core.training.optimization import TrainingConfig

CONFIG = TrainingConfig(max_steps=1, learning_rate=0.1, bf16=False)


class Packed(nn.Module):
    """A weight in few bits, as a buffer of bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("codes", torch.arange(8, dtype=torch.uint8))


def model() -> nn.Sequential:
    """Frozen but for its second layer, with a norm whose buffers follow the training."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 2), nn.BatchNorm1d(2), Packed())
    layers[0].requires_grad_(False)
    return layers


# --- frozen weights ---


@torch.no_grad()
def change(where: str) -> nn.Module:
    other = model()
    if where == "one row":
        other[0].weight[5] += 1e-3
    elif where == "type":
        other[0].to(torch.bfloat16)
    elif where == "shape":
        other[0] = nn.Linear(64, 65).requires_grad_(False)
    elif where == "bytes":
        other[3].codes[0] = 9
    elif where == "frozen":
        other[1].requires_grad_(False)
    elif where == "name":
        other = nn.Sequential(nn.Identity(), *other)
    return other


@pytest.mark.parametrize("where", ["one row", "type", "shape", "bytes", "frozen", "name"])
def test_another_frozen_model_has_another_digest(where: str) -> None:
    assert frozen_digest(change(where)) != frozen_digest(model())


def test_training_does_not_change_the_digest() -> None:
    trained = model()
    optimizer = torch.optim.SGD(trained[:3].parameters(), lr=0.1)
    trained[:3](torch.randn(8, 64)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(trained[2].running_var, model()[2].running_var)
    assert frozen_digest(trained) == frozen_digest(model()) != frozen_digest(nn.Linear(1, 1))


def test_a_wrapper_does_not_change_the_digest() -> None:
    assert frozen_digest(torch.compile(model(), backend="eager")) == frozen_digest(model())
    assert frozen_digest(nn.DataParallel(model())) == frozen_digest(model())


def test_large_and_odd_weights_are_sampled() -> None:
    large = nn.Linear(300, 301).requires_grad_(False)
    before = frozen_digest(large)
    with torch.no_grad():
        large.weight.mul_(1.0001)  # nearly every number moves
    assert frozen_digest(large) != before
    odd = nn.Module()
    odd.scalar = nn.Parameter(torch.tensor(1.0), requires_grad=False)
    odd.empty = nn.Parameter(torch.zeros(0, 3), requires_grad=False)
    odd.turned = nn.Parameter(torch.arange(6.0).view(2, 3).T, requires_grad=False)
    assert len(frozen_digest(odd)) == 64


# --- the rest ---


@dataclass
class Adapter:
    r: int
    targets: tuple[str, ...]


def test_an_identity_is_plain_values() -> None:
    given = {
        "adapter": Adapter(np.int64(4), ("q", "v")), "dtype": torch.bfloat16,
        "rate": np.float32(0.5), "folder": Path("a"), "flags": (True, None),
    }  # fmt: skip
    found = run_identity(model(), CONFIG, given)
    assert found["adapter"] == {"r": 4, "targets": ["q", "v"]}
    assert (found["dtype"], found["rate"], found["flags"]) == (
        "torch.bfloat16", 0.5, [True, None]
    )  # fmt: skip
    assert type(found["adapter"]["r"]) is int and type(found["rate"]) is float
    assert found["model class"] == "Sequential" and found["bf16"] is False
    assert found["frozen weights"] == frozen_digest(model())
    compiled = torch.compile(model(), backend="eager")
    assert run_identity(compiled, CONFIG, given) == found


@pytest.mark.parametrize("value", [object(), torch.ones(2), {1, 2}, b"x", Adapter])
def test_what_no_file_can_compare_is_refused(value: object) -> None:
    with pytest.raises(TypeError, match=r"^data.* cannot be part of an identity: give numbers"):
        run_identity(model(), CONFIG, {"data": [value]})


def thawed() -> nn.Module:
    other = model()
    other[2].requires_grad_(False)
    return other


def other_class() -> nn.Module:
    class Leaky(nn.Sequential):
        pass

    return Leaky(*model())


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: change("one row"), "frozen weights"),
        (thawed, "trained parameters"),
        (lambda: model().double(), "trained parameters"),
        (other_class, "model class"),
    ],
)
def test_another_model_is_noticed_without_being_told(
    make: Callable[[], nn.Module], name: str
) -> None:
    stored = run_identity(model(), CONFIG)
    assert name in differences(stored, run_identity(make(), CONFIG))
    assert differences(stored, run_identity(model(), CONFIG)) == ""


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({"a": 1, "b": 2}, {"a": 1, "b": 3}, "b differ"),
        ({"a": {"x": 1, "y": 2}}, {"a": {"x": 3, "y": 2}}, "a.x differ"),
        ({"a": 1}, {}, "a differ"),
        ({}, {"a": None}, "a differ"),  # None is a value
        ({"a": 0}, {"a": False}, ""),
        ({"a": (1, 2)}, {"a": [1, 2]}, ""),
        ({"a": float("nan")}, {"a": float("nan")}, ""),
        ({"b": 1, "a": 1}, {"b": 2, "a": 2}, "a, b differ"),
    ],
)
def test_differences_are_named(one: dict[str, Any], other: dict[str, Any], words: str) -> None:
    assert differences(one, other) == differences(other, one) == words
    assert bool(stored_values(one, other)) is bool(words)


def test_stored_values_are_shown_a_few_of_them() -> None:
    assert stored_values({"a": 1, "b": {"c": "x"}}, {"a": 2, "b": {"c": "y"}}) == "a=1, b.c='x'"
    many = {f"n{i}": i for i in range(9)}
    assert stored_values(many, {}) == "n0=0, n1=1, n2=2, …"
    assert len(stored_values({"a": "x" * 500}, {"a": 1})) < 40


def test_a_state_of_something_else_is_refused() -> None:
    require_same({"step": 4, "size": 2}, {"size": 2})
    with pytest.raises(ValueError, match=r"^size differ from what is stored: size=2$"):
        require_same({"step": 4, "size": 2}, {"size": 3})
    with pytest.raises(ValueError, match=r"^size differ from what is stored: size=None$"):
        require_same({"step": 4}, {"size": 3})


def test_a_tensors_digest_is_that_of_all_its_numbers() -> None:
    x = torch.arange(12).view(3, 4)
    assert tensor_digest(x) == tensor_digest(x.clone()) == tensor_digest(x.T.contiguous().T)
    other = x.clone()
    other[2, 1] += 1
    assert len({tensor_digest(t) for t in (x, other, x.T, x.int(), x.view(4, 3), x[:0])}) == 6
