"""posttrain.sft.command: from the name of a preset to an adapter in a folder."""

from __future__ import annotations

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from posttrain.core.errors import AssetError
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft import command
from posttrain.sft.adapters.files import CONFIG_NAME, WEIGHTS_NAME, load_adapter
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import EncodedChat, Message
from posttrain.sft.command import copy_adapter, encode_until, run_engine, sft_command
from posttrain.sft.data.dataset import Row
from posttrain.sft.data.hub import ChatRow, MappedRows
from posttrain.sft.presets import CPU, PRESETS, T4, SFTPreset
from posttrain.sft.training import run as by_hand
from posttrain.sft.training.trl_engine import EngineRun

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def chat(question: str, answer: str = "Yes.") -> ChatRow:
    messages: list[Message] = [
        {"role": "user", "content": question}, {"role": "assistant", "content": answer},
    ]  # fmt: skip
    return {"messages": messages}


ROWS = [chat(f"Is {n} a number?") for n in range(12)]
LONG, FORGED = chat("word " * 60), chat("<|im_end|>")


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(
        max_steps=3, learning_rate=0.02, warmup_steps=2, gradient_accumulation_steps=2,
        bf16=False,
    )  # fmt: skip
    return replace(tiny_preset, chat_format="smollm2", max_length=60, training=training)


# --- engines ---


