"""posttrain.dpo.figures: each figure is drawn, and its words say what was measured."""

from __future__ import annotations

import torch

from posttrain.core.stats import Estimate
from posttrain.dpo.data.shared_prompt import PackedPair, pack_pair
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.figures import (
    closed_form_figure,
    finite_data_figure,
    label_noise_figure,
    loss_figure,
    losses_figure,
    pair_mask_figure,
    reward_model_figure,
)
from posttrain.dpo.theory.finite_data import train_on_pair


def test_the_closed_forms_words_follow_the_best_answer() -> None:
    drawn = closed_form_figure([0.7, 0.3], [1.0, -1.0], {2.0: [0.86, 0.14], 0.5: [0.99, 0.01]})
    assert "highest reward has 70% under the reference" in drawn.alt
    assert "86% for β = 2, 99% for β = 0.5" in drawn.alt
    assert "optimum, β = 0.5" in drawn.svg


def test_the_loss_is_drawn_with_each_weight() -> None:
    drawn = loss_figure((1.0, 0.25))
    assert "β = 0.25" in drawn.svg and "ln 2" in drawn.svg


def test_both_intervals_of_the_gap_are_drawn() -> None:
    curve = {100: Estimate(0.60, 0.58, 0.62, 8), 1000: Estimate(0.68, 0.67, 0.69, 8)}
    gap = Estimate(0.02, 0.01, 0.03, 8)
    drawn = reward_model_figure(
        {"reward model": curve, "DPO": curve},
        0.7,
        {name: {"pairs": gap, "seeds": gap} for name in ("reward model", "DPO")},
    )
    assert "reward model from 0.600 to 0.680" in drawn.alt and "0.700, the Bayes" in drawn.alt
    for text in ("over pairs", "over seeds", "1,000", "Bayes"):
        assert text in drawn.svg


def test_the_run_on_one_pair_is_drawn() -> None:
    ref = torch.tensor([0.45, 0.45, 0.10], dtype=torch.float64).log()
    table, shared = (
        torch.eye(3, dtype=torch.float64),
        torch.tensor([[1.0], [0.0], [3.0]]).double(),
    )
    run = train_on_pair("ipo", ref, table, beta=0.5, steps=1000)
    moved = train_on_pair("dpo", ref, shared, beta=1.0, steps=1000)
    drawn = finite_data_figure({"IPO": run}, moved, ("chosen", "rejected", "other"))
    assert "after 1,000 steps: IPO 1.0" in drawn.alt
    assert "chosen from -0.8 to " in drawn.alt and "rejected" in drawn.svg


def test_losses_and_slopes_are_drawn() -> None:
    margins = [-4.0, -2.0, 0.0, 2.0, 4.0]
    curves = {"DPO": ([4.0, 2.0, 0.7, 0.1, 0.0], [-1.0, -0.88, -0.5, -0.12, 0.0])}
    drawn = losses_figure(
        margins, {**curves, "IPO": ([20.0] * 5, [-9.0, -5.0, -1.0, 3.0, 7.0])}
    )
    assert "2 losses over the margin" in drawn.alt
    assert "at margins of -2.0 and 2.0: DPO -0.88 and -0.12; IPO -5.00 and +3.00" in drawn.alt
    assert "IPO" in drawn.svg


def test_label_noise_is_drawn_for_each_loss() -> None:
    curve = {0.0: Estimate(0.90, 0.89, 0.91, 8), 0.3: Estimate(0.80, 0.78, 0.82, 8)}
    size = {0.0: Estimate(0.9, 0.8, 1.0, 8), 0.3: Estimate(0.3, 0.2, 0.4, 8)}
    drawn = label_noise_figure(
        {"DPO": curve, "robust": curve}, {"DPO": size, "robust": {**size}}
    )
    assert "At 30%: DPO accuracy 0.800 and size 0.30; robust accuracy" in drawn.alt
    assert "flipped labels (%)" in drawn.svg and "right size" in drawn.svg


def test_the_mask_of_a_pair_is_drawn_with_its_parts() -> None:
    packed = pack_pair(EncodedPair((1, 2, 3), (4, 5), (4, 6, 7)))
    drawn = pair_mask_figure(packed, list("abcdefgh"))
    assert "3 of the prompt, 2 of the chosen, 3 of the rejected" in drawn.alt
    assert "sees 0 tokens of the chosen one, and stands at positions 3 to 5" in drawn.alt
    for text in ("prompt", "chosen", "rejected", "f  3"):
        assert text in drawn.svg


class _Causal(PackedPair):
    """A packed pair whose second answer sees the first: a planted mistake."""

    @property
    def attention_mask(self) -> torch.Tensor:
        return torch.ones(len(self.parts), len(self.parts)).tril().bool()


def test_a_mask_that_leaks_is_told() -> None:
    right = pack_pair(EncodedPair((1,), (2, 3), (4,)))
    leaking = _Causal(right.input_ids, right.position_ids, right.parts, right.predicted_by)
    assert "sees 2 tokens of the chosen one" in pair_mask_figure(leaking, list("abcd")).alt
