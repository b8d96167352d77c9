"""posttrain.sft.training.trl_engine: TRL and PEFT are told the same, and do the same."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from posttrain.core.errors import TrainingDiverged, TrainingIncomplete
from posttrain.core.training.optimization import TrainingConfig, learning_rate_at
from posttrain.sft.adapters.files import WEIGHTS_NAME, load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import T4, T4_QWEN, SFTPreset
from posttrain.sft.training import run as by_hand
from posttrain.sft.training.by_hand_engine import run_by_hand
from posttrain.sft.training.evaluation import mean_loss
from posttrain.sft.training.trl_engine import model_source, peft_config, run_trl, sft_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")
pytest.importorskip("trl")

EXAMPLES = [
    EncodedChat([1, 40 + i, 50, *range(60 + i, 64 + 2 * i)], [0, 0, 0, *[1] * (4 + i)])
    for i in range(7)
]


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(
        max_steps=4, learning_rate=0.02, min_lr_ratio=0.0, weight_decay=0.1, bf16=False,
        adam_beta2=0.99,
    )  # fmt: skip
    return replace(tiny_preset, training=training)


def changed(preset: SFTPreset, **training: Any) -> SFTPreset:
    return replace(preset, training=replace(preset.training, **training))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS_NAME)


# --- what TRL and PEFT are told ---


def test_peft_gets_every_field() -> None:
    lora = LoRAConfig(r=3, lora_alpha=5, lora_dropout=0.1, target_modules=("q_proj", "up_proj"),
                      use_rslora=True, use_dora=True, layers_to_transform=(1, 2))  # fmt: skip
    theirs = peft_config(lora)
    assert theirs.task_type == "CAUSAL_LM" and theirs.target_modules == {"q_proj", "up_proj"}
    for name, value in asdict(replace(lora, target_modules=("x",))).items():
        if name != "target_modules":
            assert getattr(theirs, name) == (list(value) if isinstance(value, tuple) else value)
    assert peft_config(LoRAConfig()).layers_to_transform is None


def test_trl_gets_every_setting(preset: SFTPreset, tmp_path: Path) -> None:
    theirs = sft_config(changed(preset, seed=5, gradient_accumulation_steps=3), tmp_path)
    for name in ("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon",
                 "max_grad_norm", "max_steps", "warmup_steps"):  # fmt: skip
        assert getattr(theirs, name) == getattr(preset.training, name), name
    assert theirs.per_device_train_batch_size == 2 and theirs.gradient_accumulation_steps == 3
    assert theirs.seed == 5 and theirs.max_length == 32 and theirs.use_cpu
    assert not (theirs.bf16 or theirs.fp16 or theirs.gradient_checkpointing or theirs.packing)
    assert theirs.save_strategy == "no" and theirs.report_to == []


def test_trl_is_told_to_keep_the_best_adapter(preset: SFTPreset, tmp_path: Path) -> None:
    given = changed(preset, eval_steps=3, save_steps=2)
    theirs = sft_config(given, tmp_path, validate=True)
    assert theirs.eval_strategy == theirs.save_strategy == "steps"
    assert theirs.eval_steps == theirs.save_steps == 3 and theirs.eval_on_start
    assert theirs.load_best_model_at_end and theirs.greater_is_better is False
    assert theirs.metric_for_best_model == "eval_loss"
    assert theirs.per_device_eval_batch_size == preset.batch_size
    without = sft_config(given, tmp_path)
    assert without.eval_strategy == "no" and not without.load_best_model_at_end
    assert without.save_steps == 2


def test_on_a_gpu_activations_are_recomputed_and_float16_is_scaled(tmp_path: Path) -> None:
    t4 = sft_config(T4, tmp_path)
    assert t4.gradient_checkpointing and t4.fp16 and not t4.bf16 and not t4.use_cpu
    assert t4.save_strategy == "steps" and t4.save_steps == 100
    other = sft_config(replace(T4_QWEN, dtype="bfloat16"), tmp_path)
    assert not other.fp16 and other.gradient_checkpointing


@pytest.mark.parametrize(
    "settings",
    [
        {"min_lr_ratio": 0.0}, {"min_lr_ratio": 0.1}, {"lr_scheduler_type": "constant"},
        {"min_lr_ratio": 0.0, "warmup_steps": 3},
    ],
)  # fmt: skip
def test_the_schedules_agree_after_the_warm_up(
    preset: SFTPreset, tmp_path: Path, settings: dict[str, Any]
) -> None:
    training = TrainingConfig(max_steps=10, learning_rate=0.3, **settings)
    theirs = sft_config(replace(preset, training=training), tmp_path)
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=training.learning_rate)
    scheduler = transformers.get_scheduler(
        theirs.lr_scheduler_type, optimizer, theirs.warmup_steps, theirs.max_steps,
        theirs.lr_scheduler_kwargs,
    )  # fmt: skip
    for step in range(10):
        rate = optimizer.param_groups[0]["lr"]
        if step >= training.warmup_steps:
            assert rate == pytest.approx(learning_rate_at(step, training), abs=1e-12)
        elif step == 0:
            assert rate == 0 < learning_rate_at(0, training)
        optimizer.step()
        scheduler.step()


def test_a_model_is_a_name_of_ours_a_folder_or_a_repository(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("posttrain.core.assets.model_folder", lambda name: Path("/at") / name)
    assert model_source("smollm2-135m-instruct") == "/at/smollm2-135m-instruct"
    assert model_source("Qwen/Qwen2.5-7B-Instruct") == "Qwen/Qwen2.5-7B-Instruct"


# --- what they do ---


@pytest.fixture
def start(preset: SFTPreset, tmp_path: Path) -> Path:
    """An adapter to start from: the one that our seed 0 draws."""
    model = by_hand.base_model(preset)
    inject_lora(model, preset.lora, seed=0)
    save_adapter(model, preset.lora, tmp_path / "start", base_model_name=preset.model)
    return tmp_path / "start"


Runner = Callable[[SFTPreset], tuple[list[float], Path]]


@pytest.fixture
def ours(
    tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Runner:
    """The same run by hand, on the same examples in the same order."""
    monkeypatch.setattr(by_hand, "tokenizer_of", lambda name: tokenizer)
    monkeypatch.setattr(by_hand, "encode_rows", lambda rows, *rest: rows)

    def run(preset: SFTPreset) -> tuple[list[float], Path]:
        rows: Any = EXAMPLES
        _, history, _ = by_hand.train_adapter(
            preset, rows, rows[:1], tmp_path / "hand", keep_order=True
        )
        return history.loss, tmp_path / "hand" / "last"

    return run


@pytest.mark.parity
@pytest.mark.parametrize(
    "settings",
    [
        {"max_steps": 4},  # the fourth step begins a second pass: one example fills no batch
        {"max_steps": 3, "gradient_accumulation_steps": 3, "min_lr_ratio": 0.1,
         "max_grad_norm": 0.5},
    ],
    ids=["plain", "accumulated"],
)  # fmt: skip
def test_losses_and_adapters_equal_ours_step_by_step(
    preset: SFTPreset, start: Path, ours: Runner, tmp_path: Path, settings: dict[str, Any]
) -> None:
    preset = changed(preset, **settings)
    run = run_trl(preset, EXAMPLES, tmp_path / "trl", adapter=start)
    losses, adapter = ours(preset)
    assert len(run.losses) == len(losses) == settings["max_steps"]
    assert losses[0] - losses[-1] > 0.1  # something was learned
    assert_close(run.losses, losses, atol=1e-4, rtol=0)
    own, theirs = weights(adapter), weights(run.adapter)
    assert_close(theirs, own, atol=1e-4, rtol=0)
    before = weights(start)
    moved = [(own[name] - before[name]).abs().max().item() for name in own]
    assert min(moved) > 1e-3
    seen = settings.get("gradient_accumulation_steps", 1) * 2 * settings["max_steps"]
    order = [*EXAMPLES[:6]] * 4
    assert run.tokens == sum(len(example.input_ids) for example in order[:seen])
    assert run.seconds > 0 and not (tmp_path / "trl" / "trainer").exists()


def test_an_interrupted_run_goes_on_from_its_checkpoint(
    preset: SFTPreset, start: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset = changed(preset, save_steps=2)
    whole = run_trl(preset, EXAMPLES, tmp_path / "whole", adapter=start)
    step, steps = transformers.Trainer.training_step, []

    def interrupt(*parts: Any, **rest: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(*parts, **rest)

    monkeypatch.setattr(transformers.Trainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_trl(preset, EXAMPLES, tmp_path / "run", adapter=start)
    # another run in the same folder starts anew
    other = run_trl(changed(preset, learning_rate=0.01, max_steps=1), EXAMPLES,
                    tmp_path / "run" / "other", adapter=start)  # fmt: skip
    assert len(other.losses) == 1 and len(steps) == 5
    run = run_trl(preset, EXAMPLES, tmp_path / "run", adapter=start)
    assert len(steps) == 7  # steps 2 and 3 only
    assert run.losses == whole.losses
    assert all(
        torch.equal(a, weights(run.adapter)[n]) for n, a in weights(whole.adapter).items()
    )


def test_in_four_bits_the_adapter_stays_in_float32(preset: SFTPreset, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    four_bit = changed(replace(preset, quantization="nf4"), max_steps=2)
    run = run_trl(four_bit, EXAMPLES, tmp_path)
    tensors = weights(run.adapter)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert all(tensor.any() for name, tensor in tensors.items() if "lora_B" in name)
    assert all(map(math.isfinite, run.losses)) and len(run.losses) == 2
    coarse = [t.bfloat16().float() for t in tensors.values()]  # what bfloat16 would have left
    assert not any(torch.equal(a, b) for a, b in zip(coarse, tensors.values(), strict=True))


def test_without_a_start_the_seed_draws_the_adapter(preset: SFTPreset, tmp_path: Path) -> None:
    preset = changed(preset, max_steps=1, seed=3, learning_rate=1e-9)
    run = run_trl(preset, EXAMPLES, tmp_path)
    model = by_hand.base_model(preset)  # where it loads too
    assert load_adapter(model, run.adapter).r == 2
    base = transformers.AutoModelForCausalLM.from_pretrained(preset.model)
    torch.manual_seed(3)
    theirs = peft.get_peft_model(base, peft_config(preset.lora)).state_dict()
    for name, layer in lora_layers(model).items():
        drawn = theirs[f"base_model.model.model.{name}.lora_A.default.weight"]
        assert_close(layer.lora_A, drawn, atol=1e-7, rtol=0)
        assert 0 < layer.lora_B.abs().max() < 1e-8


def test_the_adapter_of_the_lowest_validation_loss_is_kept(
    preset: SFTPreset, start: Path, tmp_path: Path
) -> None:
    """At a rate far too high the loss turns; the adapter before the turn comes back."""
    wild = changed(preset, eval_steps=1, lr_scheduler_type="constant", learning_rate=0.3)
    run = run_trl(wild, EXAMPLES, tmp_path / "run", adapter=start, validation=EXAMPLES[:3])
    assert sorted(run.validation) == [0, 1, 2, 3, 4]
    best = min((1, 2, 3, 4), key=lambda step: run.validation[step])
    assert best < 4 and run.validation[4] > run.validation[best] + 0.1
    short = run_trl(changed(wild, max_steps=best), EXAMPLES, tmp_path / "to", adapter=start)
    assert short.validation == {}
    kept, expected = weights(run.adapter), weights(short.adapter)
    assert_close(kept, expected, atol=1e-6, rtol=0)
    before = by_hand.base_model(preset)
    load_adapter(before, start)
    batches = [mean_loss(before, part) for part in (EXAMPLES[:2], EXAMPLES[2:3])]
    assert run.validation[0] == pytest.approx((2 * batches[0] + batches[1]) / 3, abs=1e-4)
    assert run.tokens == sum(len(x.input_ids) for x in [*EXAMPLES[:6], *EXAMPLES[:2]])


# --- a run that is none ---


def test_what_trains_nothing_is_no_success(preset: SFTPreset, tmp_path: Path) -> None:
    """A rate that float32 cannot hold takes all steps and moves nothing."""
    with pytest.raises(TrainingIncomplete, match="after 4 steps every B of the adapter is sti"):
        run_trl(changed(preset, learning_rate=1e-60), EXAMPLES, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_fewer_steps_than_asked_for_are_no_success(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Stops(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
            control.should_training_stop = state.global_step == 3

    begin = transformers.Trainer.train

    def train(self: Any, **options: Any) -> Any:
        self.add_callback(Stops())
        return begin(self, **options)

    monkeypatch.setattr(transformers.Trainer, "train", train)
    with pytest.raises(TrainingIncomplete, match="the run ended after 3 of 4 steps"):
        run_trl(preset, EXAMPLES, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_a_warm_up_is_not_the_only_step(preset: SFTPreset, tmp_path: Path) -> None:
    """transformers' warm-up begins at rate zero."""
    assert sft_config(changed(preset, max_steps=1, warmup_steps=1), tmp_path).warmup_steps == 0
    run = run_trl(changed(preset, max_steps=1, warmup_steps=1), EXAMPLES, tmp_path)
    assert all(tensor.any() for tensor in weights(run.adapter).values())


