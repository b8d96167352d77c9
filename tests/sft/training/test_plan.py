"""posttrain.sft.training.plan: counted by hand, refusals whose remedies hold, labels."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from posttrain.pretraining.model.gpt import GPTConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import A100, CPU, GPU24, PRESETS, T4, T4_QWEN, SFTPreset
from posttrain.sft.training import plan as planning
from posttrain.sft.training.engine_costs import (
    MicroBatch,
    largest_micro_batch,
    run_memory,
    run_operations,
    unpacked_weights,
)
from posttrain.sft.training.hardware import HARDWARE, Hardware
from posttrain.sft.training.memory import PUBLISHED_SHAPES
from posttrain.sft.training.plan import (
    Remedy,
    Rows,
    RunPlan,
    largest_batch,
    plan_run,
    predicted_seconds,
    refuse_what_cannot_fit,
    remedies,
)

HERE = Hardware("here: CPU", "cpu", 8 * 10**9, 150e9, 0.5, 1e9, measured=True)
CARD = Hardware("here: a card", "cuda", 6 * 10**9, 1e13, 0.5, 1e11, measured=True)
LENGTHS, TRAINED = [10, 30, 20, 40, 50, 25, 15], [4, 10, 8, 16, 20, 10, 5]
SMOL, SEVEN = PUBLISHED_SHAPES["SmolLM2-135M"], PUBLISHED_SHAPES["Qwen2.5-7B"]


def small(preset: SFTPreset, **training: Any) -> SFTPreset:
    settings = {"max_steps": 6, "warmup_steps": 0, "eval_steps": 3, **training}
    return replace(preset, batch_size=2, training=replace(preset.training, **settings))


def plan(preset: SFTPreset, config: GPTConfig = SMOL, **given: Any) -> RunPlan:
    return plan_run(preset, config, LENGTHS, TRAINED, **{"here": HERE, **given})


# --- counted by hand ---


def test_rows_tokens_and_passes() -> None:
    found = plan(small(CPU))
    assert found.epochs == 6 * 2 / 7 and found.rows == Rows(tuple(LENGTHS), tuple(TRAINED))
    assert found.padded_tokens == 2 * 30 + 2 * 40 + 2 * 50  # the seventh row fills no batch
    lines = found.lines()
    assert lines[0] == "tokens:     190 in 7 rows of 10 to 50, median 25; no padding"
    assert lines[1] == "trained on: 73 of them (38%)"
    assert lines[2] == "steps:      6 of 2 rows (2 x 1), 1.7 passes over the rows"
    assert lines[3] == "adapter:    2,442,240 of 134,515,008 parameters (1.82%)"
    padded = plan(replace(small(CPU), engine="trl")).lines()
    assert padded[0].endswith("median 25; 240 with padding")
    twice = plan(small(CPU, gradient_accumulation_steps=2))
    assert twice.epochs == 2 * found.epochs and "6 of 4 rows (2 x 2)" in twice.lines()[2]


def test_memory_is_that_of_the_longest_rows() -> None:
    preset = small(CPU)
    here = plan(preset).machines[0]
    batch = MicroBatch(2, 50, 90, 36)
    assert here.memory == run_memory(preset, SMOL, batch, process=HERE.process)
    assert here.memory.process == 700 * 10**6


def test_seconds_are_operations_over_the_assumed_speed() -> None:
    preset = replace(small(CPU), quantization="nf4")
    rows = Rows(tuple(LENGTHS), tuple(TRAINED), validation=5)
    batches = ((2, 30, 14, 40), (2, 40, 24, 60), (2, 50, 30, 75))
    each = sum(run_operations(preset, SMOL, *batch) for batch in batches) / 3 / 75e9
    each += unpacked_weights(preset, SMOL) / 1e9
    # 6 micro-batches, and 3 evaluations of 5 rows in 3 batches, forward only
    assert predicted_seconds(preset, SMOL, rows, HERE) == pytest.approx(each * (6 + 9 / 2))
    card = replace(preset, engine="trl", device="cuda")
    each = sum(run_operations(card, SMOL, *batch) for batch in batches) / 3 / 5e12
    each += unpacked_weights(card, SMOL) / 1e11
    assert predicted_seconds(card, SMOL, rows, CARD) == pytest.approx(each * (6 + 9 / 3))
    alone = predicted_seconds(small(CPU, eval_steps=0), SMOL, replace(rows, validation=0), HERE)
    full = small(CPU, eval_steps=0, max_steps=12)
    assert predicted_seconds(full, SMOL, replace(rows, validation=0), HERE) == 2 * alone


def test_money_is_hours_times_the_assumed_price() -> None:
    here, t4, *_ = plan(small(T4), PUBLISHED_SHAPES["Llama-3.2-1B"]).machines
    assert here.dollars is None and t4.hardware.price is not None
    assert t4.dollars == t4.seconds / 3600 * t4.hardware.price


@pytest.mark.parametrize("wrong", [{"gradients": 0}, {"optimizer": 0}, {"activations": 0}])
def test_a_part_that_is_forgotten_is_missed(
    wrong: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an adapter takes is known: 4 bytes, 4 for the gradient, 8 for the moments."""
    parameters = 2_442_240

    def whole(found: RunPlan) -> bool:
        memory = found.machines[0].memory
        steady = memory.growth - memory.weights - max(memory.logits, memory.workspace)
        return steady == 16 * parameters + memory.activations > 16 * parameters

    assert whole(plan(small(CPU)))
    monkeypatch.setattr(
        planning, "run_memory", lambda *a, **k: replace(run_memory(*a, **k), **wrong)
    )
    assert not whole(plan(small(CPU)))


