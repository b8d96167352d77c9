"""posttrain.sft.figures: what is drawn is what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest

from posttrain.core.stats import Estimate
from posttrain.sft.figures import cost_figure


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def test_each_cost_stands_in_its_row_with_its_interval() -> None:
    rounded = {"NF4": Estimate(0.2, 0.1, 0.3, 9), "even": Estimate(4.0, 3.0, 5.0, 9)}
    spared = {"even": Estimate(0.5, 0.4, 0.7, 9), "other": Estimate(1.0, 0.9, 1.1, 9)}
    (ax,) = cost_figure({"all": rounded, "spared": spared}, ["NF4", "even"], "nats").axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["NF4", "even"]
    assert ax.get_xscale() == "log" and ax.get_xlim()[1] > 5
    containers: Any = ax.containers
    first, second = containers
    assert first.lines[0].get_xdata().tolist() == [0.2, 4.0]
    assert second.lines[0].get_xdata().tolist() == [0.5]  # "other" has no row
    heights = [*first.lines[0].get_ydata(), *second.lines[0].get_ydata()]
    assert [round(-y) for y in heights] == [0, 1, 1] and len(set(heights)) == 3
    ends = [tuple(segment[:, 0]) for segment in first.lines[2][0].get_segments()]
    assert ends == [pytest.approx((0.1, 0.3)), pytest.approx((3, 5))]


def test_an_interval_that_holds_zero_is_cut_and_not_lost() -> None:
    found = {"NF4": Estimate(0.02, -0.05, 0.1, 9), "even": Estimate(-0.1, -0.2, -0.05, 9)}
    (ax,) = cost_figure({"all": found}, ["NF4", "even"], "nats").axes
    containers: Any = ax.containers
    ends = [tuple(s[:, 0]) for s in containers[0].lines[2][0].get_segments()]
    assert ends == [pytest.approx((0.01, 0.1)), pytest.approx((0.01, 0.01))]