def test_an_adapter_of_another_shape_is_no_start(
    preset: SFTPreset, start: Path, tmp_path: Path
) -> None:
    other = replace(preset, lora=replace(preset.lora, lora_alpha=9), model="no/such-model")
    with pytest.raises(ValueError, match=r"^lora_alpha is 4.* in the adapter of .* and 9 in"):
        run_trl(other, EXAMPLES, tmp_path / "run", adapter=start)


# --- what a checkpoint belongs to ---


@pytest.mark.parametrize("where", ["moved", "changed", "more validation"])
def test_a_checkpoint_belongs_to_weights_and_rows_and_not_to_a_place(
    where: str, preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset = changed(preset, save_steps=2)
    step, steps = transformers.Trainer.training_step, []

    def interrupt(*parts: Any, **rest: Any) -> torch.Tensor:
        steps.append(1)
        if len(steps) == 4:
            raise KeyboardInterrupt
        return step(*parts, **rest)

    monkeypatch.setattr(transformers.Trainer, "training_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_trl(preset, EXAMPLES, tmp_path / "run", validation=EXAMPLES[4:])
    shutil.copytree(preset.model, tmp_path / "model")
    preset = replace(preset, model=str(tmp_path / "model"))
    if where == "changed":  # the same shape, other weights
        tensors = load_file(tmp_path / "model" / "model.safetensors")
        name = next(name for name in tensors if "down_proj" in name)
        tensors[name] = tensors[name] * 1.01
        save_file(tensors, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    rows, held_out = EXAMPLES, EXAMPLES[4:]
    if where == "more validation":  # a border between the same rows in the same order
        rows, held_out = EXAMPLES[:6], [EXAMPLES[6], *EXAMPLES[4:]]
    run_trl(preset, rows, tmp_path / "run", validation=held_out)
    assert len(steps) == 4 + (2 if where == "moved" else 4)  # from step 2, or from the start


# --- the same guard as by hand ---


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"explosion_ratio": 0.9, "learning_rate": 1e-9, "max_steps": 30},
         "training diverged at step 20: the loss averages"),  # a guard so strict that it trips
        ({"learning_rate": 1e30, "max_grad_norm": 0.0}, "training diverged at step [12]: the "),
    ],
    ids=["explosion", "no number"],
)  # fmt: skip
@pytest.mark.parametrize("run", [run_trl, run_by_hand])
def test_a_run_that_has_gone_wrong_is_stopped(
    run: Any, settings: dict[str, Any], words: str, preset: SFTPreset, tmp_path: Path
) -> None:
    with pytest.raises(TrainingDiverged, match=words):
        run(changed(preset, **settings), EXAMPLES, tmp_path)
    assert not (tmp_path / "adapter").exists()


