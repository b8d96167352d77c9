"""posttrain.sft.training.run: an adapter is trained, the best one kept, and found again."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

from posttrain.core.errors import ArtifactError, TrainingIncomplete
from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.files import WEIGHTS_NAME
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.data.dataset import Row
from posttrain.sft.presets import SFTPreset
from posttrain.sft.quantization.nf4_linear import NF4Linear
from posttrain.sft.training import run as module
from posttrain.sft.training.evaluation import encode_rows, mean_loss
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packing import PackedBatches
from posttrain.sft.training.run import base_model, fine_tuned, train_adapter, tuned_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def row(a: int, b: int) -> Row:
    return {
        "id": f"{a} + {b}", "kind": "sum", "answer": str(a + b), "confidence": "high",
        "entry": "{}", "messages": [
            {"role": "system", "content": "Add."}, {"role": "user", "content": f"{a} + {b}?"},
            {"role": "assistant", "content": f"Answer: {a + b}"},
        ],
    }  # fmt: skip


ROWS = [row(a, b) for a in range(4) for b in range(3)]
HELD_OUT = [row(5, 1), row(6, 2)]


@pytest.fixture
def preset(tiny_base: Path) -> SFTPreset:
    return SFTPreset(
        name="tiny",
        model=str(tiny_base),
        chat_format="smollm2",
        dataset="reckoning",
        engine="by_hand",
        quantization=None,
        dtype="float32",
        lora=LoRAConfig(r=2, lora_alpha=4),
        batch_size=4,
        max_length=64,
        training=TrainingConfig(
            max_steps=8, learning_rate=0.02, bf16=False, eval_steps=2, save_steps=2,
            min_lr_ratio=0.0,
        ),
    )  # fmt: skip


@pytest.fixture(autouse=True)
def _data(
    store: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty store, a tokenizer that is there already, and a small data set."""
    monkeypatch.setattr(module, "tokenizer_of", lambda name: tokenizer)
    monkeypatch.setattr(
        module, "build_dataset", lambda: {"train": ROWS, "validation": HELD_OUT}
    )


def changed(preset: SFTPreset, **training: Any) -> SFTPreset:
    return replace(preset, training=replace(preset.training, **training))


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS_NAME)


def same(a: Path, b: Path) -> bool:
    ours, theirs = adapter(a), adapter(b)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# --- one run ---


def test_the_loss_falls(preset: SFTPreset, tmp_path: Path) -> None:
    model, history, diverged = train_adapter(
        changed(preset, max_steps=25, eval_steps=25, lr_scheduler_type="constant"),
        ROWS, HELD_OUT, tmp_path,
    )  # fmt: skip
    assert diverged is None and not model.training
    assert math.log(49_152) < history.loss[0] < math.log(49_152) + 2
    assert history.loss[-1] < 0.6 * history.loss[0]
    first, last = history.evaluations
    assert (first["step"], last["step"]) == (0, 25) and first.keys() == {"step", "val_loss"}
    assert last["val_loss"] < 0.7 * first["val_loss"]
    frozen = base_model(preset).state_dict()
    assert all(
        torch.equal(p, frozen[n.replace(".base", "")])
        for n, p in model.named_parameters()
        if ".lora_" not in n
    )


def test_the_run_is_the_loop_with_the_presets_settings(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    model, history, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path, seed=3)
    other = base_model(preset)
    inject_lora(other, preset.lora, seed=3)
    rows, held_out = (encode_rows(part, tokenizer, 64) for part in (ROWS, HELD_OUT))
    expected = train(
        other,
        sft_loss,  # type: ignore[arg-type]
        PackedBatches(rows, 4, seed=3),
        replace(preset.training, seed=3),
        evaluate=lambda current, step: {"val_loss": mean_loss(current, held_out)},  # type: ignore[arg-type]
    )
    assert history.loss == expected.loss and history.evaluations == expected.evaluations
    own, theirs = lora_parameters(model), lora_parameters(other)
    assert own.keys() == theirs.keys()
    assert all(torch.equal(own[name], theirs[name]) for name in own)


