"""posttrain.sft.recorded.figures: a valley for each rank, in a panel for each scaling."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from posttrain.sft.recorded.best_rates import summarize
from posttrain.sft.recorded.figures import rank_and_rate_figure
from posttrain.sft.recorded.rank_and_rate import FULL, FULL_RATES, RATES, parts


def record() -> Any:
    rows = []
    for part in parts((0, 1)):
        for i, rate in enumerate(FULL_RATES if part["scaling"] == FULL else RATES):
            loss = 0.5 + 0.2 * (i - 2) ** 2 + 0.01 * part["seed"]
            rows.append({**part, "rate": rate, "val_loss": loss, "start": 2.7})
    rows[5]["val_loss"] = None  # one run of seed 0 has no loss: its rate is left out
    return SimpleNamespace(outcomes=rows, summary=summarize(rows))


def test_the_figure_names_every_line_and_the_best_rates():
    drawn = rank_and_rate_figure(record())
    for words in ("rank 1", "rank 8", "rank 64", "full training", "before training", "rsLoRA"):
        assert words in drawn.svg, words
    assert "alpha / r, rank 1 at 0.0063" in drawn.alt
    assert "full training at 0.00025" in drawn.alt