def test_an_explosion_may_be_allowed(preset: SFTPreset, tmp_path: Path) -> None:
    allowed = changed(preset, explosion_ratio=0.0, learning_rate=1e-9, max_steps=22)
    assert len(run_trl(allowed, EXAMPLES, tmp_path).losses) == 22


def test_the_number_format_of_the_products_is_the_same(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for dtype, expected in (("bfloat16", True), ("float32", False)):
        monkeypatch.setenv("POSTTRAIN_DTYPE", dtype)
        assert sft_config(changed(preset, bf16=None), tmp_path).bf16 is expected
    assert sft_config(changed(preset, bf16=True), tmp_path).bf16


@pytest.mark.parity
def test_products_in_bfloat16_give_the_losses_of_the_run_by_hand(
    preset: SFTPreset, start: Path, ours: Runner, tmp_path: Path
) -> None:
    """In eight bits of precision, the losses agree to two digits and differ from float32's."""
    run = run_trl(changed(preset, bf16=True), EXAMPLES, tmp_path / "trl", adapter=start)
    losses, _ = ours(changed(preset, bf16=True))
    exact, _ = ours(changed(preset, bf16=False))
    assert_close(run.losses, losses, atol=0.05, rtol=0)
    assert run.losses != pytest.approx(exact, abs=1e-4)