def test_the_order_can_be_kept(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    preset = changed(preset, max_steps=1, eval_steps=0)
    encoded = encode_rows(ROWS, tokenizer, 64)
    expected = mean_loss(base_model(preset), encoded[:4])  # B is zero
    for seed in (0, 1):
        _, history, _ = train_adapter(
            preset, ROWS, HELD_OUT, tmp_path, seed=seed, keep_order=True
        )
        assert history.loss[0] == pytest.approx(expected, abs=1e-5)
    _, history, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path)
    assert history.loss[0] != pytest.approx(expected, abs=1e-5)


def test_the_best_adapter_is_that_of_the_lowest_validation_loss(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    preset = changed(preset, lr_scheduler_type="constant")
    train_adapter(changed(preset, max_steps=4), ROWS, HELD_OUT, tmp_path / "four")
    script = iter([5.0, 4.0, 3.0, 3.0, 9.0])  # at steps 0, 2, 4, 6, 8
    monkeypatch.setattr(module, "mean_loss", lambda *parts: next(script))
    train_adapter(preset, ROWS, HELD_OUT, tmp_path / "run")
    assert same(tmp_path / "run" / "best", tmp_path / "four" / "last")
    assert not same(tmp_path / "run" / "best", tmp_path / "run" / "last")


def test_a_diverging_run_is_reported_and_kept(preset: SFTPreset, tmp_path: Path) -> None:
    # a guard so strict that a run which learns nothing trips it
    wild = changed(preset, max_steps=60, learning_rate=1e-9, explosion_ratio=0.9)
    _, history, diverged = train_adapter(wild, ROWS, HELD_OUT, tmp_path)
    assert diverged is not None and "training diverged at step" in diverged
    assert len(history.loss) == 20 and history.evaluations[-1]["step"] == 20
    assert adapter(tmp_path / "best").keys() == adapter(tmp_path / "last").keys()
    run = fine_tuned(wild)
    assert run.diverged == diverged and run.history.loss == history.loss
    assert run.best["val_loss"] == min(e["val_loss"] for e in history.evaluations)


def test_answers_are_counted_on_the_way(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[Row]] = []

    def accuracy(model: object, tokenizer: object, rows: list[Row], chat_format: str) -> float:
        assert chat_format == "smollm2"
        torch.rand(1)
        asked.append(rows)
        return 0.5

    monkeypatch.setattr(module, "accuracy_of", accuracy)
    model, history, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path / "a", answer=1)
    assert asked == [HELD_OUT[:1]] * 5
    for evaluation in history.evaluations:
        assert evaluation.keys() == {"step", "val_loss", "train_loss", "accuracy"}
        assert evaluation["accuracy"] == 0.5
    known = encode_rows(ROWS[:1], module.tokenizer_of(""), 64)
    assert history.evaluations[-1]["train_loss"] == mean_loss(model, known)
    train_adapter(preset, ROWS, HELD_OUT, tmp_path / "b")
    assert same(tmp_path / "a" / "last", tmp_path / "b" / "last")


# --- interruptions ---


def interrupt_at(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    draw, drawn = PackedBatches.__next__, []

    def interrupt(self: PackedBatches) -> Any:
        drawn.append(1)
        if len(drawn) == batch:
            raise KeyboardInterrupt
        return draw(self)

    monkeypatch.setattr(PackedBatches, "__next__", interrupt)


@pytest.mark.parametrize("blocks", [None, (1,)])
def test_an_interrupted_run_resumes_to_bit_identical_adapters(
    preset: SFTPreset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    blocks: tuple[int, ...] | None,
) -> None:
    lora = replace(preset.lora, lora_dropout=0.3, layers_to_transform=blocks)
    preset = changed(replace(preset, lora=lora), save_steps=3)
    interrupt_at(monkeypatch, 8)
    with pytest.raises(KeyboardInterrupt):
        train_adapter(preset, ROWS, HELD_OUT, tmp_path / "a", scratch=tmp_path / "scratch")
    _, history, _ = train_adapter(
        preset, ROWS, HELD_OUT, tmp_path / "a", scratch=tmp_path / "scratch"
    )
    _, expected, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path / "b")
    assert history.resumed_at == 6 and expected.resumed_at == 0
    assert history.loss == expected.loss and history.evaluations == expected.evaluations
    for which in ("best", "last"):
        assert same(tmp_path / "a" / which, tmp_path / "b" / which)


