"""posttrain.pretraining.exercises: what every grader of the stage says of junk."""

import importlib
import math
import pkgutil
from typing import Any

import pytest
import torch

from posttrain.pretraining import exercises

GRADERS = [
    getattr(module, name)
    for found in pkgutil.iter_modules(exercises.__path__, f"{exercises.__name__}.")
    for module in [importlib.import_module(found.name)]
    for name in dir(module)
    if name.startswith("grade_")
]


def raises(*arguments: object) -> object:
    raise RuntimeError("my own words")


@pytest.mark.parametrize("grader", GRADERS)
def test_junk_gets_a_kind_sentence(grader: Any) -> None:
    junk: list[tuple[Any, str]] = [
        (raises, "Your function raised `RuntimeError: my own words` for "),
        (lambda *arguments: None, "Your function returned `None`: does it end with `return`?"),
        (lambda *arguments: "text", "Your function returned `str` where `"),
        (lambda: 0, "Your function must take "),
        (None, "You handed over `NoneType`: hand over the function itself"),
    ]
    for function, sentence in junk:
        result = grader(function)
        assert not result.passed and result.message.startswith(sentence), result.message


@pytest.mark.parametrize("grader", GRADERS)
def test_wrong_shapes_and_nan_get_a_kind_sentence(grader: Any) -> None:
    shape = grader(lambda *arguments: torch.zeros(1, 2, 3, 4, 5))
    assert "shape (1, 2, 3, 4, 5) where" in shape.message or "`Tensor` where" in shape.message
    nan = grader(lambda *arguments: math.nan)
    assert not nan.passed and ("`float` where" in nan.message or "nan where" in nan.message)
