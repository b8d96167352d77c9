"""posttrain.sft.presets: each is built, fits its machine, runs in small, has its reasons."""

from __future__ import annotations

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest
import torch

from posttrain.core import doctor
from posttrain.core.training.optimization import learning_rate_at
from posttrain.pretraining import presets as pretraining
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft import presets
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.injection import inject_lora, trainable_parameter_count
from posttrain.sft.chat.formats import FORMATS
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.experiments import SWEEP
from posttrain.sft.presets import (
    A100,
    CPU,
    GPU24,
    PRESETS,
    T4,
    T4_QWEN,
    SFTPreset,
    dtype_of,
    get_preset,
)
from posttrain.sft.training import run as by_hand
from posttrain.sft.training.memory import (
    PUBLISHED_SHAPES,
    FineTuneMemory,
    adapter_parameters,
    finetune_memory,
    total_parameters,
)
from posttrain.sft.training.trl_engine import peft_config, run_trl, sft_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHAPES = {"cpu": "SmolLM2-135M", "t4": "Llama-3.2-1B", "t4-qwen": "Qwen2.5-1.5B",
          "gpu24": "Qwen2.5-7B", "a100": "Qwen2.5-7B"}  # fmt: skip
MEMORY = {
    "cpu": 8e9,
    "t4": 15e9,
    "t4-qwen": 15e9,
    "gpu24": 23e9,
    "a100": 40e9,
}  # bytes of its machine
ALPACA = 51_760  # rows
EXAMPLES = [
    EncodedChat([1, 40 + i, 50, *range(60, 64 + i)], [0, 0, 0, *[1] * (4 + i)])
    for i in range(16)
]
each = pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())


def predicted(
    preset: SFTPreset, method: Literal["lora", "qlora"] | None = None
) -> FineTuneMemory:
    """Full batches: every row as long as allowed, and every token trained."""
    bytes_each = 4 if preset.name == "cpu" else 2
    return finetune_memory(
        PUBLISHED_SHAPES[SHAPES[preset.name]],
        method or ("qlora" if preset.quantization else "lora"),
        preset.lora,
        batch_size=preset.batch_size,
        T=preset.max_length,
        weight_bytes=bytes_each,
        activation_bytes=bytes_each,
        gradient_checkpointing=preset.device == "cuda",  # see sft_config
        fused_attention=preset.device == "cuda",
    )


def conversations_per_step(preset: SFTPreset) -> int:
    return preset.batch_size * preset.training.gradient_accumulation_steps


# --- objects and memory ---


@each
def test_each_preset_fits_its_machine(preset: SFTPreset) -> None:
    memory = predicted(preset)
    assert memory.total < MEMORY[preset.name]
    vocabulary = PUBLISHED_SHAPES[SHAPES[preset.name]].vocab_size
    assert memory.logits == 8 * vocabulary * preset.batch_size * preset.max_length
    doubled = replace(preset, batch_size=4 * preset.batch_size)
    assert predicted(doubled).total > MEMORY[preset.name] or preset.device == "cpu"


@each
def test_the_objects_of_each_preset_are_built(preset: SFTPreset, tmp_path: Path) -> None:
    shape = PUBLISHED_SHAPES[SHAPES[preset.name]]
    with torch.device("meta"):
        model = GPT(shape)
    inject_lora(model, preset.lora)
    assert trainable_parameter_count(model) == adapter_parameters(shape, preset.lora)
    assert SHAPES[preset.name] in preset.model or preset.name == "cpu"
    assert preset.chat_format in FORMATS and preset.engine in ("by_hand", "trl", "unsloth")
    theirs = sft_config(preset, tmp_path)
    assert theirs.max_steps == preset.training.max_steps
    assert theirs.gradient_checkpointing is (preset.device == "cuda")
    assert peft_config(preset.lora).r == preset.lora.r


# --- the same code path, in small ---


@pytest.mark.parametrize("preset", [T4, A100], ids=["t4", "a100"])  # float16 and bfloat16
def test_gpu_presets_run_in_small(preset: SFTPreset, tiny_base: Path, tmp_path: Path) -> None:
    """Its own settings, but one step of a tiny random model on the CPU, in whole weights."""
    small = replace(
        preset,
        model=str(tiny_base),
        device="cpu",
        quantization=None,
        training=replace(preset.training, max_steps=1, warmup_steps=0),
    )
    run = run_trl(small, EXAMPLES, tmp_path)
    assert len(run.losses) == 1 and math.isfinite(run.losses[0])
    assert run.tokens == sum(len(example.input_ids) for example in EXAMPLES)
    model = by_hand.base_model(replace(small, dtype="float32"))
    loaded = load_adapter(model, run.adapter)
    assert (loaded.r, loaded.scaling) == (preset.lora.r, preset.lora.scaling)
    assert set(loaded.target_modules) == set(preset.lora.target_modules)


