"""posttrain.dpo.alignment.figures: what is drawn is what was measured."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import pytest

from posttrain.core.figures import plotting
from posttrain.core.stats import Estimate
from posttrain.dpo.alignment import figures
from posttrain.dpo.alignment.figures import (
    curves_figure,
    rates_figure,
    setting_figure,
    shift_figure,
)


@pytest.fixture(autouse=True)
def _axes(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hand out what was drawn, before it becomes a picture."""

    def shown(fig: Any, *, alt: str, name: str) -> Any:
        show(fig, alt=alt, name=name)
        return fig

    show = plotting.show
    monkeypatch.setattr(figures, "show", shown)
    yield
    plt.close("all")


def axes_of(drawn: Any) -> Any:
    """The panels of what was drawn."""
    return drawn.axes


def test_the_curves_show_both_log_probabilities() -> None:
    rows = [
        {"step": 10 * i, "chosen_logps": -50 - i, "rejected_logps": -60 - 9 * i, "margin": i,
         "accuracy": 0.5 + 0.1 * i, "kl": 0.2 * i}
        for i in range(3)
    ]  # fmt: skip
    axes = axes_of(curves_figure(rows))
    lines = [line.get_ydata() for line in axes[0].lines]
    assert [list(line) for line in lines[:2]] == [[-50, -51, -52], [-60, -69, -78]]
    assert list(axes[1].lines[0].get_ydata()) == [0, 1, 2]
    assert axes[3].get_ylim()[0] == 0


def test_every_model_has_a_mark_in_every_row() -> None:
    shares = {
        model: {"answer_first": Estimate(x, x - 0.1, x + 0.1, 9), "all": Estimate(x, x, x, 9)}
        for model, x in (("base", 0.2), ("aligned", 0.6))
    }
    (ax,) = axes_of(shift_figure(shares))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["answer first", "all"]
    base, aligned = ax.containers
    assert list(base.lines[0].get_xdata()) == [0.2, 0.2]
    assert list(aligned.lines[0].get_xdata()) == [0.6, 0.6]
    assert list(base.lines[0].get_ydata()) != list(aligned.lines[0].get_ydata())


def test_rates_stand_beside_their_goals() -> None:
    rates = {
        name: {
            "as they are": Estimate(0.7, 0.6, 0.8, 9),
            "at equal length": Estimate(x, 0, 1, 9),
        }
        for name, x in (("base", 0.6), ("start", 0.5))
    }
    (ax,) = axes_of(rates_figure(rates, {"goal": 0.6}))
    second = ax.containers[1]
    assert list(second.lines[0].get_xdata()) == [0.6, 0.5]
    assert any(list(line.get_xdata()) == [0.6, 0.6] for line in ax.lines)


def test_a_setting_has_a_point_for_each_seed() -> None:
    found = {"beta": {0.1: [{"kl": 1.0}, {"kl": 3.0}], 1.0: [{"kl": 0.5}]}}
    (ax,) = axes_of(setting_figure(found, {"kl": "KL"}, label="beta", name="beta"))
    points, means = ax.lines
    assert list(points.get_ydata()) == [1.0, 3.0, 0.5] and list(means.get_ydata()) == [2.0, 0.5]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.1", "1"]
