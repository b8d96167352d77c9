"""posttrain.pretraining.training.run: runs that are trained once, then come from the store."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.errors import ArtifactError
from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.data import CharTokenizer, Corpus, RandomWindows
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.presets import PretrainPreset
from posttrain.pretraining.training import run as module
from posttrain.pretraining.training.failures import LeakyGPT
from posttrain.pretraining.training.metrics import summed_loss
from posttrain.pretraining.training.run import (
    corpus_of,
    pretrain_command,
    pretrained,
    train_model,
)

TEXT = "the quick brown fox jumps over the lazy dog\nand runs away into the dark wood\n" * 3
PRESET = PretrainPreset(
    name="tiny",
    dataset="foxes",
    model=GPTConfig(
        vocab_size=1, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=16,
    ),
    batch_size=4,
    training=TrainingConfig(
        max_steps=12, learning_rate=0.01, warmup_steps=2, bf16=False, eval_steps=4, save_steps=2
    ),
)  # fmt: skip


def make_corpus(text: str = TEXT) -> Corpus:
    tokenizer = CharTokenizer(sorted(set(text)))
    tokens = torch.tensor(tokenizer.encode(text))
    return Corpus(tokenizer, tokens, tokens[-78:], text)


@pytest.fixture(autouse=True)
def foxes(store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty store, and a data set of one's own."""
    corpus_of.cache_clear()
    monkeypatch.setattr(module, "load_corpus", lambda name: make_corpus())
    yield
    corpus_of.cache_clear()


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


# --- the corpus ---


def test_a_corpus_is_loaded_once(monkeypatch: pytest.MonkeyPatch):
    names: list[str] = []
    monkeypatch.setattr(module, "load_corpus", lambda name: names.append(name) or make_corpus())
    assert corpus_of("foxes") is corpus_of("foxes")
    short = corpus_of("foxes", 20)
    assert short.train_text == TEXT[:20] and len(short.train) == 20
    assert torch.equal(short.train, corpus_of("foxes").train[:20])
    assert torch.equal(short.validation, corpus_of("foxes").validation)
    assert short.tokenizer is corpus_of("foxes").tokenizer
    assert names == ["foxes"]


def test_a_negative_number_of_characters_is_refused():
    with pytest.raises(ValueError, match="-5 characters cannot be kept: give a number, or 0"):
        corpus_of("foxes", -5)


# --- training ---


def test_fifty_steps_memorize_a_small_text():
    config = replace(PRESET.training, max_steps=50, learning_rate=0.02)
    _, history, diverged = train_model(
        replace(PRESET, training=config, batch_size=16), make_corpus()
    )
    assert diverged is None
    vocabulary = len(set(TEXT))
    assert history.loss[0] == pytest.approx(math.log(vocabulary), abs=0.15)
    assert sum(history.loss[-10:]) / 10 < 1.0
    assert history.evaluations[-1]["val_loss"] < 1.0 < history.evaluations[0]["val_loss"]


def test_the_run_is_the_loop_with_the_presets_settings():
    model, history, _ = train_model(PRESET, make_corpus(), seed=3)
    torch.manual_seed(3)
    other = GPT(replace(PRESET.model, vocab_size=len(set(TEXT))))
    batches = RandomWindows(make_corpus().train, 4, 16, seed=3)
    expected = train(other, summed_loss, batches, replace(PRESET.training, seed=3))
    assert history.loss == expected.loss and same(model, other)


def test_samples_and_evaluations_do_not_change_the_weights():
    quiet = replace(PRESET, training=replace(PRESET.training, eval_steps=0))
    model, _, _ = train_model(PRESET, make_corpus(), samples=2)
    other, _, _ = train_model(quiet, make_corpus())
    assert same(model, other)


def test_samples_are_written_at_the_start_and_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SAMPLE_STEPS", (0, 8))
    run = pretrained(PRESET, samples=2)
    assert [row["step"] for row in run.history.evaluations] == [0, 4, 8, 12]
    assert sorted(run.samples) == [0, 8, 12]
    assert [len(text) for text in run.samples[12]] == [400, 400]
    assert all(row.keys() == {"step", "train_loss", "val_loss", "samples"}
               for row in run.history.evaluations)  # fmt: skip


def test_a_text_shorter_than_a_window_is_one_clear_sentence():
    with pytest.raises(
        ValueError, match="a window needs 17 tokens in a row: give a longer text"
    ):
        pretrained(PRESET, train_characters=16)


# --- the store ---


def test_a_run_is_trained_once_and_found_again():
    first = pretrained(PRESET, samples=1)
    second = pretrained(PRESET, samples=1)
    assert not first.artifact.reused and second.artifact.reused
    assert first.artifact.folder == second.artifact.folder
    assert first.artifact.folder.parent.name == "pretraining-tiny"
    assert same(first.model, second.model) and first.history == second.history
    assert first.diverged is None and not second.model.training
    model, history, _ = train_model(PRESET, make_corpus(), samples=1)
    assert same(model, second.model) and history.loss == second.history.loss
    assert second.model.lm_head.weight is second.model.embed_tokens.weight


def test_what_decides_a_run_decides_its_place():
    folders = [
        run.artifact.folder
        for run in (
            pretrained(PRESET),
            pretrained(PRESET, seed=1),
            pretrained(PRESET, model_class=LeakyGPT),
            pretrained(PRESET, train_characters=100),
            pretrained(replace(PRESET, batch_size=2)),
            pretrained(replace(PRESET, training=replace(PRESET.training, bf16=True))),
        )
    ]
    assert len(set(folders)) == 6


