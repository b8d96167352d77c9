"""pretraining.training.failures: a leak through the mask, and a run that is killed."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.data import CharTokenizer, Corpus, RandomWindows
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.training import failures
from posttrain.pretraining.training.failures import (
    LeakyGPT,
    ResumeCheck,
    future_leak,
    kill_and_resume,
    resumable_run,
)
from posttrain.pretraining.training.metrics import held_out_losses, summed_loss

CONFIG = GPTConfig(
    vocab_size=4, hidden_size=32, intermediate_size=64, num_hidden_layers=1,
    num_attention_heads=2, max_position_embeddings=16,
)  # fmt: skip

# --- the leak ---


def test_the_leaky_mask_shows_one_token_too_many():
    model = LeakyGPT(CONFIG)
    assert model.visible(3, 3).int().tolist() == [[1, 1, 0], [1, 1, 1], [1, 1, 1]]
    assert model.visible(2, 4).int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 1]]
    assert model.visible(3, 3).dtype == GPT(CONFIG).visible(3, 3).dtype == torch.bool


@pytest.mark.parametrize("position", ["rope", "learned"])
def test_the_leak_is_found(position):
    torch.manual_seed(0)
    config = replace(CONFIG, position=position)
    assert future_leak(GPT(config)) == 0
    leaky = LeakyGPT(config)
    assert future_leak(leaky) > 1e-6
    assert future_leak(leaky, context=2, seed=3) > 1e-6


@pytest.mark.parametrize(("context", "vocabulary"), [(1, 4), (0, 4), (8, 1)])
def test_a_check_that_could_find_nothing_is_refused(context: int, vocabulary: int):
    model = LeakyGPT(replace(CONFIG, vocab_size=vocabulary))
    with pytest.raises(ValueError, match="the check needs at least 2 of both"):
        future_leak(model, context)


def test_a_leaky_model_seems_to_know_what_cannot_be_known():
    """On fair draws from four letters no causal model can lose less than log 4 = 1.386 nats."""
    tokens = torch.randint(4, (6000,), generator=torch.Generator().manual_seed(0))
    losses = {}
    for model_class in (GPT, LeakyGPT):
        torch.manual_seed(0)
        model = model_class(CONFIG)
        config = TrainingConfig(max_steps=150, learning_rate=0.01, warmup_steps=10, bf16=False)
        train(model, summed_loss, RandomWindows(tokens[:5000], 16, 16), config)
        losses[model_class] = held_out_losses(model, tokens[5000:], 16).mean().item()
    assert 1.37 < losses[GPT] < 1.5
    assert losses[LeakyGPT] < 0.7


# --- kill and resume ---


@pytest.fixture
def small_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "the quick brown fox jumps over the lazy dog\n" * 5
    tokenizer = CharTokenizer(sorted(set(text)))
    tokens = torch.tensor(tokenizer.encode(text))
    corpus = Corpus(tokenizer, tokens, tokens, text)
    monkeypatch.setattr("posttrain.pretraining.training.run.corpus_of", lambda name: corpus)


def test_a_resumable_run_is_the_same_in_one_sitting_or_two(
    small_corpus, tmp_path: Path, monkeypatch
):
    whole = resumable_run(tmp_path / "whole", 25)
    assert whole[1] == 0 and re.fullmatch("[0-9a-f]{64}", whole[0])

    def interrupt(pid: int, signal: int) -> None:
        raise InterruptedError

    monkeypatch.setattr(failures.os, "kill", interrupt)
    with pytest.raises(InterruptedError):
        resumable_run(tmp_path / "killed", 25, kill_at=17)
    assert resumable_run(tmp_path / "killed", 25) == (whole[0], 10)


def test_the_hash_is_of_the_weights(small_corpus, tmp_path: Path):
    assert resumable_run(tmp_path / "a", 3)[0] != resumable_run(tmp_path / "b", 4)[0]


@pytest.mark.slow
def test_a_run_killed_for_real_resumes_to_the_same_bits():
    check = kill_and_resume(steps=26)
    assert check.identical, check
    assert 11 <= check.killed_at < 25 and check.steps == 26
    assert check.resumed_at == check.killed_at // 10 * 10
    assert re.fullmatch("[0-9a-f]{64}", check.weights)


def test_a_different_bit_is_not_identical():
    assert not ResumeCheck(12, 10, 20, weights="a", undisturbed_weights="b").identical
    assert ResumeCheck(12, 10, 20, weights="a", undisturbed_weights="a").identical


@pytest.mark.parametrize(
    ("steps", "kill_at"), [(12, None), (5, None), (20, 20), (20, -1), (0, 0)]
)
def test_a_run_that_would_not_be_killed_is_refused(steps: int, kill_at: int | None):
    with pytest.raises(
        ValueError, match=f"run of {steps} steps cannot be killed at step {kill_at}"
    ):
        kill_and_resume(steps, kill_at)


def test_a_random_step_comes_after_the_first_checkpoint(monkeypatch: pytest.MonkeyPatch):
    calls: list[int] = []

    def in_new_process(folder: Path, steps: int, kill_at: int) -> list[str]:
        calls.append(kill_at)
        return ["hash", "10"]

    monkeypatch.setattr(failures, "_in_new_process", in_new_process)
    killed = {kill_and_resume(15).killed_at for _ in range(60)}
    assert killed == {11, 12, 13}
    assert calls[::3] == calls[2::3] == [-1] * 60


def test_a_process_that_fails_otherwise_is_reported(tmp_path: Path, monkeypatch):
    monkeypatch.setattr(failures.sys, "executable", "/bin/false")
    with pytest.raises(RuntimeError, match="ended with 1 and 0 was expected"):
        failures._in_new_process(tmp_path / "x", 5, -1)
    with pytest.raises(RuntimeError, match="ended with 1 and -9 was expected"):
        failures._in_new_process(tmp_path / "x", 5, 3)
