"""posttrain.dpo.runs.plan: what a run on pairs will need, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import PRESETS, T4, DPOPreset
from posttrain.dpo.runs.costs import pair_tokens
from posttrain.dpo.runs.plan import (
    PairPlan,
    plan_pairs,
    predicted_pair_seconds,
    refuse_pairs_that_cannot_fit,
)
from posttrain.sft.training.hardware import HARDWARE, Hardware
from posttrain.sft.training.memory import PUBLISHED_SHAPES

HERE = Hardware("here: CPU", "cpu", 16 * 10**9, 5e11, 1 / 3, 3e8, measured=True)
SHAPES = {"cpu": "SmolLM2-135M", "t4": "Llama-3.2-1B", "t4-qwen": "Qwen2.5-1.5B",
          "gpu24": "Qwen2.5-7B", "a100": "Qwen2.5-7B"}  # fmt: skip


def full(preset: DPOPreset, count: int = 40) -> list[EncodedPair]:
    """Pairs as long as a preset allows."""
    answer = preset.max_length // 4
    prompt = preset.max_length - answer
    return [EncodedPair((1,) * prompt, (2,) * answer, (3,) * answer) for _ in range(count)]


def plan(preset: DPOPreset, count: int = 40) -> PairPlan:
    shape = PUBLISHED_SHAPES[SHAPES[preset.name]]
    return plan_pairs(preset, shape, full(preset, count), 8, here=HERE)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_each_preset_fits_its_machine_with_the_longest_pairs(preset: DPOPreset) -> None:
    found = plan(preset)
    assert found.target.fits
    assert found.target.largest_batch >= preset.batch_size
    refuse_pairs_that_cannot_fit(found)
    told = "\n".join(found.lines())
    for part in ("predicted (not measured)", "micro-batch, pairs", "no second copy of the",
                 f"{preset.training.max_steps:,} of ", "DPO, beta 0.1"):  # fmt: skip
        assert part in told, part


def test_what_cannot_fit_says_what_would() -> None:
    found = plan(replace(T4, batch_size=8))
    with pytest.raises(ValueError, match=r"needs .* GB \(predicted\) and T4") as told:
        refuse_pairs_that_cannot_fit(found)
    assert f"--set batch_size={found.target.largest_batch} (" in str(told.value)
    assert "another machine (" in str(told.value)
    assert found.target.largest_batch < 8


def test_the_reference_is_one_forward_pass_over_all_pairs() -> None:
    tokens = pair_tokens(full(T4, 40), 8)
    shape = PUBLISHED_SHAPES["Llama-3.2-1B"]
    orpo = replace(T4, loss=PreferenceLossConfig(loss_type="orpo"))
    short = [
        predicted_pair_seconds(
            replace(p, training=replace(T4.training, max_steps=1, warmup_steps=0)),
            shape, tokens, HARDWARE["t4"],
        ) for p in (T4, orpo)
    ]  # fmt: skip
    steps = 4 + (8 * 2) / 2 / 3  # micro-batches; two evaluations of 8 pairs, forward alone
    steps -= (8 / 2 / 3) * (T4.training.eval_steps > 1)  # the first alone on the way
    assert short[0] / short[1] == pytest.approx(1 + (48 / 2 / 3) / steps, rel=1e-6)
    assert any("none: ORPO needs no reference" in line for line in plan(orpo).lines())


def test_a_run_that_is_longer_takes_longer() -> None:
    double = replace(T4, training=replace(T4.training, max_steps=600))
    assert plan(double).target.seconds > 1.9 * plan(T4).target.seconds
    assert plan(double).epochs == 2 * plan(T4).epochs
