"""posttrain.dpo.losses.parity_trl: TRL stands on its own. The comparison: tests/parity."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from posttrain.dpo.losses.parity_draws import draw_batch, table_pair

pytest.importorskip("trl")


@pytest.mark.parametrize("seed", range(9))
def test_trls_loss_has_a_gradient_and_knows_its_settings(seed: int) -> None:
    from posttrain.dpo.losses.parity_trl import trl_loss

    batch, (policy, reference) = draw_batch(seed), table_pair(seed)
    loss = trl_loss(batch, policy, reference)
    assert loss.isfinite() and loss.requires_grad
    assert_close(loss, trl_loss(batch, policy, reference))  # no run leaves something behind
    config = replace(batch.config, beta=batch.config.beta * 3)
    assert not torch.allclose(loss, trl_loss(replace(batch, config=config), policy, reference))


def test_another_trainer_does_not_take_the_device_away() -> None:
    from accelerate.state import AcceleratorState

    from posttrain.dpo.losses.parity_trl import trl_loss

    batch, (policy, reference) = draw_batch(0), table_pair(0)
    before = trl_loss(batch, policy, reference)
    AcceleratorState._reset_state(reset_partial_state=True)  # as new arguments do
    assert_close(trl_loss(batch, policy, reference), before)