# --- where it runs ---


def test_a_run_is_put_on_each_machine_in_a_type_that_it_has() -> None:
    machines = plan(small(A100), SEVEN).machines
    assert [m.hardware for m in machines] == [HERE, *HARDWARE.values()]
    placed = {m.hardware.name: (m.preset.device, m.preset.dtype) for m in machines}
    assert placed == {
        "here: CPU": ("cpu", "bfloat16"), "T4 16 GB": ("cuda", "float16"),
        "L4 24 GB": ("cuda", "bfloat16"), "A100 40 GB": ("cuda", "bfloat16"),
    }  # fmt: skip
    assert plan(small(T4), SEVEN).machines[0].preset.dtype == "auto"  # no float16 on a CPU


def test_a_run_is_meant_for_this_machine_or_for_its_presets_card() -> None:
    assert plan(small(CPU)).target.hardware is HERE
    for preset, name in ((T4, "t4"), (T4_QWEN, "t4"), (GPU24, "gpu24"), (A100, "a100")):
        assert plan(small(preset)).target.hardware is HARDWARE[name]
        assert plan(small(preset), here=CARD).target.hardware is CARD
    own = replace(small(T4), name="own")
    assert plan(own).target.hardware is HARDWARE["t4"]  # the smallest card


def test_this_machine_is_measured_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def found(device: str, dtype: object) -> Hardware:
        asked.append(device)
        return HERE

    monkeypatch.setattr(planning, "this_machine", found)
    plan_run(small(CPU), SMOL, LENGTHS, TRAINED)
    plan_run(small(T4), SMOL, LENGTHS, TRAINED)
    assert asked == ["cpu", "cuda"]


# --- what fits ---


def needed(preset: SFTPreset, config: GPTConfig, rows: Rows, size: int, on: Hardware) -> int:
    batch = largest_micro_batch(rows.lengths, rows.trained, size)
    return run_memory(preset, config, batch, process=on.process).needed


