"""posttrain.dpo.safety.figures: every model is drawn, and the words say its rates."""

from __future__ import annotations

import pytest

from posttrain.core.stats import wilson_interval
from posttrain.dpo.safety.figures import trade_off_figure
from posttrain.dpo.safety.measures import TradeOff

ROWS = [
    TradeOff("base", wilson_interval(95, 100), wilson_interval(0, 94)),
    TradeOff("SFT", wilson_interval(90, 100), wilson_interval(1, 94), wilson_interval(60, 100)),
    TradeOff(
        "SafeDPO", wilson_interval(20, 100), wilson_interval(5, 94), wilson_interval(70, 100)
    ),
]


def test_both_panels_name_the_models_and_their_rates() -> None:
    drawn = trade_off_figure(ROWS)
    assert "base answers 95% of the harmful requests and refuses 0%" in drawn.alt
    assert "SafeDPO answers 20%" in drawn.alt
    assert "Win-rates: SFT 60%, SafeDPO 70%." in drawn.alt
    assert all(text in drawn.svg for text in ("base", "SFT", "SafeDPO", "Win-rate"))


def test_without_win_rates_there_is_one_panel() -> None:
    drawn = trade_off_figure(ROWS[:1])
    assert "Win-rate" not in drawn.svg + drawn.alt and "base" in drawn.svg


def test_bad_arguments() -> None:
    for rows in (
        [],
        [ROWS[0]] * 2,
        [TradeOff(str(k), *[ROWS[0].over_refusal] * 2) for k in range(7)],
    ):
        with pytest.raises(ValueError, match="give 1 to 6, each with its own name"):
            trade_off_figure(rows)
