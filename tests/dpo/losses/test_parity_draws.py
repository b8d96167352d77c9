"""posttrain.dpo.losses.parity_draws: what is drawn. The comparison: tests/parity."""

import torch

from posttrain.dpo.losses.parity_draws import VARIANTS, draw_batch, table_pair

BATCHES = [draw_batch(seed) for seed in range(540)]


def test_draws_follow_their_seed() -> None:
    assert draw_batch(7) == BATCHES[7] != draw_batch(16)
    one, same, other = (table_pair(seed)[0].state_dict()["table"] for seed in (1, 1, 2))
    assert torch.equal(one, same) and not torch.equal(one, other)
    policy, reference = (model.state_dict()["table"] for model in table_pair(1))
    assert (policy - reference).abs().mean() > 0.1


def test_every_option_is_drawn_often() -> None:
    for variant in VARIANTS:
        found = [batch for batch in BATCHES if batch.variant == variant]
        assert len(found) == 60
        betas = sorted(batch.config.beta for batch in found)
        assert betas[0] < 0.05 and betas[-1] > 0.8
        for side in ("left", "right"):
            assert sum(batch.padding_side == side for batch in found) >= 20
        lengths = {len(answer) for batch in found for _, answer in batch.rows}
        assert lengths == set(range(1, 9))
    smoothed = [
        batch.config.label_smoothing for batch in BATCHES if batch.config.label_smoothing
    ]
    assert len(smoothed) == 120 and min(smoothed) < 0.05 and max(smoothed) > 0.4
    pad_inside = [b for b in BATCHES if any(0 in answer for _, answer in b.rows)]
    assert len(pad_inside) > 100  # the id of padding is a token like any other


def test_each_pair_has_one_prompt_and_kto_has_labels() -> None:
    for batch in BATCHES:
        n = len(batch.rows) // 2
        if batch.variant == "kto":
            assert len(batch.desirable) == len(batch.rows) >= 2
        else:
            prompts = [prompt for prompt, _ in batch.rows]
            assert prompts[:n] == prompts[n:] and not batch.desirable
        if batch.variant == "orpo":
            assert {len(prompt) for prompt, _ in batch.rows} == {1}
            assert len({len(answer) for _, answer in batch.rows[:n]}) == 1
