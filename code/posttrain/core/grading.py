"""Exercises that grade themselves: run the reader's function, and name the mistake it holds.

A grader knows the right answer and a list of wrong ones, each with a sentence. The reader's
function runs on several inputs. Where its outputs are those of a known wrong answer on every
input, that answer's sentence is the grade; else the grade says where the outputs differ.

Chapter: start/how_this_book_works.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True, repr=False)
class Grade:
    """The result of an exercise; a notebook shows it as a line of text.

    Attributes:
        passed: Whether the function is right.
        message: What is wrong with it, or on how many inputs it was right.
    """

    passed: bool
    message: str

    def __repr__(self) -> str:
        return f"{'✓ Right.' if self.passed else '✗ Not yet.'} {self.message}"

    def _repr_markdown_(self) -> str:
        return f"{'✓ **Right.**' if self.passed else '✗ **Not yet.**'} {self.message}"


@dataclass(frozen=True)
class Mistake:
    """A wrong answer that is easily given.

    Attributes:
        sentence: What to tell the reader who gave it.
        function: The wrong answer; takes what the reader's function takes.
    """

    sentence: str
    function: Callable[..., Any]


def grade(
    function: Callable[..., Any],
    reference: Callable[..., Any],
    mistakes: Sequence[Mistake],
    cases: Sequence[tuple[Any, ...]],
) -> Grade:
    """Compare a function with the right answer and with the wrong ones.

    Args:
        function: What the reader wrote.
        reference: The right answer; its parameters' names appear in messages.
        mistakes: Wrong answers, tried in this order.
        cases: Arguments of each call.

    Returns:
        The grade. Nothing that ``function`` does raises.
    """
    if not callable(function):
        return Grade(
            False,
            f"You handed over `{type(function).__name__}`: hand over the function itself, "
            "without calling it.",
        )
    names = list(inspect.signature(reference).parameters)
    if not _takes(function, len(names)):
        return Grade(
            False, f"Your function must take {len(names)} arguments: {', '.join(names)}."
        )
    outputs = []
    for case in cases:
        try:
            outputs.append(function(*copy.deepcopy(case)))
        except NotImplementedError:
            return Grade(
                False, "Your function is still empty: it raises `NotImplementedError`."
            )
        except Exception as error:
            text = " ".join(str(error).replace("`", "'").split())[:200]
            what = f"`{type(error).__name__}: {text}`" if text else f"`{type(error).__name__}`"
            return Grade(False, f"Your function raised {what} for {_describe(names, case)}.")

    def agrees(other: Callable[..., Any]) -> bool:
        return all(
            difference(output, other(*copy.deepcopy(case))) is None
            for output, case in zip(outputs, cases, strict=True)
        )

    for output, case in zip(outputs, cases, strict=True):
        found = difference(output, reference(*copy.deepcopy(case)))
        if found is not None:
            for mistake in mistakes:
                if agrees(mistake.function):
                    return Grade(False, mistake.sentence)
            return Grade(False, f"{found} This is for {_describe(names, case)}.")
    return Grade(True, f"Your function is right on all {len(cases)} inputs.")


def random_numbers(*shape: int, seed: int) -> Tensor:
    """Draw the same normal numbers at every call, and leave the reader's generator alone.

    Args:
        *shape: Shape of the result.
        seed: Seed of the draw.

    Returns:
        Standard normal numbers, float32.
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def difference(got: object, expected: Any) -> str | None:
    """Say how an output differs from the expected one.

    Args:
        got: What the reader's function returned.
        expected: A tensor, a float, an int, or a list. Tensors must agree in shape and in kind:
            boolean, integer or floating-point. In place of lists, tuples are taken too.

    Returns:
        One or two sentences, or ``None`` where the two agree up to rounding.
    """
    if got is None:
        return "Your function returned `None`: does it end with `return`?"
    if isinstance(expected, Tensor):
        if not isinstance(got, Tensor):
            return _wrong_type(got, "torch.Tensor")
        return _tensor_difference(got.detach().cpu(), expected)
    if isinstance(expected, list):
        return _list_difference(got, expected)
    if isinstance(got, Tensor) and got.numel() == 1:
        got = got.item()
    elif hasattr(got, "dtype") and hasattr(got, "item") and getattr(got, "size", 0) == 1:
        got = got.item()  # a number of NumPy's
    accepted = int if isinstance(expected, int) else (int, float)
    if not isinstance(got, accepted) or isinstance(got, bool):
        return _wrong_type(got, type(expected).__name__)
    if isinstance(expected, int):
        if got == expected:
            return None
        gap = f"{abs(got - expected):,} too {'many' if got > expected else 'few'}"
        return f"Your function returned {got:,} where {expected:,} is expected: {gap}."
    if math.isclose(got, expected, rel_tol=1e-5, abs_tol=1e-12):
        return None
    if math.isnan(got) and math.isnan(expected):
        return None
    return f"Your function returned {got:.6g} where {expected:.6g} is expected."


