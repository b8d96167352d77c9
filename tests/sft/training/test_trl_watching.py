"""The three engines, watched: the same lines on the screen, the same rows in the file."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from posttrain.core.training.optimization import TrainingConfig
from posttrain.core.training.run_log import read_metrics
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import EncodedChat, Message
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.by_hand_engine import run_by_hand
from posttrain.sft.training.trl_engine import EngineRun, run_trl
from posttrain.sft.training.unsloth_engine import run_unsloth
from posttrain.sft.training.watching import Watching, watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ENGINES = {"by_hand": run_by_hand, "trl": run_trl, "unsloth": run_unsloth}
needs_unsloth = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"
)


def conversation(n: int) -> list[Message]:
    return [
        {"role": "system", "content": "Count."},
        {"role": "user", "content": f"{n} and 1?"},
        {"role": "assistant", "content": f"{n + 1}"},
    ]


@pytest.fixture
def examples(tokenizer: PreTrainedTokenizerBase) -> list[EncodedChat]:
    return [encode_for_training(conversation(n), tokenizer) for n in range(8)]


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(
        max_steps=4, learning_rate=0.02, warmup_steps=1, bf16=False, eval_steps=2, save_steps=2
    )
    return replace(tiny_preset, chat_format="smollm2", max_length=60, training=training)


@pytest.fixture
def watching(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> Watching:
    prompts = [conversation(n)[:2] for n in (1, 7)]
    return watch(
        tmp_path / "log", prompts, tokenizer, "smollm2", sample_steps=2, max_new_tokens=3
    )


@pytest.mark.parametrize(
    "engine",
    ["by_hand", "trl", pytest.param("unsloth", marks=[needs_unsloth, pytest.mark.slow])],
)
def test_engines_say_the_same_things(
    engine: str, preset: SFTPreset, examples: list[EncodedChat], watching: Watching,
    tmp_path: Path, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    preset = replace(preset, engine=engine)  # type: ignore[arg-type]
    run: EngineRun = ENGINES[engine](
        preset, examples, tmp_path / "run", validation=examples[:2], watching=watching
    )
    assert len(run.losses) == 4 and sorted(run.validation) == [0, 2, 4]
    assert (run.adapter / "adapter_model.safetensors").is_file()

    rows = read_metrics(tmp_path / "log" / "metrics.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4]
    assert [row["loss"] for row in steps] == pytest.approx(run.losses, abs=1e-4)
    read = [sum(len(x.input_ids) for x in examples[i : i + 2]) for i in range(0, 8, 2)]
    assert sorted(row["tokens"] for row in steps) == sorted(read)
    assert all(row["seconds"] > 0 and row["grad_norm"] > 0 for row in steps)
    evaluations = {row["step"]: row["val_loss"] for row in rows if row["event"] == "evaluation"}
    assert evaluations == pytest.approx(run.validation)
    samples = [row for row in rows if row["event"] == "samples"]
    assert [row["step"] for row in samples] == [0, 2, 4]
    assert [each["prompt"] for each in samples[0]["samples"]] == ["1 and 1?", "7 and 1?"]

    said = capsys.readouterr().out
    for part in ("step    1/4  loss ", "  lr ", " tokens/s  ", " GB  ", " left", "val_loss ",
                 "> 7 and 1?"):  # fmt: skip
        assert part in said, part


def test_the_same_answers_by_hand_and_with_trl(
    preset: SFTPreset, examples: list[EncodedChat], watching: Watching, tmp_path: Path
) -> None:
    found = []
    for engine in (run_by_hand, run_trl):
        engine(preset, examples, tmp_path / engine.__name__, watching=watching)
        rows = read_metrics(tmp_path / "log" / "metrics.jsonl")
        found.append(next(row["samples"] for row in rows if row["event"] == "samples"))
    assert found[0] == found[1] and all(each["answer"] for each in found[0])


def test_watching_changes_nothing(
    preset: SFTPreset, examples: list[EncodedChat], watching: Watching, tmp_path: Path
) -> None:
    for engine in (run_by_hand, run_trl):
        shown = engine(preset, examples, tmp_path / "shown", watching=watching)
        plain = engine(preset, examples, tmp_path / "plain")
        assert shown.losses == plain.losses
        one, other = (r.adapter / "adapter_model.safetensors" for r in (shown, plain))
        assert one.read_bytes() == other.read_bytes()
