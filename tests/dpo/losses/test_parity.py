"""posttrain.dpo.losses.parity: our side, and the summary. Against TRL: tests/parity."""

from dataclasses import replace

import pytest
from torch.testing import assert_close

from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.parity import ParityRow, compare, our_loss, summary
from posttrain.dpo.losses.parity_draws import draw_batch, table_pair


@pytest.mark.parametrize("seed", range(45))
def test_our_loss_is_the_same_with_padding_on_either_side(seed: int) -> None:
    policy, reference = table_pair(seed)
    left, right = (
        our_loss(replace(draw_batch(seed), padding_side=side), policy, reference)
        for side in ("left", "right")
    )
    assert_close(left, right)
    assert left.isfinite() and left.requires_grad


def test_the_summary_keeps_the_worst() -> None:
    row = ParityRow("dpo", PreferenceLossConfig(), "table", 4, 1e-7, 3e-7, 0.5)
    assert summary([row, replace(row, value=5e-7), replace(row, gradient=2e-6)]) == (
        3,
        5e-7,
        2e-6,
    )


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no model 'gpt': choose one of table, llama"):
        compare(0, "gpt")
