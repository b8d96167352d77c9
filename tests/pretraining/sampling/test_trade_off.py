"""posttrain.pretraining.sampling.trade_off: by hand, coverage of the interval, bad input."""

import numpy as np
import pytest
from numpy.typing import NDArray

from posttrain.pretraining.sampling.trade_off import excess_over_curve


def around(
    x: float, y: float, n: int = 4, noise: float = 0.0, seed: int = 0
) -> NDArray[np.float64]:
    """Completions around a point."""
    return np.array([x, y]) + noise * np.random.default_rng(seed).normal(size=(n, 2))


LINE = [around(2, 4), around(0, 2), around(1, 0)]  # in any order


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [(0.5, 1.0, 0.0), (0.5, 1.5, 0.5), (1.5, 1.0, -1.0), (-1, 3, 1), (3, 3, -1)],
)
def test_distance_by_hand(x: float, y: float, expected: float) -> None:
    found = excess_over_curve(LINE, around(x, y))
    assert found.value == pytest.approx(expected)
    assert found.low == pytest.approx(expected) and found.high == pytest.approx(expected)
    assert found.n == 4


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for trial in range(100):
        line = [
            around(x, y, 40, 0.3, 1000 * trial + k)
            for k, (x, y) in enumerate([(-2, -2), (0, 0), (2, 2)])
        ]
        point = around(1, 1.5, 40, 0.3, 1000 * trial + 9)
        found = excess_over_curve(line, point, resamples=300)
        held += found.low < 0.5 < found.high
    assert 88 <= held <= 99  # of 100, all seeds fixed


def test_noise_of_the_line_counts() -> None:
    quiet = [around(0, 0, 40), around(2, 2, 40)]
    noisy = [around(0, 0, 40, 1, 1), around(2, 2, 40, 1, 2)]
    point = around(1, 1.5, 40)
    wide, narrow = excess_over_curve(noisy, point), excess_over_curve(quiet, point)
    assert wide.high - wide.low > 0.1 > narrow.high - narrow.low


def test_the_same_seed_gives_the_same_interval() -> None:
    line = [around(0, 0, 9, 1, 1), around(2, 2, 9, 1, 2)]
    point = around(1, 1, 9, 1, 3)
    assert excess_over_curve(line, point, seed=5) == excess_over_curve(line, point, seed=5)
    assert excess_over_curve(line, point, seed=5) != excess_over_curve(line, point, seed=6)


def test_points_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="give x and y of the same two or more completions"):
        excess_over_curve(LINE, around(0, 0, 5))
    with pytest.raises(ValueError, match="give x and y of the same two or more completions"):
        excess_over_curve([[1.0, 2.0]] * 2, [1.0, 2.0])
    with pytest.raises(ValueError, match="a line needs at least two points"):
        excess_over_curve(LINE[:1], LINE[0])