def test_a_stored_run_resumes_too(preset: SFTPreset, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, 6)
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(preset)
    run = fine_tuned(preset)
    assert run.history.resumed_at == 4 and run.artifact.record["resumed"] is True
    assert len(run.history.loss) == 8 and run.best_adapter.is_dir()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(
    preset: SFTPreset, tmp_path: Path
) -> None:
    train_adapter(preset, ROWS, HELD_OUT, tmp_path / "a", scratch=tmp_path)
    with pytest.raises(ArtifactError, match=r"another configuration \(learning_rate differ\)"):
        other = changed(preset, learning_rate=0.1)
        train_adapter(other, ROWS, HELD_OUT, tmp_path / "a", scratch=tmp_path)
    others: dict[str, tuple[SFTPreset, dict[str, Any]]] = {
        "lora.lora_alpha": (replace(preset, lora=LoRAConfig(r=2, lora_alpha=8)), {}),
        "lora.r": (replace(preset, lora=LoRAConfig(r=3, lora_alpha=4)), {}),
        "lora.lora_dropout": (replace(preset, lora=replace(preset.lora, lora_dropout=0.1)), {}),
        "batch_size": (replace(preset, batch_size=2), {}),
        "chat_format": (replace(preset, chat_format="chatml"), {}),
        "dtype, frozen weights": (replace(preset, dtype="bfloat16"), {}),
        "frozen weights, quantization": (replace(preset, quantization="nf4"), {}),
        "max_length": (replace(preset, max_length=60), {}),
        "seed": (preset, {"seed": 1}),
        "validation": (preset, {"validation": HELD_OUT[:1]}),
    }
    for names, (other, changes) in others.items():
        with pytest.raises(ArtifactError, match=rf"another configuration \({names} differ\)"):
            arguments = {"rows": ROWS, "validation": HELD_OUT, **changes}
            train_adapter(other, folder=tmp_path / "b", scratch=tmp_path, **arguments)
    for changes in ({"rows": ROWS[:8]}, {"rows": ROWS[::-1]}, {"keep_order": True}):
        with pytest.raises(ArtifactError, match=r"batches \((data|seed) differ from what is"):
            arguments = {"rows": ROWS, "validation": HELD_OUT, **changes}
            train_adapter(preset, folder=tmp_path / "b", scratch=tmp_path, **arguments)
    assert not (tmp_path / "b").exists()  # none of them counts as finished
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt cannot be read: remove it"):
        train_adapter(preset, ROWS, HELD_OUT, tmp_path / "a", scratch=tmp_path)


# --- frozen lower blocks, types, devices ---


def test_streams_of_frozen_blocks_change_nothing(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lora = replace(preset.lora, layers_to_transform=(1,))
    preset = replace(preset, lora=lora)
    assert module.first_adapted_block(preset) == 1
    blocks: list[int] = []
    draw = PackedBatches.__next__

    def note(self: PackedBatches) -> Any:
        batch = draw(self)
        blocks.append(batch.first_block if batch.stream is not None else 0)
        return batch

    monkeypatch.setattr(PackedBatches, "__next__", note)
    _, cached, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path / "a")
    monkeypatch.setattr(module, "first_adapted_block", lambda preset: 0)
    _, plain, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path / "b")
    assert blocks == [1] * 8 + [0] * 8
    assert_close(cached.loss, plain.loss, atol=1e-5, rtol=1e-5)
    ours, theirs = ([e["val_loss"] for e in h.evaluations] for h in (cached, plain))
    assert_close(ours, theirs, atol=1e-5, rtol=1e-5)
    assert all(".layers.1." in name for name in adapter(tmp_path / "a" / "last"))


def test_the_lowest_adapted_block_is_the_first_that_is_trained(preset: SFTPreset) -> None:
    for blocks, first in ((None, 0), ((0, 1), 0), ((7, 3, 5), 3)):
        lora = replace(preset.lora, layers_to_transform=blocks)
        assert module.first_adapted_block(replace(preset, lora=lora)) == first


