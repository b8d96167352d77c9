"""What a sampler pays for variety: its distance from the curve of the temperatures.

Chapter: pretraining/sampling.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.core.stats import Estimate


def excess_over_curve(
    curve: Sequence[ArrayLike],
    sampler: ArrayLike,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Measure how far above a line of mean points the mean point of a sampler lies.

    The line joins the mean points of `curve` in the order of x, and goes on level at either
    end. The interval is a percentile bootstrap over completions. It draws rows for all points
    at once, so it holds the noise of the line too, and rows that share random numbers stay
    together.

    Args:
        curve: For each point of the line, x and y of each completion, shape (n, 2).
        sampler: The same for the sampler, shape (n, 2).
        resamples: How often the completions are drawn anew.
        seed: Seed of the drawing.

    Returns:
        The distance in the direction of y, positive above the line, with its 95 % interval;
        ``n`` counts completions.

    Raises:
        ValueError: If the shapes differ, or there are fewer than two points or completions.

    Chapter: pretraining/sampling.
    """
    points = [np.asarray(point, dtype=np.float64) for point in (*curve, sampler)]
    shapes = {point.shape for point in points}
    shape = points[-1].shape
    if len(shapes) > 1 or len(shape) != 2 or shape[1] != 2 or shape[0] < 2:
        raise ValueError(
            f"the points have the shapes {sorted(shapes)}: give x and y of the same two or "
            "more completions for each"
        )
    if len(points) < 3:
        raise ValueError("a line needs at least two points: give more to `curve`")
    together = np.stack(points)  # (points, n, 2)
    rows = np.random.default_rng(seed).integers(shape[0], size=(resamples, shape[0]))
    drawn = np.array([_above(together[:, row].mean(axis=1)) for row in rows])
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Estimate(_above(together.mean(axis=1)), float(low), float(high), shape[0])


def _above(means: NDArray[np.float64]) -> float:
    *line, (x, y) = means[np.append(np.argsort(means[:-1, 0]), len(means) - 1)]
    return float(y - np.interp(x, [point[0] for point in line], [point[1] for point in line]))