def _list_difference(got: object, expected: list[Any]) -> str | None:
    if not isinstance(got, list | tuple):
        return _wrong_type(got, "list")
    if len(got) != len(expected):
        return f"Your function returned {len(got)} entries where {len(expected)} are expected."
    for index, (one, wanted) in enumerate(zip(got, expected, strict=True)):
        same = list(one) == wanted if isinstance(one, tuple) else one == wanted
        if not same:
            return f"Entry {index} of your list is {one!r} where {wanted!r} is expected."
    return None


def _tensor_difference(got: Tensor, expected: Tensor) -> str | None:
    if got.shape != expected.shape:
        shapes = (tuple(got.shape), tuple(expected.shape))
        return f"Your output has shape {shapes[0]} where {shapes[1]} is expected."
    if _kind(got) != _kind(expected):
        return f"Your output is `{got.dtype}` where `{expected.dtype}` is expected."
    values, wanted = got.double(), expected.double()
    wrong = ~torch.isclose(values, wanted, rtol=1e-4, atol=1e-5, equal_nan=True)
    if not wrong.any():
        return None
    nan = values.isnan() & wrong
    place = (nan if nan.any() else wrong).nonzero()[0]
    at = f"At index {place.tolist()} your" if len(place) else "Your"
    if nan.any():
        return f"{at} output is NaN: look for 0 / 0, infinity - infinity or the log of 0."
    values_there = f"{values[tuple(place)]:.6g} where {wanted[tuple(place)]:.6g} is expected"
    count = f"; {int(wrong.sum())} of {wrong.numel()} values differ" if len(place) else ""
    return f"{at} output is {values_there}{count}."


def _kind(tensor: Tensor) -> str:
    if tensor.dtype == torch.bool:
        return "boolean"
    return "floating-point" if tensor.is_floating_point() else "integer"


def _wrong_type(got: object, expected: str) -> str:
    return f"Your function returned `{type(got).__name__}` where `{expected}` is expected."


def _takes(function: Callable[..., Any], arguments: int) -> bool:
    try:
        inspect.signature(function).bind(*[None] * arguments)
    except TypeError:
        return False
    except ValueError:  # a built-in that tells nothing: calling it will show
        return True
    return True


def _describe(names: Sequence[str], case: Sequence[Any]) -> str:
    parts = []
    for name, value in zip(names, case, strict=True):
        if isinstance(value, Tensor):
            parts.append(f"{name} of shape {tuple(value.shape)}")
        elif dataclasses.is_dataclass(value):
            fields = {
                f.name: (getattr(value, f.name), f.default) for f in dataclasses.fields(value)
            }
            chosen = [
                f"{key}={given!r}" for key, (given, usual) in fields.items() if given != usual
            ]
            parts.append(f"`{type(value).__name__}({', '.join(chosen)})`")
        else:
            parts.append(f"{name} = {value}")
    return ", ".join(parts)