def test_a_base_in_four_bits_is_trained_the_same_way(preset: SFTPreset, tmp_path: Path) -> None:
    model, history, _ = train_adapter(
        replace(preset, quantization="nf4"), ROWS, HELD_OUT, tmp_path
    )
    assert isinstance(model.layers[0].mlp.up_proj.base, NF4Linear)
    assert isinstance(model.lm_head, torch.nn.Linear)
    assert history.loss[-1] < history.loss[0]


def test_the_type_of_the_weights(preset: SFTPreset) -> None:
    model = base_model(replace(preset, dtype="bfloat16"))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16} and not model.training


def test_rows_that_cannot_be_used_are_refused(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[SFTPreset] = []
    monkeypatch.setattr(module, "base_model", loaded.append)
    with pytest.raises(
        ValueError, match=r"the row '0 \+ 0' has \d+ tokens and max_length is 9"
    ):
        train_adapter(replace(preset, max_length=9), ROWS, HELD_OUT, tmp_path)
    for rows in (ROWS[:3], []):
        sentence = f"{len(rows)} examples do not fill one step of batch_size 4 x"
        with pytest.raises(ValueError, match=sentence):
            train_adapter(preset, rows, HELD_OUT, tmp_path)
    with pytest.raises(ValueError, match="batch_size 4 x gradient_accumulation_steps 4 = 16"):
        train_adapter(changed(preset, gradient_accumulation_steps=4), ROWS, HELD_OUT, tmp_path)
    with pytest.raises(ValueError, match="there is nothing to measure"):
        train_adapter(preset, ROWS, [], tmp_path)
    unanswered: Any = {**ROWS[0], "messages": ROWS[0]["messages"][:-1]}
    for rows, held_out in (([unanswered, *ROWS], HELD_OUT), (ROWS, [unanswered])):
        with pytest.raises(ValueError, match=r"the row '0 [+] 0': the last message is from"):
            train_adapter(preset, rows, held_out, tmp_path)
    nameless: Any = {"messages": ROWS[0]["messages"]}
    with pytest.raises(ValueError, match=r"row 0, counted from 0, has \d+ tokens and max_len"):
        train_adapter(replace(preset, max_length=9), [nameless], HELD_OUT, tmp_path)
    with pytest.raises(ValueError, match="row 0, counted from 0, has no 'kind', by which its"):
        train_adapter(preset, ROWS, [nameless], tmp_path, answer=1)
    with pytest.raises(ValueError, match="answer is -1: give a whole number from 0 up"):
        train_adapter(preset, ROWS, HELD_OUT, tmp_path, answer=-1)
    assert list(tmp_path.iterdir()) == [] and not loaded


def test_a_row_needs_messages_alone_where_nothing_is_judged(
    preset: SFTPreset, tmp_path: Path
) -> None:
    bare: Any = [{"messages": row["messages"]} for row in ROWS]
    _, history, _ = train_adapter(changed(preset, max_steps=2), bare, bare[:1], tmp_path / "a")
    _, named, _ = train_adapter(changed(preset, max_steps=2), ROWS, ROWS[:1], tmp_path / "b")
    assert history.loss == named.loss


# --- the chat format ---


def without_system(rows: list[Row]) -> list[Row]:
    """Where a conversation brings none, the formats differ."""
    return [{**row, "messages": row["messages"][1:]} for row in rows]


def test_the_format_of_the_preset_is_the_one_that_is_trained(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    rows, held_out = without_system(ROWS), without_system(HELD_OUT)
    losses = {}
    for name in ("smollm2", "chatml"):
        given = replace(changed(preset, max_steps=1), chat_format=name)
        _, history, _ = train_adapter(given, rows, held_out, tmp_path / name, keep_order=True)
        encoded = encode_rows(rows, tokenizer, 64, name)
        assert history.loss[0] == pytest.approx(mean_loss(base_model(preset), encoded[:4]))
        losses[name] = history.loss[0], history.evaluations[0]["val_loss"]
    assert all(a != pytest.approx(b) for a, b in zip(*losses.values(), strict=True))


def test_a_format_that_is_not_the_models_is_refused_before_the_model_is_loaded(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[SFTPreset] = []
    monkeypatch.setattr(module, "base_model", loaded.append)
    with pytest.raises(ValueError, match=r"the tokenizer has no special token '<.begin_of"):
        train_adapter(replace(preset, chat_format="llama-3"), ROWS, HELD_OUT, tmp_path)
    with pytest.raises(ValueError, match="chat_format is 'smollm': choose one of 'chatml', "):
        replace(preset, chat_format="smollm")
    assert not loaded


def test_an_adapter_that_did_not_move_is_no_success(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    with pytest.raises(TrainingIncomplete, match=r"after 8 steps every B .* is still zero"):
        train_adapter(preset, ROWS, HELD_OUT, tmp_path)
    assert not (tmp_path / "last").exists()


# --- the store ---


def test_a_run_is_trained_once_and_found_again(
    preset: SFTPreset, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    first, second = fine_tuned(preset), fine_tuned(preset)
    assert not first.artifact.reused and second.artifact.reused
    assert first.artifact.folder == second.artifact.folder
    assert first.artifact.folder.parent.name == "sft-tiny"
    assert first.history == second.history and second.diverged is None
    _, history, _ = train_adapter(preset, ROWS, HELD_OUT, tmp_path)
    assert history.loss == second.history.loss
    assert same(second.best_adapter, tmp_path / "best")
    assert same(second.last_adapter, tmp_path / "last")
    model = tuned_model(second)
    held_out = encode_rows(HELD_OUT, tokenizer, 64)
    assert not model.training
    assert mean_loss(model, held_out) == pytest.approx(second.best["val_loss"], abs=1e-6)
    last = tuned_model(second, second.last_adapter)
    expected = second.history.evaluations[-1]["val_loss"]
    assert mean_loss(last, held_out) == pytest.approx(expected, abs=1e-6)
    assert json.loads((second.last_adapter / "adapter_config.json").read_text())["r"] == 2


def test_what_decides_a_run_decides_its_place(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = changed(preset, max_steps=1, eval_steps=0, save_steps=0)
    monkeypatch.setattr(module, "accuracy_of", lambda *parts: 0.0)
    runs = [
        fine_tuned(preset),
        fine_tuned(preset, seed=1),
        fine_tuned(preset, examples=4),
        fine_tuned(preset, answer=1),
        fine_tuned(replace(preset, batch_size=2)),
        fine_tuned(replace(preset, lora=LoRAConfig(r=3))),
    ]
    monkeypatch.setattr(
        module, "build_dataset", lambda: {"train": ROWS, "validation": HELD_OUT[:1]}
    )
    runs.append(fine_tuned(preset))
    assert len({run.artifact.folder for run in runs}) == 7
    assert {"posttrain.core.training.loop", "posttrain.sft.training.loss"} <= set(
        runs[0].artifact.record["modules"]
    )


def test_the_base_seed_stands_in_for_a_seed(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = changed(preset, max_steps=1, eval_steps=0, save_steps=0)
    zero = fine_tuned(preset)
    monkeypatch.setenv("POSTTRAIN_SEED", "1000")
    run = fine_tuned(preset)
    assert (zero.seed, run.seed) == (0, 1000)
    assert not same(zero.last_adapter, run.last_adapter)
    assert fine_tuned(preset, 1000).artifact.reused and fine_tuned(preset, 0).artifact.reused


def test_presets_that_cannot_run_here_are_refused(
    preset: SFTPreset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="'tiny' needs a GPU and torch sees none here: use 'c"):
        fine_tuned(replace(preset, device="cuda"))
    sentence = "'t4' trains alpaca-cleaned with unsloth: run posttrain sft --preset t4, or call"
    with pytest.raises(ValueError, match=sentence):
        fine_tuned("t4")
    with pytest.raises(
        ValueError, match="no preset 'big': choose one of cpu, t4, t4-qwen, gpu24, a100"
    ):
        fine_tuned("big")
    with pytest.raises(ValueError, match="-1 examples cannot be kept: give a number, or 0"):
        fine_tuned(preset, examples=-1)
