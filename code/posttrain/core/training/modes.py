"""Evaluation mode for a time: what a model answers must not depend on the mode it was left in.

In training mode, dropout draws. A function that measures or samples would then give another
result at each call, or move the random numbers of the training that it interrupts.

Chapter: sft/your_model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from torch import nn

Given = ParamSpec("Given")
Result = TypeVar("Result")


@contextmanager
def evaluation_mode(model: object) -> Iterator[None]:
    """Put a model into evaluation mode, and every part of it back into the mode it was in.

    It is put back after an exception too. Parts may be in different modes, such as frozen ones
    that stay in evaluation mode during training.

    Args:
        model: A module, wrapped or not; anything else has no mode and stays as it is.

    Yields:
        Nothing; meanwhile ``model.training`` is False throughout.

    Chapter: sft/your_model.
    """
    if not isinstance(model, nn.Module):
        yield
        return
    modes = [(module, module.training) for module in model.modules()]
    if not any(training for _, training in modes):
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])  # for modules that do more than to set a flag
        for module, training in modes:
            module.training = training


def in_evaluation_mode(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Decorate a function of a model, its first argument, so that it measures and never trains.

    Args:
        function: The function; its first argument is called ``model``.

    Returns:
        The same function, within :func:`evaluation_mode` of the model that it is given.

    Chapter: sft/your_model.
    """

    @functools.wraps(function)
    def measuring(*args: Given.args, **options: Given.kwargs) -> Result:
        with evaluation_mode(args[0] if args else options.get("model")):
            return function(*args, **options)

    return measuring
