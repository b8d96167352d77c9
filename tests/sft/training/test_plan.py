"""posttrain.sft.training.plan: what a run will need, and what is refused before it begins."""

from dataclasses import replace

import pytest

from posttrain.sft.presets import A100, CPU, T4
from posttrain.sft.training.hardware import HARDWARE, Hardware
from posttrain.sft.training.model_shapes import PUBLISHED_SHAPES
from posttrain.sft.training.plan import (
    Rows,
    largest_batch,
    plan_run,
    predicted_seconds,
    refuse_what_cannot_fit,
    remedies,
)

HERE = Hardware("here: CPU", "cpu", 24 * 10**9, 1e11, 0.5, 3e8, measured=True)
LLAMA = PUBLISHED_SHAPES["Llama-3.2-1B"]
LONG = [1024] * 64


def plan(preset=T4, shape=LLAMA, lengths=LONG, here=HERE):
    return plan_run(preset, shape, lengths, [n // 2 for n in lengths], 8, here=here)


def test_the_numbers_of_a_plan() -> None:
    found = plan()
    training = T4.training
    read = training.max_steps * T4.batch_size * training.gradient_accumulation_steps
    assert found.epochs == read / 64 and found.padded_tokens == 64 * 1024
    assert [m.hardware for m in found.machines] == [HERE, *HARDWARE.values()]
    assert found.target.hardware is HARDWARE["t4"] and found.target.fits
    assert 1 <= T4.batch_size <= found.target.largest_batch
    told = "\n".join(found.lines())
    for part in ("predicted (not measured), GB", "frozen weights", "optimizer", "assumed",
                 "largest micro-batch", "minutes", "price assumed"):  # fmt: skip
        assert part in told, part


def test_on_this_machine_where_it_has_the_device() -> None:
    assert plan(CPU, PUBLISHED_SHAPES["SmolLM2-135M"], [100] * 32).target.hardware is HERE


def test_the_largest_batch_fits_and_one_more_does_not() -> None:
    card = HARDWARE["t4"]
    rows = Rows(tuple(LONG), tuple(n // 2 for n in LONG))
    n = largest_batch(T4, LLAMA, rows, card)
    assert 1 < n < 64
    for size, fits in ((n, True), (n + 1, False)):
        found = plan(replace(T4, batch_size=size))
        assert found.target.fits is fits, size
    nothing = replace(card, usable=10**8)
    assert largest_batch(T4, LLAMA, rows, nothing) == 0


def test_time_follows_steps_and_speed() -> None:
    rows = Rows(tuple(LONG), tuple(n // 2 for n in LONG))
    card = HARDWARE["t4"]
    one = predicted_seconds(T4, LLAMA, rows, card)
    training = replace(T4.training, max_steps=2 * T4.training.max_steps)
    assert predicted_seconds(
        replace(T4, training=training), LLAMA, rows, card
    ) == pytest.approx(2 * one, rel=0.05)
    fast = replace(card, peak=2 * card.peak, unpacking=2 * card.unpacking)
    assert predicted_seconds(T4, LLAMA, rows, fast) == pytest.approx(one / 2)


def test_what_cannot_fit_is_refused_with_what_would() -> None:
    refuse_what_cannot_fit(plan())
    large = plan(replace(A100, name="t4", dtype="float16"), PUBLISHED_SHAPES["Llama-3.1-70B"])
    with pytest.raises(
        ValueError, match=r"the run needs \d+\.\d GB \(predicted\) and T4"
    ) as told:
        refuse_what_cannot_fit(large)
    assert "what fits is" in str(told.value) and "\n" not in str(told.value)


def test_every_suggestion_fits_when_it_is_followed() -> None:
    crowded = [
        plan(replace(T4, batch_size=64)),
        plan(replace(T4, batch_size=64, quantization=None)),
        plan(replace(T4, engine="by_hand", batch_size=32), lengths=[*LONG[:40], *[128] * 400]),
    ]
    for found in crowded:
        assert not found.target.fits
        suggestions = remedies(found)
        assert suggestions
        for way in suggestions:
            again = plan_run(
                way.preset, way.config, way.rows.lengths, way.rows.trained, 8, here=HERE
            )
            assert again.target.fits, way.text
            assert again.target.memory.needed == way.needed