def test_the_base_seed_stands_in_for_a_seed(monkeypatch: pytest.MonkeyPatch):
    short = replace(PRESET, training=replace(PRESET.training, max_steps=2))
    zero = pretrained(short)
    monkeypatch.setenv("POSTTRAIN_SEED", "1000")
    run = pretrained(short)
    assert (zero.seed, run.seed) == (0, 1000)
    assert not same(zero.model, run.model)
    assert pretrained(short, 1000).artifact.reused and pretrained(short, 0).artifact.reused


def test_the_code_of_the_model_class_counts():
    record = pretrained(PRESET, model_class=LeakyGPT).artifact.record
    assert "posttrain.pretraining.training.failures" in record["modules"]
    assert {"posttrain.core.training.loop", "posttrain.pretraining.model.gpt"} <= set(
        record["modules"]
    )


def test_a_class_of_a_notebook_is_refused(monkeypatch: pytest.MonkeyPatch):
    """Its code cannot be hashed, so a stale run would be found after an edit."""
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)  # as in a notebook
    in_notebook = type("Mine", (GPT,), {"__module__": "__main__"})
    with pytest.raises(ValueError, match="no source for the module '__main__'"):
        pretrained(PRESET, model_class=in_notebook)


def test_machines_with_and_without_bf16_keep_runs_of_their_own(monkeypatch):
    preset = replace(PRESET, training=replace(PRESET.training, bf16=None, eval_steps=0))
    folders = set()
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(
            "posttrain.core.training.optimization.preferred_dtype", lambda d=dtype: d
        )
        folders.add(pretrained(preset).artifact.folder)
    assert len(folders) == 2


def test_an_untied_head_is_stored_too():
    untied = replace(PRESET, model=replace(PRESET.model, tie_word_embeddings=False))
    pretrained(untied)
    run = pretrained(untied)
    model, _, _ = train_model(untied, make_corpus())
    assert run.artifact.reused and same(run.model, model)
    assert not torch.equal(run.model.lm_head.weight, run.model.embed_tokens.weight)


def test_a_diverging_run_is_stored_with_what_the_guard_said():
    wild = replace(
        PRESET,
        training=replace(
            PRESET.training, max_steps=60, warmup_steps=0, learning_rate=30.0, eval_steps=10
        ),
    )
    first, second = pretrained(wild), pretrained(wild)
    assert second.artifact.reused and first.diverged == second.diverged
    assert second.diverged is not None and "training diverged at step" in second.diverged
    step = int(second.diverged.split("step ")[1].split(":")[0])
    assert len(second.history.loss) == step < 60
    assert all(map(math.isfinite, second.history.loss))
    assert second.history.loss[1] > 3 * second.history.loss[0]
    assert same(first.model, second.model)


def test_an_interrupted_run_resumes_from_its_checkpoint(monkeypatch: pytest.MonkeyPatch):
    draw, drawn = RandomWindows.__next__, []

    def interrupt(self: RandomWindows) -> Any:
        drawn.append(1)
        if len(drawn) == 8:
            raise KeyboardInterrupt
        return draw(self)

    monkeypatch.setattr(RandomWindows, "__next__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrained(PRESET, samples=1)
    run = pretrained(PRESET, samples=1)
    model, history, _ = train_model(PRESET, make_corpus(), samples=1)
    assert run.history.resumed_at == 6 and not run.artifact.reused
    assert run.artifact.record["resumed"] is True
    assert same(run.model, model)
    assert run.history.loss == history.loss
    assert run.history.evaluations == history.evaluations


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path):
    (tmp_path / "checkpoint.pt").write_bytes(b"PK")
    with pytest.raises(ArtifactError, match=r"checkpoint\.pt cannot be read: remove it"):
        train_model(PRESET, make_corpus(), scratch=tmp_path)


def test_a_gpu_preset_without_a_gpu_is_one_clear_sentence(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for device in ("cuda", "cuda:1"):
        with pytest.raises(ValueError, match="'tiny' needs a GPU and torch sees none here"):
            pretrained(replace(PRESET, device=device))


def test_an_unknown_preset_is_refused():
    with pytest.raises(ValueError, match="there is no preset 'big'"):
        pretrained("big")


# --- the command ---


def test_the_command_trains_stores_and_writes_the_weights(monkeypatch, tmp_path: Path):
    monkeypatch.setitem(module.get_preset.__globals__["PRESETS"], "tiny", PRESET)
    shown = pretrain_command("tiny", steps=1, seed=2, out=tmp_path / "out")
    assert shown["steps"] == 1 and shown["preset"] == "tiny" and shown["diverged"] is None
    assert math.isfinite(shown["val_loss"]) and math.isfinite(shown["train_loss"])
    assert len(shown["sample"]) == 400 and Path(shown["stored_in"]).is_dir()
    assert shown["seconds_training"] > 0
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["hidden_size"] == 32 and config["vocab_size"] == len(set(TEXT))
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_the_command_keeps_the_presets_steps_and_refuses_none(monkeypatch):
    monkeypatch.setitem(module.get_preset.__globals__["PRESETS"], "tiny", PRESET)
    assert pretrain_command("tiny", steps=None, seed=0, out=None)["steps"] == 12
    with pytest.raises(ValueError, match="max_steps is 0: give a whole number from 1 up"):
        pretrain_command("tiny", steps=0, seed=0, out=None)
