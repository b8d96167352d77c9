"""posttrain.pretraining.presets: each is built, fits its machine, and gives its reasons."""

import ast
import inspect
import math
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from posttrain.core import doctor
from posttrain.core.storage.texts import CHARACTERS, DATASETS
from posttrain.pretraining import presets
from posttrain.pretraining.data import Batch, CharTokenizer, Corpus
from posttrain.pretraining.model.accounting import parameter_count, training_memory
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.presets import CPU, NANO, PRESETS, PretrainPreset, get_preset
from posttrain.pretraining.training.metrics import summed_loss
from posttrain.pretraining.training.run import SAMPLE_STEPS, train_model

GIB = 2**30
MEMORY = {"cpu": 8, "nano": 8, "t4": 15, "a100": 40}  # GiB that its machine has


def predicted(preset: PretrainPreset, bf16: bool) -> int:
    context = preset.model.max_position_embeddings
    bytes_each = 2 if bf16 else 4
    return training_memory(preset.model, preset.batch_size, context, bytes_each).activations


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_each_preset_is_built_and_fits_its_machine(preset: PretrainPreset):
    with torch.device("meta"):
        model = GPT(preset.model)
    parameters = sum(p.numel() for p in model.parameters())
    assert all(p.is_meta for p in model.parameters())
    memory = training_memory(
        preset.model,
        preset.batch_size,
        preset.model.max_position_embeddings,
        2 if preset.training.use_bf16 else 4,
    )
    assert memory.weights + memory.gradients + memory.optimizer == 16 * parameters
    assert parameter_count(preset.model).total == parameters
    assert memory.total < MEMORY[preset.name] * GIB
    if preset.device == "cuda":  # CUDA's autocast keeps the scores in float32 and bfloat16
        tokens = preset.batch_size * preset.model.max_position_embeddings
        scores = (
            tokens * preset.model.num_attention_heads * preset.model.max_position_embeddings
        )
        assert memory.total + 4 * scores * preset.model.num_hidden_layers < (
            MEMORY[preset.name] * GIB
        )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("preset", [CPU, NANO], ids=["cpu", "nano"])
def test_the_predicted_memory_is_what_a_forward_pass_keeps(preset: PretrainPreset, bf16: bool):
    """Bytes of the distinct storages that autograd saves, the weights left out."""
    model, context = GPT(preset.model), preset.model.max_position_embeddings
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.randint(preset.model.vocab_size, (preset.batch_size, context))
    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=bf16),
    ):
        summed_loss(model, Batch(ids, ids))
    measured = sum(storage.nbytes() for storage in kept.values())
    assert predicted(preset, bf16) == pytest.approx(measured, rel=0.1)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_each_preset_runs_on_a_tiny_model(preset: PretrainPreset):
    """Its own settings, but two steps of a small random model on the CPU."""
    tiny = replace(
        preset,
        device="cpu",
        batch_size=2,
        model=replace(
            preset.model, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=16,
        ),
        training=replace(preset.training, max_steps=2, warmup_steps=1),
    )  # fmt: skip
    text = "a rose is a rose\n" * 4
    tokenizer = CharTokenizer(sorted(set(text)))
    tokens = torch.tensor(tokenizer.encode(text))
    model, history, diverged = train_model(
        tiny, Corpus(tokenizer, tokens, tokens, text), samples=1
    )
    assert diverged is None and len(history.loss) == 2
    assert history.learning_rate[0] == preset.training.learning_rate
    assert model.config.vocab_size == tokenizer.vocab_size
    assert [row["step"] for row in history.evaluations] == [0, 2]
    assert all(math.isfinite(row["val_loss"]) for row in history.evaluations)


# --- the values ---


def calls_with_values(node: ast.AST) -> Iterator[ast.keyword]:
    """The settings of a preset, and of the calls nested in it."""
    assert isinstance(node, ast.Call)
    for keyword in node.keywords:
        if isinstance(keyword.value, ast.Call):
            yield from calls_with_values(keyword.value)
        else:
            yield keyword


def unreasoned(source: str) -> list[str]:
    """Settings in the module's presets whose line does not end in a comment of two words."""
    lines, missing = source.splitlines(), []
    for statement in ast.parse(source).body:
        is_preset = (
            isinstance(statement, ast.Assign)
            and isinstance(statement.value, ast.Call)
            and ast.unparse(statement.value.func) in ("PretrainPreset", "replace")
        )
        for keyword in calls_with_values(statement.value) if is_preset else ():
            line = lines[keyword.value.end_lineno - 1]
            comment = line[keyword.value.end_col_offset :].lstrip(",) ")
            if keyword.arg != "name" and len(comment.lstrip("# ").split()) < 2:
                missing.append(f"line {keyword.lineno}: {keyword.arg}")
    return missing


def test_every_value_stands_beside_its_reason():
    assert unreasoned(inspect.getsource(presets)) == []


def test_a_value_without_a_reason_is_found():
    source = "A = replace(\n    B,\n    x=1,\n    y=f(z=2),\n    w=3,  # as B does\n)\nV = 3\n"
    assert unreasoned(source) == ["line 3: x", "line 4: z"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS.keys())
def test_what_the_reasons_say_is_so(preset: PretrainPreset):
    model = preset.model
    assert model.intermediate_size % 32 == 0
    assert abs(model.intermediate_size - model.hidden_size * 8 / 3) < 32
    assert preset.dataset in DATASETS
    assert model.vocab_size == presets.VOCABULARY == len(CHARACTERS)
    assert model.channels_per_head == (32 if preset.device == "cpu" else 64)


def test_the_sizes_that_comments_name():
    assert CPU.tokens_per_step == 2048 and PRESETS["t4"].tokens_per_step == 16_384
    accumulating = replace(CPU, training=replace(CPU.training, gradient_accumulation_steps=3))
    assert accumulating.tokens_per_step == 3 * 2048
    ratio = parameter_count(CPU.model).total / parameter_count(NANO.model).total
    assert 7.5 < ratio < 8.5  # an eighth
    assert NANO.training.warmup_steps * 10 == NANO.training.max_steps


def test_every_sample_of_the_cpu_run_falls_on_an_evaluation():
    assert all(step % CPU.training.eval_steps == 0 for step in SAMPLE_STEPS)
    assert max(SAMPLE_STEPS) < CPU.training.max_steps


def test_the_doctor_knows_the_same_presets():
    for name in set(PRESETS) - {"nano"}:  # nano needs less than cpu
        needs = doctor.PRESETS[name]
        assert bool(needs.gpu_gib) is (PRESETS[name].device == "cuda")
        assert needs.gpu_bf16 is bool(PRESETS[name].training.bf16)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_found_by_name(name: str):
    assert get_preset(name) is PRESETS[name] and PRESETS[name].name == name


@pytest.mark.parametrize("name", ["gpu", "", "CPU"])
def test_an_unknown_preset_is_one_clear_sentence(name: str):
    with pytest.raises(
        ValueError, match=f"no preset '{name}': choose one of cpu, nano, t4, a100"
    ):
        get_preset(name)


def test_presets_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        CPU.batch_size = 1


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("device", "gpu", "device is 'gpu': give 'cpu', 'cuda' or such as"),
        ("dataset", "", "dataset is '': give a text"),
        ("name", None, "name is None: give a text"),
        ("batch_size", 0, "batch_size is 0: give a whole number from 1 up"),
        ("batch_size", True, "batch_size is True: give a whole number"),
    ],
)
def test_a_setting_that_nothing_answers_to_is_refused(name: str, value: object, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        replace(CPU, **{name: value})
