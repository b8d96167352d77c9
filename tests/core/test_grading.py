"""posttrain.core.grading: grades, the sentences for what no list of mistakes holds."""

import math

import numpy as np
import pytest
import torch

from posttrain.core.grading import Grade, Mistake, difference, grade, random_numbers
from posttrain.pretraining.model.config import GPTConfig

CASES = [(torch.arange(6.0).reshape(2, 3), 2), (torch.ones(1, 3), 5)]
MISTAKES = [
    Mistake("You added.", lambda x, n: x + n),
    Mistake("You subtracted.", lambda x, n: x - n),
]


def times(x: torch.Tensor, n: int) -> torch.Tensor:
    return x * n


def graded(function: object) -> Grade:
    return grade(function, times, MISTAKES, CASES)  # type: ignore[arg-type]


def test_a_grade_shows_itself() -> None:
    right, wrong = Grade(True, "All is well."), Grade(False, "You added.")
    assert repr(right) == "✓ Right. All is well." and repr(wrong) == "✗ Not yet. You added."
    assert right._repr_markdown_() == "✓ **Right.** All is well."
    assert wrong._repr_markdown_() == "✗ **Not yet.** You added."


def test_the_right_answer() -> None:
    assert graded(lambda x, n: n * x) == Grade(True, "Your function is right on all 2 inputs.")
    assert graded(torch.mul).passed  # tells nothing of its parameters


def test_rounding_is_no_mistake() -> None:
    assert graded(lambda x, n: (x.double() * n * (1 + 1e-6)).float()).passed


def test_known_mistakes_are_named() -> None:
    assert graded(lambda x, n: n + x).message == "You added."
    assert graded(lambda x, n: -(n - x)).message == "You subtracted."


def test_a_mistake_must_agree_on_every_input() -> None:
    result = graded(lambda x, n: x + n if n == 2 else x - n)
    assert not result.passed and "You" not in result.message.split()[0]
    assert result.message == (
        "At index [0, 0] your output is 2 where 0 is expected; 5 of 6 values differ. "
        "This is for x of shape (2, 3), n = 2."
    )


def test_right_on_the_first_input_only() -> None:
    result = graded(lambda x, n: x * 2)
    assert result.message == (
        "At index [0, 0] your output is 2 where 5 is expected; 3 of 3 values differ. "
        "This is for x of shape (1, 3), n = 5."
    )


def test_arguments_that_the_function_changes_are_its_own() -> None:
    def in_place(x: torch.Tensor, n: int) -> torch.Tensor:
        return x.mul_(n)

    before = CASES[0][0].clone()
    assert graded(in_place).passed and graded(in_place).passed
    assert torch.equal(CASES[0][0], before)


def raises(x: torch.Tensor, n: int) -> torch.Tensor:
    raise ValueError("a `name`\nover two lines")


def raises_without_a_word(x: torch.Tensor, n: int) -> torch.Tensor:
    raise AssertionError


def unfinished(x: torch.Tensor, n: int) -> torch.Tensor:
    raise NotImplementedError


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (raises, "Your function raised `ValueError: a 'name' over two lines` for x of shape "
         "(2, 3), n = 2."),
        (raises_without_a_word, "Your function raised `AssertionError` for x of shape (2, 3)"),
        (unfinished, "Your function is still empty: it raises `NotImplementedError`."),
        (lambda x, n: None, "Your function returned `None`: does it end with `return`?"),
        (lambda x, n: [1.0], "Your function returned `list` where `torch.Tensor` is expected."),
        (lambda x, n: (x, n), "Your function returned `tuple` where `torch.Tensor`"),
        (lambda x, n: x.T, "Your output has shape (3, 2) where (2, 3) is expected."),
        (lambda x, n: (x * n).long(), "Your output is `torch.int64` where `torch.float32` is"),
        (lambda x, n: (x * n).bool(), "Your output is `torch.bool` where `torch.float32` is"),
        (lambda x, n: x * n + 0 / (x - 3), "At index [1, 0] your output is NaN: look for 0 "),
        (lambda x: x, "Your function must take 2 arguments: x, n."),
        (lambda x, n, m: x, "Your function must take 2 arguments: x, n."),
        (7, "You handed over `int`: hand over the function itself, without calling it."),
        (times(*CASES[0]), "You handed over `Tensor`: hand over the function itself"),
    ],
)  # fmt: skip
def test_junk_gets_a_sentence(function: object, message: str) -> None:
    result = graded(function)
    assert not result.passed and result.message.startswith(message)


def test_only_the_users_interrupt_ends_a_grader() -> None:
    def interrupted(x: torch.Tensor, n: int) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        graded(interrupted)


@pytest.mark.parametrize(
    ("got", "expected", "message"),
    [
        (5, 5, None),
        (np.int64(5), 5, None),
        (torch.tensor(5), 5, None),
        (1205, 5, "Your function returned 1,205 where 5 is expected: 1,200 too many."),
        (3, 5, "Your function returned 3 where 5 is expected: 2 too few."),
        (5.0, 5, "Your function returned `float` where `int` is expected."),
        (True, 1, "Your function returned `bool` where `int` is expected."),
        (0.5, 0.5, None),
        (np.float32(0.1), 0.1, None),
        (torch.tensor([0.1]), 0.1, None),
        (1, 1.0, None),
        (math.nan, math.nan, None),
        (math.inf, math.inf, None),
        (math.nan, 0.5, "Your function returned nan where 0.5 is expected."),
        (0.5, math.nan, "Your function returned 0.5 where nan is expected."),
        (0.25, 0.5, "Your function returned 0.25 where 0.5 is expected."),
        ("0.5", 0.5, "Your function returned `str` where `float` is expected."),
        (torch.ones(2), 0.5, "Your function returned `Tensor` where `float` is expected."),
        (torch.tensor(2.0), torch.tensor(3.0), "Your output is 2 where 3 is expected."),
        (torch.tensor(math.nan), torch.tensor(3.0), "Your output is NaN: look for 0 / 0"),
        (0.5, torch.tensor(0.5), "Your function returned `float` where `torch.Tensor` is"),
        (torch.tensor([-math.inf, 1]), torch.tensor([-math.inf, 1]), None),
        (torch.tensor([math.nan, 1]), torch.tensor([math.nan, 1]), None),
        (torch.tensor([-math.inf, 1]), torch.tensor([0.0, 1]),
         "At index [0] your output is -inf where 0 is expected; 1 of 2 values differ."),
    ],
)  # fmt: skip
def test_differences(got: object, expected: object, message: str | None) -> None:
    found = difference(got, expected)
    assert found is None if message is None else (found or "").startswith(message)


def test_a_tensor_that_requires_a_gradient_is_compared() -> None:
    assert difference(torch.ones(2, requires_grad=True) * 2, torch.full((2,), 2.0)) is None


def test_a_dataclass_is_described_by_what_was_chosen() -> None:
    result = grade(lambda config: 0, lambda config: 1, [], [(GPTConfig(7, head_dim=6),)])
    assert result.message.endswith("This is for `GPTConfig(vocab_size=7, head_dim=6)`.")


def test_random_numbers_leave_the_readers_generator_alone() -> None:
    before = torch.get_rng_state()
    assert torch.equal(random_numbers(2, 3, seed=1), random_numbers(2, 3, seed=1))
    assert not torch.equal(random_numbers(2, 3, seed=1), random_numbers(2, 3, seed=2))
    assert torch.equal(torch.get_rng_state(), before)
