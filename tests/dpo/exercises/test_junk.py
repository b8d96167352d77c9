"""posttrain.dpo.exercises: what every grader of the stage says of junk."""

import importlib
import inspect
import pkgutil
from typing import Any

import pytest

from posttrain.dpo import exercises

GRADERS = [
    getattr(module, name)
    for found in pkgutil.iter_modules(exercises.__path__, f"{exercises.__name__}.")
    for module in [importlib.import_module(found.name)]
    for name in dir(module)
    if name.startswith("grade_")
    and len(inspect.signature(getattr(module, name)).parameters) == 1
    # grade_derivation takes three functions: its own test hands it junk
]


def raises(*arguments: object) -> object:
    raise RuntimeError("my own words")


def empty(*arguments: object) -> object:
    raise NotImplementedError


@pytest.mark.parametrize("grader", GRADERS)
def test_junk_gets_a_kind_sentence(grader: Any) -> None:
    junk: list[tuple[Any, str]] = [
        (raises, "Your function raised `RuntimeError: my own words`"),
        (empty, "Your function is still empty"),
        (lambda *arguments: None, "Your function returned `None`: does it end with `return`?"),
        (lambda *arguments: "text", "Your function returned `str` where "),
        (lambda: 0, "Your function must take "),
        (None, "You handed over `NoneType`: hand over the function itself"),
    ]
    for function, sentence in junk:
        result = grader(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        assert " for ." not in result.message