def test_the_engine_is_the_presets(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls: list[tuple[Any, ...]] = []

    def engine(name: str) -> Any:
        def run(*parts: Any, **rest: Any) -> EngineRun:
            calls.append((name, *parts, rest))
            return EngineRun([], 0.0, 0, tmp_path)

        return run

    for name in ("trl", "unsloth"):
        monkeypatch.setattr(command, f"run_{name}", engine(name))
        given = replace(preset, engine=name)
        held_out = [EncodedChat([1, 2], [0, 1])]
        run = run_engine(given, [], tmp_path, adapter=tmp_path, validation=held_out)
        assert run.adapter == tmp_path
        options = {"adapter": tmp_path, "validation": held_out}
        assert calls[-1] == (name, given, [], tmp_path, options)
    with pytest.raises(ValueError, match="the preset 'cpu' is trained by hand: call posttrain"):
        run_engine(CPU, [], tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match="the preset 't4' needs a GPU and torch sees none here"
    ):
        run_engine(T4, [], tmp_path)
    assert len(calls) == 2


# --- encoding ---


def test_rows_are_encoded_until_there_are_enough(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    examples, dropped = encode_until(ROWS, tokenizer, preset, 5)
    known = [encode_for_training(row["messages"], tokenizer, "smollm2") for row in ROWS]
    assert len(examples) == 5 and not dropped and all(x in known for x in examples)
    assert examples != known[:5]  # in random order
    assert encode_until(ROWS, tokenizer, preset, 5)[0] == examples
    other = replace(preset, training=replace(preset.training, seed=1))
    assert encode_until(ROWS, tokenizer, other, 5)[0] != examples
    everything, _ = encode_until(ROWS, tokenizer, preset, 100)
    assert sorted(x.input_ids for x in everything) == sorted(x.input_ids for x in known)


def test_what_is_dropped_is_counted(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    rows = [FORGED, *ROWS[:3], LONG, FORGED, {"messages": ROWS[0]["messages"][:1]}]
    examples, dropped = encode_until(rows, tokenizer, preset, 100)
    assert len(examples) == 3
    assert dropped == {"refused": 3, "longer than 60 tokens": 1}
    length = len(examples[0].input_ids)
    exact = replace(preset, max_length=length)
    assert len(encode_until(ROWS[:1], tokenizer, exact, 9)[0]) == 1
    shorter = replace(preset, max_length=length - 1)
    assert encode_until(ROWS[:1], tokenizer, shorter, 9) == ([], Counter(
        {f"longer than {length - 1} tokens": 1}
    ))  # fmt: skip


def test_a_tokenizer_of_another_format_is_refused(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    with pytest.raises(ValueError, match=r"no special token '<\|begin_of_text\|>'"):
        encode_until(ROWS, tokenizer, replace(preset, chat_format="llama-3.2"), 5)


def test_the_gpu_presets_format_writes_what_its_models_read(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
) -> None:
    llama = copy.deepcopy(tokenizer)
    markers = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    llama.add_special_tokens({"additional_special_tokens": markers})
    (example,), _ = encode_until(ROWS[:1], llama, replace(T4, max_length=80), 1)
    text = llama.decode(example.input_ids)
    assert (
        text.startswith("<|begin_of_text|><|start_header_id|>system") and "26 Jul 2024" in text
    )
    trained = [t for t, m in zip(example.input_ids, example.assistant_mask, strict=True) if m]
    assert llama.decode(trained) == "Yes.<|eot_id|>"


# --- the command ---


def row(n: int) -> Row:
    return {
        "id": str(n), "kind": "none", "answer": "Yes.", "confidence": "high", "entry": "{}",
        "messages": ROWS[n]["messages"],
    }  # fmt: skip


@pytest.fixture
def _small(
    store: Path,
    preset: SFTPreset,
    tokenizer: PreTrainedTokenizerBase,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An empty store, small presets of both kinds, and a small data set for each."""
    hand = replace(
        preset, name="hand", engine="by_hand", dataset="reckoning",
        training=replace(preset.training, eval_steps=1, gradient_accumulation_steps=1),
    )  # fmt: skip
    monkeypatch.setitem(PRESETS, "tiny", preset)
    monkeypatch.setitem(PRESETS, "hand", hand)
    monkeypatch.setattr(by_hand, "tokenizer_of", lambda name: tokenizer)
    data = {"train": [row(n) for n in range(8)], "validation": [row(9)]}
    monkeypatch.setattr(by_hand, "build_dataset", lambda: data)
    mapped = MappedRows([*ROWS, LONG, FORGED], Counter({"empty output": 2}))
    monkeypatch.setattr(command, "load_alpaca", lambda: mapped)


@pytest.mark.usefixtures("_small")
def test_a_run_by_hand(preset: SFTPreset, tmp_path: Path) -> None:
    shown = sft_command("hand", None, 4, tmp_path / "out")
    assert shown["preset"] == "hand" and shown["steps"] == 3 and shown["diverged"] is None
    assert shown["val_loss"] < shown["val_loss_before"] and shown["val_loss_at_step"] == 3
    assert shown["seconds_training"] > 0 and shown["adapter"] == str(tmp_path / "out")
    model = by_hand.base_model(preset)
    assert load_adapter(model, tmp_path / "out") == preset.lora
    stored = sft_command("hand", None, 4, None)["adapter"]
    assert stored.endswith("/best")
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        assert (Path(stored) / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    one = sft_command("hand", 1, 4, None)  # shorter than the warm-up
    assert one["steps"] == 1 and one["adapter"] != stored
    assert sft_command("hand", None, 5, None)["adapter"] != stored


@pytest.mark.usefixtures("_small")
def test_a_run_with_an_engine(preset: SFTPreset, tmp_path: Path) -> None:
    shown = sft_command("tiny", 2, 0, tmp_path / "out")
    assert shown["steps"] == 2 and shown["examples"] == 8 and shown["tokens"] > 0
    assert shown["dropped"].pop("empty output") == 2
    assert set(shown["dropped"]) <= {"refused", "longer than 60 tokens"}
    assert load_adapter(by_hand.base_model(preset), tmp_path / "out").r == 2
    again = sft_command("tiny", 2, 0, None)
    folder = Path(again["adapter"]).parent
    assert again["seconds_training"] == shown["seconds_training"]  # it is that run
    losses = json.loads((folder / "losses.json").read_text())
    assert [losses[0], losses[-1]] == [shown["first_loss"], shown["last_loss"]]


@pytest.mark.usefixtures("_small")
def test_a_run_with_an_engine_is_validated_on_rows_of_its_own(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Any, Any]] = []

    def engine(
        preset: SFTPreset, examples: Any, folder: Path, *, validation: Any, **rest: Any
    ) -> EngineRun:
        seen.append((examples, validation))
        (folder / "adapter").mkdir(parents=True)
        return EngineRun([3.0], 1.0, 9, folder / "adapter", {0: 2.0, 1: 1.5, 2: 1.7})

    monkeypatch.setattr(command, "run_engine", engine)
    monkeypatch.setattr(command, "HELD_OUT", 3)
    training = replace(preset.training, eval_steps=1)
    monkeypatch.setitem(PRESETS, "tiny", replace(preset, training=training))
    shown = sft_command("tiny", 2, 0, None)
    assert (shown["examples"], shown["held_out"]) == (8, 3)
    assert (shown["val_loss"], shown["val_loss_at_step"]) == (1.5, 1)
    assert shown["val_loss_before"] == 2.0
    ((examples, held_out),) = seen
    assert not {str(x.input_ids) for x in examples} & {str(x.input_ids) for x in held_out}
    assert json.loads((Path(shown["adapter"]).parent / "validation.json").read_text())


@pytest.mark.usefixtures("store")
def test_a_preset_for_a_gpu_needs_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("t4", "t4-qwen", "a100"):
        sentence = f"the preset '{name}' needs a GPU and torch sees none here: use 'cpu'"
        with pytest.raises(ValueError, match=sentence):
            sft_command(name, None, 0, None)


@pytest.mark.usefixtures("store")
def test_bad_options_are_one_clear_sentence() -> None:
    with pytest.raises(
        ValueError, match="no preset 'big': choose one of cpu, t4, t4-qwen, a100"
    ):
        sft_command("big", None, 0, None)
    with pytest.raises(ValueError, match="max_steps is 0: give a whole number from 1 up"):
        sft_command("cpu", 0, 0, None)


@pytest.mark.usefixtures("_small")
def test_a_model_that_cannot_be_had_is_named(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    missing = replace(preset, model=str(tmp_path / "none"))
    monkeypatch.setitem(PRESETS, "tiny", missing)
    with pytest.raises(AssetError, match=r"/none could not be read from the hub \((OS|HF)"):
        sft_command("tiny", None, 0, None)


def test_a_copy_replaces_the_adapter_that_lay_there(tmp_path: Path) -> None:
    for folder, text in (("a", "new"), ("b", "old")):
        (tmp_path / folder).mkdir()
        for name in (WEIGHTS_NAME, CONFIG_NAME):
            (tmp_path / folder / name).write_text(text)
    for target in ("b", "c/d"):
        copy_adapter(tmp_path / "a", tmp_path / target)
        names = sorted(path.name for path in (tmp_path / target).iterdir())
        assert names == sorted([WEIGHTS_NAME, CONFIG_NAME])
        assert {(tmp_path / target / name).read_text() for name in names} == {"new"}
    with pytest.raises(FileNotFoundError):
        copy_adapter(tmp_path / "nothing", tmp_path / "b")
    assert not (tmp_path / "b" / CONFIG_NAME).exists()  # no adapter, rather than half of two
