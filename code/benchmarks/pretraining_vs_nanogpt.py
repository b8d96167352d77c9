"""Seconds to a validation loss of 1.88 on tinyshakespeare, against nanoGPT's CPU recipe.

nanoGPT's own ``train.py`` runs unchanged from the folder that ``--nanogpt`` names, in this
process, in turn with ours. Same characters, same split, at most 0.85 M parameters. Evaluation
and checkpoints are left out of both times. Aims: half its time, and 1.5 times its tokens per
second at the identical configuration.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import pickle
import re
import runpy
import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import Ratio, ratio_of, write_result

from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.data import CharTokenizer, Corpus, RandomWindows
from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.training.metrics import held_out_losses, summed_loss

TARGET = 1.88
PEERS_STEPS = 2000
PEERS_EVERY = 125
# what nanoGPT's README gives for a CPU; only the evaluation is more thorough
PEERS_OPTIONS = {
    "device": "cpu", "compile": False, "dtype": "float32", "eval_iters": 145, "log_interval": 1,
    "eval_interval": PEERS_EVERY, "block_size": 64, "batch_size": 12, "n_layer": 4, "n_head": 4,
    "n_embd": 128, "max_iters": PEERS_STEPS, "lr_decay_iters": PEERS_STEPS, "dropout": 0.0,
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        seconds_per_step: Median time of a step, without evaluation.
        seconds_to_target: Time in steps until the target was reached; NaN where it was not.
        final_loss: Loss on the whole validation split, in windows of the run's context.
        curve: (step, validation loss) pairs.
    """

    seconds_per_step: float
    seconds_to_target: float
    final_loss: float
    curve: list[tuple[int, float]]


def main() -> None:
    """Run the comparison and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nanogpt", type=Path, required=True, help="a checkout of nanoGPT")
    parser.add_argument(
        "--corpus", type=Path, required=True, help="tinyshakespeare's input.txt"
    )
    parser.add_argument("--rounds", type=int, default=2)
    arguments = parser.parse_args()
    corpus = read_corpus(arguments.corpus)

    ours, peers, twins = [], [], {"fp32": [], "bf16": []}
    for seed in range(arguments.rounds):
        ours.append(run_ours(corpus, seed))
        peers.append(run_peer(arguments.nanogpt, corpus, seed))
        for name in twins:
            twins[name].append(run_twin(corpus, seed, bf16=name == "bf16"))
        print(f"round {seed}: ours {ours[-1]}\n  nanoGPT {peers[-1]}", flush=True)

    # where nanoGPT's last evaluation misses the target, its whole run is a lower bound
    theirs = [
        p.seconds_per_step * PEERS_STEPS
        if np.isnan(p.seconds_to_target)
        else p.seconds_to_target
        for p in peers
    ]
    ratios: list[Ratio] = [
        ratio_of(f"seconds to {TARGET} nats", [r.seconds_to_target for r in ours], theirs)
    ]
    for name, runs in twins.items():
        tokens = PEERS_OPTIONS["batch_size"] * PEERS_OPTIONS["block_size"]
        ratios.append(
            ratio_of(
                f"tokens/s, identical configuration, {name} against fp32",
                [tokens / r for r in runs],
                [tokens / p.seconds_per_step for p in peers],
            )
        )
    write_result(
        "pretraining_vs_nanogpt",
        ratios,
        target=TARGET,
        parameters=parameter_count(fast_model(corpus)).total,
        ours=[vars(r) for r in ours],
        nanogpt=[vars(p) for p in peers],
        nanogpt_missed_target=sum(bool(np.isnan(p.seconds_to_target)) for p in peers),
    )


def read_corpus(path: Path) -> Corpus:
    """Split the text as nanoGPT does: the first nine tenths to train on.

    Args:
        path: The text.

    Returns:
        The corpus.
    """
    text = path.read_text()
    tokenizer = CharTokenizer(sorted(set(text)))
    tokens = torch.tensor(tokenizer.encode(text))
    cut = int(len(text) * 0.9)
    return Corpus(tokenizer, tokens[:cut], tokens[cut:], text[:cut])


def fast_model(corpus: Corpus) -> GPTConfig:
    """Give the shape that reaches the target soonest.

    Args:
        corpus: Sets the vocabulary.

    Returns:
        A Llama-style model of nanoGPT's size.
    """
    return GPTConfig(corpus.tokenizer.vocab_size, max_position_embeddings=64)


def run_ours(corpus: Corpus, seed: int) -> Run:
    """Train our model until its schedule ends.

    Args:
        corpus: The text.
        seed: Seed of weights and batches.

    Returns:
        Times and losses.
    """
    training = TrainingConfig(
        max_steps=800, learning_rate=1.5e-3, warmup_steps=50, weight_decay=0.1, adam_beta2=0.99,
        seed=seed, eval_steps=50,
    )  # fmt: skip
    return _train(fast_model(corpus), training, 12, corpus)


def run_twin(corpus: Corpus, seed: int, bf16: bool) -> float:
    """Train nanoGPT's configuration with our code for a hundred steps.

    Args:
        corpus: The text.
        seed: Seed of weights and batches.
        bf16: Whether the forward pass runs in bfloat16.

    Returns:
        Median seconds per step.
    """
    shape = replace(
        fast_model(corpus),
        norm="layernorm",
        position="learned",
        mlp="gelu",
        intermediate_size=512,
    )
    training = TrainingConfig(
        max_steps=200,
        learning_rate=1e-3,
        weight_decay=0.1,
        adam_beta2=0.99,
        seed=seed,
        bf16=bf16,
    )
    return _train(shape, training, 12, corpus).seconds_per_step


def _train(shape: GPTConfig, training: TrainingConfig, batch_size: int, corpus: Corpus) -> Run:
    torch.manual_seed(training.seed)
    model = GPT(shape)
    assert sum(p.numel() for p in model.parameters()) <= 850_000
    T = shape.max_position_embeddings
    batches = RandomWindows(corpus.train, batch_size, T, training.seed)

    def evaluate(current: torch.nn.Module, step: int) -> dict[str, float]:
        losses = held_out_losses(current, corpus.validation, T, bf16=training.use_bf16)
        return {"loss": losses.mean().item()}

    evaluated = bool(training.eval_steps)
    history = train(
        model, summed_loss, batches, training, evaluate=evaluate if evaluated else None
    )
    each = history.seconds / training.max_steps
    curve = [(row["step"], row["loss"]) for row in history.evaluations]
    final = curve[-1][1] if curve else float("nan")
    return Run(each, first_below(curve, TARGET) * each, final, curve)


def run_peer(checkout: Path, corpus: Corpus, seed: int) -> Run:
    """Run nanoGPT's ``train.py`` in this process, in a temporary folder.

    Args:
        checkout: nanoGPT's files.
        corpus: The text.
        seed: Replaces the seed that ``train.py`` fixes.

    Returns:
        Times and losses.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data = folder / "data" / "bench"
        data.mkdir(parents=True)
        for file in ("train.py", "model.py", "configurator.py"):
            shutil.copy(checkout / file, folder)
        corpus.train.numpy().astype(np.uint16).tofile(data / "train.bin")
        corpus.validation.numpy().astype(np.uint16).tofile(data / "val.bin")
        meta: dict[str, Any] = {"vocab_size": corpus.tokenizer.vocab_size}
        (data / "meta.pkl").write_bytes(pickle.dumps(meta))
        # the recipe's own settings for characters: learning rate, betas, warm-up
        options = PEERS_OPTIONS | {
            "dataset": "bench", "out_dir": "out", "gradient_accumulation_steps": 1,
            "learning_rate": 1e-3, "min_lr": 1e-4, "beta2": 0.99, "warmup_iters": 100,
            "always_save_checkpoint": False, "wandb_log": False,
        }  # fmt: skip
        printed = io.StringIO()
        with _inside(folder, [f"--{key}={value}" for key, value in options.items()]):
            torch.manual_seed(seed)
            with contextlib.redirect_stdout(printed):
                runpy.run_path("train.py", run_name="nanogpt_train")
    return read_log(printed.getvalue())