@pytest.mark.parametrize("preset", [CPU, T4, T4_QWEN, GPU24, A100], ids=lambda p: p.name)
def test_no_batch_larger_than_the_largest_fits(preset: SFTPreset) -> None:
    shape = {"cpu": "SmolLM2-135M", "t4": "Llama-3.2-1B", "t4-qwen": "Qwen2.5-1.5B"}
    config = PUBLISHED_SHAPES[shape.get(preset.name, "Qwen2.5-7B")]
    rows = Rows((preset.max_length,) * 500, (preset.max_length // 2,) * 500)
    on = HERE if preset.device == "cpu" else CARD if preset.name.startswith("t4") else None
    on = on or HARDWARE[preset.name]
    size = largest_batch(preset, config, rows, on)
    assert 0 < size < 500
    assert needed(preset, config, rows, size, on) <= on.usable
    assert needed(preset, config, rows, size + 1, on) > on.usable


def test_there_are_no_more_rows_than_there_are() -> None:
    assert plan(small(CPU)).machines[0].largest_batch == 7
    tight = replace(HERE, usable=10**9)
    assert plan(small(CPU), here=tight).machines[0].largest_batch == 0


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_every_preset_fits_where_it_is_meant_for(preset: SFTPreset) -> None:
    shape = {"cpu": "SmolLM2-135M", "t4": "Llama-3.2-1B", "t4-qwen": "Qwen2.5-1.5B"}
    config = PUBLISHED_SHAPES[shape.get(preset.name, "Qwen2.5-7B")]
    lengths = [preset.max_length] * 64
    found = plan_run(preset, config, lengths, lengths, here=HERE)
    assert found.target.fits
    refuse_what_cannot_fit(found)
    assert found.target.largest_batch >= preset.batch_size


CASES = {
    "batch": (replace(small(CPU), batch_size=4, max_length=512), SMOL, [400] * 5 + [64] * 5,
              2.4),
    "long row": (replace(small(CPU), batch_size=1), SMOL, [1500] + [40] * 9, 2.0),
    "16 bits": (replace(small(A100), quantization=None), SEVEN, [256] * 8, None),
    "by hand": (replace(small(GPU24), engine="by_hand", quantization=None),
                PUBLISHED_SHAPES["Llama-3.2-1B"], [2048] * 8, 9.0),
    "all": (replace(small(A100), quantization=None, batch_size=8, name="t4"), SEVEN,
            [2048] * 8 + [100] * 16, None),
    "7B on a T4": (replace(small(A100), quantization=None, batch_size=2, name="t4"), SEVEN,
                   [6000] * 2 + [512] * 16, None),
}  # fmt: skip


def case(name: str) -> RunPlan:
    preset, config, lengths, gigabytes = CASES[name]
    here = HERE
    if gigabytes is not None:
        on = HERE if preset.device == "cpu" else CARD
        here = replace(on, usable=int(gigabytes * 1e9))
    trained = [n // 2 for n in lengths]
    if name == "16 bits":
        preset = replace(preset, name="t4")
    return plan_run(preset, config, lengths, trained, here=here)


def applied(remedy: Remedy, before: RunPlan) -> RunPlan:
    return plan_run(
        remedy.preset, remedy.config, remedy.rows.lengths, remedy.rows.trained,
        here=before.machines[0].hardware,
    )  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_every_remedy_makes_the_run_fit(name: str) -> None:
    before = case(name)
    assert not before.target.fits
    found = remedies(before)
    assert found
    for remedy in found:
        after = applied(remedy, before)
        assert after.target.fits, remedy.text
        assert after.target.memory.needed == remedy.needed
        refuse_what_cannot_fit(after)


def test_the_remedies_that_there_are() -> None:
    texts = {name: " | ".join(r.text for r in remedies(case(name))) for name in CASES}
    assert "--set batch_size=3" in texts["batch"] and "max_length=64" in texts["batch"]
    assert texts["long row"].endswith("=40 --on-bad-row drop, without 1 longer row")
    assert "batch_size" not in texts["long row"]  # it is 1
    assert "--set quantization=nf4" in texts["16 bits"]
    assert "--set engine=trl" in texts["by hand"]  # which computes activations twice
    assert "--set quantization=nf4" in texts["all"]
    assert "a smaller model, such as Qwen2.5-1.5B" in texts["16 bits"]
    assert all("engine" not in text for name, text in texts.items() if name != "by hand")


def test_settings_are_put_together_where_none_is_enough() -> None:
    lengths = [6000] * 4
    preset = replace(small(A100), quantization=None, batch_size=4, name="t4")
    before = plan_run(preset, SEVEN, lengths, lengths, here=HERE)
    found = remedies(before)
    both = [r for r in found if r.text.startswith("--set quantization=nf4 --set batch_size=")]
    assert len(both) == 1 and both[0].preset.quantization == "nf4"
    assert not any(r.text == "--set quantization=nf4" for r in found)
    assert not any(r.preset.quantization is None and r.config == SEVEN for r in found)


def test_a_length_is_no_remedy_where_it_leaves_too_few_rows() -> None:
    preset = replace(small(CPU, gradient_accumulation_steps=4), batch_size=1)
    here = replace(HERE, usable=int(2e9))
    enough, few = (
        plan_run(preset, SMOL, [1500] + [40] * n, [20] * (n + 1), here=here) for n in (4, 3)
    )
    assert any("max_length" in r.text for r in remedies(enough))
    assert not any("max_length" in r.text for r in remedies(few))


def test_a_refusal_is_one_sentence() -> None:
    found = case("16 bits")
    with pytest.raises(ValueError) as caught:
        refuse_what_cannot_fit(found)
    with pytest.raises(ValueError, match=r"and this machine has 2\.4: what fits is --set"):
        refuse_what_cannot_fit(case("batch"))
    text = str(caught.value)
    amount = f"{found.target.memory.needed / 1e9:.1f}"
    assert text.startswith(f"the run needs {amount} GB (predicted) and T4 16 GB has 15.0: ")
    assert "what fits is --set quantization=nf4 (" in text and "\n" not in text
    assert "or another machine (L4 24 GB, A100 40 GB)" in text and not text.endswith(".")


def test_where_nothing_fits_it_is_said() -> None:
    tight = replace(HERE, usable=10**8)
    with pytest.raises(ValueError, match="another machine") as caught:
        refuse_what_cannot_fit(plan(small(CPU), here=tight))
    assert "--set" not in str(caught.value)
    huge = PUBLISHED_SHAPES["Llama-3.1-70B"]
    lengths = [60_000] * 2
    with pytest.raises(ValueError, match=r"no setting makes it fit$"):
        refuse_what_cannot_fit(
            plan_run(small(CPU), huge, lengths, lengths, here=replace(HERE, usable=10**8))
        )


def test_what_fits_is_not_refused() -> None:
    refuse_what_cannot_fit(plan(small(CPU)))
    assert plan(small(CPU)).target.fits


# --- labels ---


def test_predictions_and_assumptions_are_called_so() -> None:
    lines = plan(small(T4), PUBLISHED_SHAPES["Llama-3.2-1B"]).lines()
    text = "\n".join(lines)
    (head,) = [line for line in lines if line.startswith("predicted")]
    assert head.startswith("predicted (not measured), GB")
    assert re.findall(r"here: CPU|T4 16 GB|L4 24 GB|A100 40 GB", head) == [
        "here: CPU", "T4 16 GB", "L4 24 GB", "A100 40 GB"
    ]  # fmt: skip
    for part in ("frozen weights", "their file, in view", "adapter", "gradients", "optimizer",
                 "activations", "logits", "workspace", "the process itself (assumed)",
                 "needed at the peak *", "usable", "largest micro-batch, rows", "minutes",
                 "US dollars (price assumed)"):  # fmt: skip
        assert len([line for line in lines if line.startswith(f"  {part}")]) == 1, part
    assert "assumed:    training reaches 50% of the peak timed here; of those published" in text
    assert "15% (T4 16 GB), 20% (L4 24 GB), 30% (A100 40 GB)" in text
    assert "2025; look them up before you rent" in text
    assert all(len(line) <= 96 for line in lines)
    assert "while loading" not in text  # nothing is needed for it: no line


def test_what_does_not_fit_has_no_minutes_and_no_price() -> None:
    found = case("16 bits")
    lines = found.lines()
    (verdict,) = [line for line in lines if "does not fit" in line]
    assert verdict.count("does not fit") == sum(not m.fits for m in found.machines) == 2
    (minutes,) = [line for line in lines if line.startswith("  minutes")]
    assert minutes.split()[-4:-2] == ["-", "-"]  # this machine of 8 GB, and the T4
    (dollars,) = [line for line in lines if line.startswith("  US dollars")]
    assert dollars.split()[-4:-2] == ["-", "-"] and "-" not in dollars.split()[-2:]
    assert "does not fit" not in "\n".join(plan(small(CPU)).lines())


# --- rows ---


def test_rows_that_are_too_long_are_left_out() -> None:
    rows = Rows((3, 9, 5), (1, 2, 3), 7)
    assert rows.within(5) == Rows((3, 5), (1, 3), 7)
    assert rows.within(2) == Rows((), (), 7) and rows.within(9) == rows


@pytest.mark.parametrize("size", [1, 2, 3, 7, 9])
def test_the_largest_batch_of_rows_is_that_of_their_numbers(size: int) -> None:
    rows = Rows(tuple(LENGTHS), tuple(TRAINED))
    assert rows.largest(size) == largest_micro_batch(LENGTHS, TRAINED, size)


@pytest.mark.parametrize(
    ("lengths", "trained", "sentence"),
    [([], [], "give one of each for every conversation"), ([3], [], "1 lengths and 0 numbers"),
     ([0], [0], "a length is 0")],
)  # fmt: skip
def test_what_is_no_run_is_refused(
    lengths: list[int], trained: list[int], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        plan_run(CPU, SMOL, lengths, trained, here=HERE)


def test_an_adapter_that_the_model_does_not_have_is_refused() -> None:
    odd = replace(small(CPU), lora=LoRAConfig(target_modules=("lm_head",)))
    with pytest.raises(ValueError, match="'lm_head' is no matrix of a block"):
        plan(odd)