def test_the_cpu_preset_runs_in_small(
    tiny_base: Path,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(by_hand, "tokenizer_of", lambda name: tokenizer)
    monkeypatch.setattr(by_hand, "encode_rows", lambda rows, *rest: rows)
    training = replace(CPU.training, max_steps=2)
    small = replace(CPU, model=str(tiny_base), training=training)
    _, history, diverged = by_hand.train_adapter(
        small,
        EXAMPLES,  # type: ignore[arg-type]
        EXAMPLES[:2],  # type: ignore[arg-type]
        tmp_path,
    )
    assert diverged is None and len(history.loss) == 2
    assert history.learning_rate[0] == CPU.training.learning_rate
    assert [e["step"] for e in history.evaluations] == [0, 2]


# --- the values ---


def calls_with_values(node: ast.AST) -> Iterator[ast.keyword]:
    """The settings of a preset, and of the calls nested in it."""
    assert isinstance(node, ast.Call)
    for keyword in node.keywords:
        inner = keyword.value
        if isinstance(inner, ast.Call) and inner.lineno != inner.end_lineno:
            yield from calls_with_values(inner)
        else:  # a call on one line has one reason
            yield keyword


def unreasoned(source: str) -> list[str]:
    """Settings in the module's presets whose line does not end in a comment of two words."""
    lines, missing = source.splitlines(), []
    for statement in ast.parse(source).body:
        is_preset = (
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Call)
            and ast.unparse(statement.value.func) in ("SFTPreset", "replace")
        )
        for keyword in calls_with_values(statement.value) if is_preset else ():
            line = lines[(keyword.value.end_lineno or 1) - 1]
            comment = line[keyword.value.end_col_offset :].lstrip(",) ")
            words = comment.removeprefix("# ").split() if comment.startswith("# ") else []
            if keyword.arg != "name" and len(words) < 2:
                missing.append(f"line {keyword.lineno}: {keyword.arg}")
    return missing


def test_every_value_stands_beside_its_reason() -> None:
    source = inspect.getsource(presets)
    assert unreasoned(source) == []
    (last,) = (
        statement.value
        for statement in ast.parse(source).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "A100"
    )
    assert len(list(calls_with_values(last))) > 8


def test_a_value_without_a_reason_is_found() -> None:
    source = (
        "A = replace(\n    B,\n    x=1,\n    y=f(\n        z=2,\n    ),\n    w=3,  # as B\n"
        "    v=g(u=4, t=5),\n    s=g(r=6),  # two words\n    q=7,  # one\n)\nV = 3\n"
    )
    assert unreasoned(source) == ["line 3: x", "line 5: z", "line 8: v", "line 10: q"]


def test_what_the_reasons_say_is_so() -> None:
    assert CPU.training.max_steps * CPU.batch_size == 576  # nearly one pass over 600
    assert CPU.training.max_steps / CPU.training.eval_steps == 2  # and step 0: three points
    model = PUBLISHED_SHAPES[SHAPES["cpu"]]
    share = adapter_parameters(model, CPU.lora) / total_parameters(model)
    assert round(100 * share, 1) == 1.8
    assert CPU.training.max_steps == 2 * CPU.training.save_steps
    assert CPU.training.learning_rate == 4e-3 and SWEEP.training.max_steps == 12
    rates = [replace(SWEEP.training, warmup_steps=steps) for steps in (0, 2)]
    plain, warmed = (sum(learning_rate_at(i, x) for i in range(12)) for x in rates)
    assert round(100 * (warmed / plain - 1)) == 8
    assert CPU.lora.scaling == 2 and T4.lora.scaling == A100.lora.scaling == 1
    assert {conversations_per_step(preset) for preset in PRESETS.values()} == {16}
    for preset in (T4, T4_QWEN, GPU24, A100):
        assert preset.training.max_steps == 20 * preset.training.warmup_steps
    assert T4.training.max_steps == 6 * T4.training.eval_steps
    assert GPU24.training.max_steps == 6 * GPU24.training.eval_steps == T4.training.max_steps
    assert A100.training.max_steps == 8 * A100.training.eval_steps
    assert T4.training.max_steps * 16 == 9_600 and 0.17 < 9_600 / ALPACA < 0.2
    assert 0.48 < A100.training.max_steps * 16 / ALPACA < 0.52
    assert PUBLISHED_SHAPES["Qwen2.5-1.5B"].vocab_size == 151_936
    assert A100.batch_size * A100.max_length == 16_384
    memory = predicted(A100)
    assert round(memory.total / 1e9) == 34 and round(memory.logits / 1e9) == 20
    memory = predicted(GPU24)
    assert round(memory.total / 1e9) == 20 and round(memory.logits / 1e9) == 10
    assert 2 * GPU24.batch_size == A100.batch_size and GPU24.max_length == A100.max_length


