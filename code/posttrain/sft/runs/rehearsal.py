"""A run that is killed, moved and taken up again, to see that nothing is lost.

Chapter: sft/your_model.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from posttrain.core.assets import load_tokenizer
from posttrain.core.errors import PosttrainError
from posttrain.core.training.run_log import METRICS_NAME, read_metrics
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.adapters.files import WEIGHTS_NAME

_PATIENCE = 120.0  # seconds to wait for the first steps of a run


@dataclass(frozen=True)
class Rehearsal:
    """What a killed run and a whole one left.

    Attributes:
        killed_after: Steps that the log held when the process was killed.
        steps: Steps of the whole run.
        equal: Whether both adapters are the same, byte for byte.
    """

    killed_after: int
    steps: int
    equal: bool


def rehearse(
    folder: Path, command: Callable[[str], None], steps: int = 120, kill_after: int = 30
) -> Rehearsal:
    """Run once from start to end, and once with a kill and a move in between.

    The model is a tiny random one with SmolLM2's tokenizer, so that this takes seconds. The
    killed run is a process of its own that gets SIGKILL, which no program can answer. Its
    folder, the rows and the model are then moved, and the run goes on in this process.

    Args:
        folder: An empty folder to work in.
        command: Runs a ``posttrain`` command line in this process.
        steps: Steps of a run.
        kill_after: The kill comes when the log holds so many steps.

    Returns:
        What was found.

    Raises:
        PosttrainError: If the run that is to be killed does not start.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    here, there = folder / "here", folder / "there"
    here.mkdir(parents=True)
    _tiny_model(here / "model")
    rows = [{"prompt": f"Add one to {n}.", "completion": f"{n + 1}"} for n in range(40)]
    (here / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")

    def line(place: Path, out: str) -> str:
        parts = ["sft", "--data", place / "rows.jsonl", "--model", place / "model", "--out",
                 place / out, "--steps", steps, "--set", "dtype=float32"]  # fmt: skip
        return " ".join(map(str, parts))

    with contextlib.redirect_stdout(io.StringIO()):
        command(line(here, "whole"))
    killed = _kill(line(here, "killed"), here / "killed", kill_after)
    shutil.move(here, there)
    with contextlib.redirect_stdout(io.StringIO()):
        command(line(there, "killed") + " --resume")
    whole, resumed = (there / name / WEIGHTS_NAME for name in ("whole", "killed"))
    return Rehearsal(killed, steps, whole.read_bytes() == resumed.read_bytes())


def _tiny_model(folder: Path) -> None:
    tokenizer = load_tokenizer("smollm2-135m-instruct")
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
    )
    save_pretrained(GPT(config), folder)
    tokenizer.save_pretrained(folder)


def _kill(line: str, out: Path, after: int) -> int:
    """Start a run in a process of its own, and kill it in the middle."""
    process = subprocess.Popen(
        [sys.executable, "-m", "posttrain.cli", *line.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        # as many threads as here: with another number, sums are rounded in another order
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    until = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < until:
        done = max((row["step"] for row in read_metrics(out / METRICS_NAME)), default=0)
        if done >= after:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            return done
        time.sleep(0.02)
    process.kill()
    _, said = process.communicate()
    raise PosttrainError(
        f"the run that was to be killed ended by itself: {said.decode(errors='replace')[-300:]}"
    )
