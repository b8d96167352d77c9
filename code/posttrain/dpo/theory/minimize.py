"""Find the minimum of a smooth function of a few numbers, to the last digits.

Chapter: dpo/derivation.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def minimize(loss: Callable[[Tensor], Tensor], start: Tensor, steps: int = 500) -> Tensor:
    """Minimize a function with L-BFGS, from a given start.

    L-BFGS guesses the curvature from the last gradients. On a smooth function of a few hundred
    numbers it comes close to the limits of float64, where gradient descent would take thousands
    of steps. It is of no use on mini-batches.

    Args:
        loss: The function: takes a tensor like ``start``, returns a scalar.
        start: Where to begin, float64; it is not changed.
        steps: The most iterations.

    Returns:
        The place of the minimum, shape and dtype of ``start``.

    Raises:
        ValueError: If ``start`` is not float64: float32 ends at about four digits.

    Chapter: dpo/derivation.
    """
    if start.dtype != torch.float64:
        raise ValueError(f"the start is {start.dtype}: give float64, for digits worth checking")
    place = start.detach().clone().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [place],
        max_iter=steps,
        history_size=20,
        tolerance_grad=1e-11,
        tolerance_change=1e-15,
        line_search_fn="strong_wolfe",
    )

    def value() -> Tensor:
        optimizer.zero_grad()
        found = loss(place)
        found.backward()
        return found

    optimizer.step(value)
    return place.detach()