def test_the_4_bit_presets_say_what_16_bits_would_take() -> None:
    """Chapter sft/qlora computes the same numbers."""
    for preset, sixteen, four, fits in (
        (T4, 12.4, 11.0, True), (T4_QWEN, 9.2, 7.2, True), (GPU24, 30.0, 20.3, False),
        (A100, 43.4, 33.7, False),
    ):  # fmt: skip
        assert preset.quantization == "nf4"
        assert round(predicted(preset, "lora").total / 1e9, 1) == sixteen
        assert round(predicted(preset).total / 1e9, 1) == four
        assert (predicted(preset, "lora").total < MEMORY[preset.name]) is fits


@pytest.mark.parametrize(
    "preset", [T4, T4_QWEN, GPU24, A100], ids=["t4", "t4-qwen", "gpu24", "a100"]
)
def test_gpu_presets_do_what_the_chapters_teach(preset: SFTPreset, tmp_path: Path) -> None:
    """A warm-up, a validation loss on the way, and the adapter of the lowest one."""
    training = preset.training
    assert training.warmup_steps > 0 and training.max_steps % training.eval_steps == 0
    assert training.max_steps // training.eval_steps >= 5
    assert training.save_steps == training.eval_steps
    theirs = sft_config(preset, tmp_path, validate=True)
    assert theirs.load_best_model_at_end and theirs.metric_for_best_model == "eval_loss"
    assert theirs.warmup_steps == training.warmup_steps


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_found_by_name(name: str) -> None:
    assert get_preset(name) is PRESETS[name] and PRESETS[name].name == name


@pytest.mark.parametrize("name", ["gpu", "", "T4"])
def test_an_unknown_preset_is_one_clear_sentence(name: str) -> None:
    sentence = f"no preset '{name}': choose one of cpu, t4, t4-qwen, gpu24, a100"
    with pytest.raises(ValueError, match=sentence):
        get_preset(name)


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        CPU.batch_size = 1  # type: ignore[misc]


def test_the_type_that_a_preset_computes_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "preferred_dtype", lambda: torch.float64)
    assert dtype_of(replace(CPU, dtype="auto")) == torch.float64
    assert dtype_of(replace(CPU, dtype="float16")) == torch.float16


# --- what no preset can be ---


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("engine", "deepspeed", "engine is 'deepspeed': choose one of 'by_hand', 'trl', 'uns"),
        ("engine", None, "engine is None: choose one of"),
        ("quantization", "int8", "quantization is 'int8': choose one of 'nf4', None"),
        ("quantization", "", "quantization is '': choose one of"),
        ("dtype", "fp16", "dtype is 'fp16': choose one of 'auto', 'bfloat16', 'float16', 'flo"),
        ("device", "gpu", "device is 'gpu': choose one of 'cpu', 'cuda'"),
        ("dataset", "alpaca", "dataset is 'alpaca': choose one of 'reckoning', 'alpaca-clean"),
        ("chat_format", "llama-4", "chat_format is 'llama-4': choose one of 'chatml', 'smollm"),
        ("chat_format", None, "chat_format is None: give a text"),
        ("chat_format", FORMATS["smollm2"], "chat_format is ChatFormat.*: give a text"),
        ("model", "", "model is '': give a text"),
        ("name", 3, "name is 3: give a text"),
        ("batch_size", 0, "batch_size is 0: give a whole number from 1 up"),
        ("batch_size", True, "batch_size is True: give a whole number from 1 up"),
        ("max_length", 1.5, "max_length is 1.5: give a whole number from 1 up"),
        ("lora", {"r": 8}, "lora is .*: give a LoRAConfig"),
        ("training", None, "training is None: give a TrainingConfig"),
    ],
)
def test_a_setting_that_nothing_answers_to_is_refused(
    name: str, value: object, sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        replace(CPU, **{name: value})  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_every_setting_that_is_offered_is_accepted() -> None:
    for name in FORMATS:
        assert replace(CPU, chat_format=name).chat_format == name
    for quantization in ("nf4", None):
        assert replace(T4, quantization=quantization).quantization == quantization


def test_the_doctor_knows_every_preset() -> None:
    for name, preset in PRESETS.items():
        needs = doctor.PRESETS[name]
        assert bool(needs.gpu_gib) is (preset.device == "cuda")
        assert needs.gpu_bf16 is (preset.dtype == "bfloat16")
    assert set(doctor.PRESETS) <= set(PRESETS) | set(pretraining.PRESETS)