@contextlib.contextmanager
def _inside(folder: Path, arguments: list[str]) -> Iterator[None]:
    before, argv, path = Path.cwd(), sys.argv, list(sys.path)
    os.chdir(folder)
    sys.argv, sys.path[:] = ["train.py", *arguments], [str(folder), *path]
    try:
        yield
    finally:
        os.chdir(before)
        sys.argv, sys.path[:] = argv, path
        sys.modules.pop("model", None)
        sys.modules.pop("configurator", None)


def read_log(log: str) -> Run:
    """Read times and losses from what nanoGPT printed.

    Args:
        log: Its standard output.

    Returns:
        Times and losses; steps that were interrupted by an evaluation do not count as times.
    """
    curve = [
        (int(step), float(loss))
        for step, loss in re.findall(r"^step (\d+): .*val loss ([\d.]+)", log, re.M)
    ]
    times = [
        float(milliseconds) / 1000
        for step, milliseconds in re.findall(r"^iter (\d+): .*time ([\d.]+)ms", log, re.M)
        if int(step) % PEERS_EVERY
    ]
    each = statistics.mean(times)
    return Run(each, first_below(curve, TARGET) * each, curve[-1][1], curve)


def first_below(curve: list[tuple[int, float]], target: float) -> float:
    """Find where a curve crosses the target, linearly between evaluations.

    Args:
        curve: (step, loss) pairs.
        target: The loss to reach.

    Returns:
        The step, or NaN where the curve stays above.
    """
    for (step_0, loss_0), (step_1, loss_1) in itertools.pairwise(curve):
        if loss_1 <= target < loss_0:
            return step_0 + (step_1 - step_0) * (loss_0 - target) / (loss_0 - loss_1)
    return float("nan")


if __name__ == "__main__":
    main()
