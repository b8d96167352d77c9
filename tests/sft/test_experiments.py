"""posttrain.sft.experiments: what is stored under which key, and how it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from posttrain.sft import experiments
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.experiments import (
    ENGINES,
    OVERFIT,
    SWEEP,
    answers_of,
    compare_engines,
    initial_adapter,
)
from posttrain.sft.presets import CPU
from posttrain.sft.training.run import base_model, first_adapted_block


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[dict[str, Any]]:
    """Replace the model by one that answers each question with its number of letters."""
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    calls: list[dict[str, Any]] = []

    def write(
        model: object, tokenizer: object, conversations: Any, **options: Any
    ) -> list[str]:
        calls.append({"conversations": conversations, **options})
        return [f"Answer: {len(conversation[-1]['content'])}" for conversation in conversations]

    monkeypatch.setattr(experiments, "write_answers", write)
    monkeypatch.setattr(experiments, "tokenizer_of", lambda name: None)
    monkeypatch.setattr(experiments, "base_model", lambda preset: None)
    monkeypatch.setattr("posttrain.sft.training.evaluation.plain_model", lambda model: None)
    monkeypatch.setattr("posttrain.pretraining.sampling.decoding.PackedGPT", lambda model: None)
    return calls


@pytest.mark.parametrize("prompt", ["plain", "few-shot"])
def test_answers_stand_beside_their_questions_and_are_made_once(
    asked: list[dict[str, Any]], prompt: Any
) -> None:
    answers = answers_of(None, prompt=prompt)
    assert answers.rows == build_dataset()["test"]
    for row, text in zip(answers.rows, answers.texts, strict=True):
        assert text == f"Answer: {len(row['messages'][1]['content'])}"
    calls = len(asked)
    assert calls == (1 if prompt == "plain" else 8)  # once, or once per kind
    again = answers_of(None, prompt=prompt)
    assert again == answers and len(asked) == calls


def test_worked_examples_are_shared_and_the_question_is_not(
    asked: list[dict[str, Any]],
) -> None:
    answers_of(None, prompt="few-shot", shots=2)
    for call in asked:
        first, last = call["conversations"][0], call["conversations"][-1]
        assert call["shared"] == 5 and first[:5] == last[:5] and first[5] != last[5]
        assert [message["role"] for message in first[1:]] == [
            "user", "assistant", "user", "assistant", "user",
        ]  # fmt: skip


def test_each_run_has_answers_of_its_own(
    asked: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiments, "tuned_model", lambda run: None)
    runs: list[Any] = [
        SimpleNamespace(preset=CPU, artifact=SimpleNamespace(folder=Path(key)))
        for key in ("a", "b")
    ]
    for run in (None, *runs):
        answers_of(run)
    assert len(asked) == 3


def test_the_engines_start_from_the_base_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    seeds: list[int] = []

    def get_or_build(name: str, build: object, *, config: Any, **_: Any) -> Any:
        seeds.append(config["preset"]["training"]["seed"])
        return SimpleNamespace(metrics={})

    monkeypatch.setattr(experiments, "get_or_build", get_or_build)
    compare_engines()
    monkeypatch.setenv("POSTTRAIN_SEED", "1000")
    compare_engines()
    assert seeds == [0, 1000]


def test_presets_of_the_experiments() -> None:
    assert first_adapted_block(SWEEP) == first_adapted_block(OVERFIT) == 26
    assert OVERFIT.lora.scaling == SWEEP.lora.scaling == CPU.lora.scaling
    assert ENGINES.dtype == "float32" and ENGINES.lora == CPU.lora
    assert ENGINES.training.warmup_steps == 0  # or transformers' schedule would differ
    assert OVERFIT.training.max_steps % OVERFIT.training.eval_steps == 0


def test_the_initial_adapter_is_the_one_that_a_run_by_hand_draws(
    tiny_base: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    preset = replace(
        ENGINES, model=str(tiny_base), lora=LoRAConfig(r=2),
        training=replace(ENGINES.training, seed=3),
    )  # fmt: skip
    folder = initial_adapter(preset, tmp_path / "start")
    model = base_model(preset)
    inject_lora(model, preset.lora, 3)
    saved = load_file(folder / "adapter_model.safetensors")
    ours = {name: value for name, value in lora_parameters(model).items()}
    assert len(saved) == len(ours)
    for name, value in ours.items():
        layer, _, kind = name.rpartition(".")
        assert (saved[f"base_model.model.model.{layer}.{kind}.weight"] == value).all()
