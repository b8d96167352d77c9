"""posttrain.sft.exercises.lora_init: right answers, every named wrong one, and odd pairs.

The wrong answers are written here as a reader would write them, not as the graders have them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.exercises.lora_init import LORA_INIT, grade_lora_init, pairs_of


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def right(n: int, m: int, r: int, seed: int) -> tuple[Tensor, Tensor]:
    return normal(r, n, seed=seed) / r**0.5, torch.zeros(m, r)


def global_seed(n: int, m: int, r: int, seed: int) -> list[nn.Parameter]:
    torch.manual_seed(seed)
    return [
        nn.Parameter(torch.empty(r, n).uniform_(-0.1, 0.1)),
        nn.Parameter(torch.zeros(m, r)),
    ]


def by_package(n: int, m: int, r: int, seed: int) -> tuple[Tensor, Tensor]:
    model = nn.Sequential(nn.Linear(n, m))
    inject_lora(model, LoRAConfig(r=r, target_modules=("0",)), seed=seed)
    layer = model[0]
    assert isinstance(layer, LoRALinear)
    return layer.lora_A, layer.lora_B


def one_short(n: int, m: int, r: int, seed: int) -> tuple[Tensor, Tensor]:
    A, B = right(n, m, r, seed)
    B[-1, -1] = torch.inf
    return A, B


def changed(change: Callable[[Tensor, Tensor], Any]) -> Callable[..., Any]:
    return lambda *arguments: change(*right(*arguments))


WRONG = [
    (changed(lambda A, B: (B, A)), "You returned B first"),
    (changed(lambda A, B: (A.T, B.T)), "Both matrices are transposed"),
    (
        lambda n, m, r, seed: right(m, n, r, seed),
        "You swapped `in_features` and `out_features`",
    ),
    (one_short, "Your matrices hold NaN or infinity"),
    (changed(lambda A, B: (0 * A, B)), "A and B are both zero, and will stay zero"),
    (changed(lambda A, B: (A, torch.randn_like(B))), "A and B are both random"),
    (changed(lambda A, B: (0 * A, torch.randn_like(B))), "A is zero and B is random. Here too"),
    (changed(lambda A, B: (torch.ones_like(A), B)), "Some rows of A are equal"),
    (changed(lambda A, B: (A.abs(), B)), "No number of A is negative"),
    (changed(lambda A, B: (torch.randn_like(A), B)), "Two calls with the same seed gave two"),
    (lambda n, m, r, seed: right(n, m, r, 42), "Two different seeds gave the same A"),
]


@pytest.mark.parametrize("function", [right, global_seed, by_package])
def test_right_initial_values(function: Any) -> None:
    result = grade_lora_init(function)
    assert result.passed and result.message == "Your function is right on all 5 inputs."


def test_wrong_initial_values_are_named() -> None:
    told = []
    for function, sentence in WRONG:
        result = grade_lora_init(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == set(LORA_INIT.values())


def test_each_reason_is_true() -> None:
    """What the sentences say about gradients, seen on a layer."""
    torch.manual_seed(0)
    x, goal = torch.randn(16, 6), torch.randn(16, 5)

    def trained(A: Tensor, B: Tensor) -> LoRALinear:
        torch.manual_seed(1)
        layer = LoRALinear(nn.Linear(6, 5), LoRAConfig(r=3))
        layer.lora_A.data, layer.lora_B.data = A, B
        optimizer = torch.optim.AdamW([layer.lora_A, layer.lora_B], lr=0.01)
        for _ in range(5):
            optimizer.zero_grad()
            (layer(x) - goal).square().mean().backward()
            optimizer.step()
        return layer

    def rank(layer: LoRALinear) -> int:
        return int(torch.linalg.matrix_rank(layer.lora_B @ layer.lora_A))

    zeros = trained(torch.zeros(3, 6), torch.zeros(5, 3))
    assert not zeros.lora_A.any() and not zeros.lora_B.any()
    assert rank(trained(torch.ones(3, 6), torch.zeros(5, 3))) == 1
    assert rank(trained(torch.randn(3, 6), torch.zeros(5, 3))) == 3
    assert rank(trained(torch.zeros(3, 6), torch.randn(5, 3))) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda A, B: A, "Your function returned `Tensor` where a pair is expected: (A, B)."),
        (lambda A, B: (A, B, A), "Your function returned `tuple` of length 3 where a pair"),
        (lambda A, B: None, "Your function returned `None`: does it end with `return`?"),
        (lambda A, B: (A.tolist(), B), "A is `list` where `torch.Tensor` is expected."),
        (lambda A, B: (A, None), "B is `NoneType` where `torch.Tensor` is expected."),
        (lambda A, B: (A, B.long()), "B is `torch.int64` where `torch.float32` is expected."),
        (lambda A, B: (A[:1], B), "A has shape (1, 6) where (r, in) = (3, 6) is expected."),
        (lambda A, B: (A, B[0]), "B has shape (3,) where (out, r) = (10, 3) is expected."),
        (lambda A, B: A @ B, "Your function raised `RuntimeError: mat1 and mat2 shapes cannot"),
    ],
)
def test_odd_pairs(change: Any, message: str) -> None:
    result = grade_lora_init(changed(change))
    assert not result.passed and result.message.startswith(message), result.message


def test_an_error_names_the_call() -> None:
    result = grade_lora_init(lambda n, m, r, seed: 1 / seed)
    assert "`ZeroDivisionError: " in result.message
    assert result.message.endswith("for in_features = 6, out_features = 10, r = 3, seed = 0.")
    few = grade_lora_init(lambda n, m, r: None)
    assert (
        few.message
        == "Your function must take 4 arguments: in_features, out_features, r, seed."
    )


def test_the_readers_random_numbers_are_left_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert grade_lora_init(global_seed).passed
    assert torch.equal(torch.get_rng_state(), before)


def test_pairs_of_returns_what_was_returned() -> None:
    def reference(count: int) -> tuple[int, int]:
        return count, count

    assert pairs_of(lambda n: (n, "x"), reference, [(1,), (2,)], ("a", "b")) == [
        (1, "x"),
        (2, "x"),
    ]
