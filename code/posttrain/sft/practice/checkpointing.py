"""Gradient checkpointing: how much memory it saves, and what it costs in time.

Training keeps what each block computed until the gradient comes back. With checkpointing a
block keeps its input alone, and computes the rest a second time (Chen and others, 2016). Here
transformers' own switch is set on SmolLM2 with PEFT's adapters, as the GPU presets set it.

Each run is a process of its own, since a process gives back little of what it once had. Its
growth is the largest resident memory (``VmHWM``) less what was resident before the first step,
with glibc's limits fixed as in :mod:`posttrain.sft.recorded.true_shape`.

Chapter: sft/your_model.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posttrain.core.errors import RecordError
from posttrain.core.storage.files import write_json_atomic
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.presets import CPU, dtype_of
from posttrain.sft.recorded.true_shape import LIMITS, resident
from posttrain.sft.training.memory import PUBLISHED_SHAPES, finetune_memory

STEPS = 3
SHAPES = ((4, 128), (4, 256), (4, 512))  # rows and tokens of each
MODEL = "SmolLM2-135M"

CONFIG: dict[str, Any] = {
    "preset": asdict(CPU), "steps": STEPS, "shapes": SHAPES, "limits": LIMITS,
}  # fmt: skip


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the tokens and of the adapter.

    Returns:
        One part for each seed and shape; it runs without and with checkpointing.
    """
    return [
        {"rows": rows, "T": length, "seed": seed} for seed in seeds for rows, length in SHAPES
    ]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train three steps without checkpointing, and three with it.

    Args:
        part: One of :func:`parts`.

    Returns:
        Two rows: ``checkpointing``; ``growth`` in bytes, and ``predicted`` by the formula of
        the book, activations and logits, gradients and moments; ``losses``; ``seconds`` and
        ``seconds_cpu`` of a step, without the first one.
    """
    return [measure(part, on, PUBLISHED_SHAPES[MODEL], CPU.model) for on in (False, True)]


def measure(part: dict[str, Any], on: bool, config: GPTConfig, model: str) -> dict[str, Any]:
    """Do one of the two runs in a process of its own.

    Args:
        part: One of :func:`parts`.
        on: Whether blocks are computed a second time.
        config: The model's shape.
        model: A name that ``posttrain.core.assets`` knows, or a folder.

    Returns:
        The row.

    Raises:
        RecordError: If the process fails.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        write_json_atomic(folder / "job.json", {**part, "checkpointing": on, "model": model})
        done = subprocess.run(
            [sys.executable, "-m", __name__, name],
            env={**os.environ, **LIMITS, "TOKENIZERS_PARALLELISM": "false"}, check=False,
            text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            last = " / ".join(done.stdout.strip().splitlines()[-3:])[-400:]
            raise RecordError(f"the run of {part} ended with {done.returncode}: {last}")
        found: dict[str, Any] = json.loads((folder / "found.json").read_text("utf-8"))
    return {**part, "checkpointing": on, "predicted": predict(part, on, config), **found}


def predict(part: dict[str, Any], on: bool, config: GPTConfig) -> int:
    """Predict by how much a step adds to the loaded model.

    Args:
        part: One of :func:`parts`.
        on: Whether blocks are computed a second time.
        config: The model's shape.

    Returns:
        Bytes of gradients, moments, activations and logits.
    """
    size = dtype_of(CPU).itemsize
    memory = finetune_memory(
        config, "lora", CPU.lora, batch_size=part["rows"], T=part["T"], weight_bytes=size,
        activation_bytes=size, gradient_checkpointing=on, fused_attention=True,
    )  # fmt: skip
    return memory.gradients + memory.optimizer + memory.activations + memory.logits


def main(folder: Path) -> None:
    """Do the job of a folder.

    Args:
        folder: Holds ``job.json``; gets ``found.json``.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from posttrain.sft.training.trl_engine import model_source, peft_config

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    torch.manual_seed(job["seed"])
    base = AutoModelForCausalLM.from_pretrained(
        model_source(job["model"]), dtype=dtype_of(CPU), trust_remote_code=False
    )
    model = get_peft_model(base, peft_config(CPU.lora)).train()
    if job["checkpointing"]:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.data = parameter.data.float()
    optimizer = torch.optim.AdamW(trained, lr=CPU.training.learning_rate)
    shape = (job["rows"], job["T"])
    batches = [torch.randint(base.config.vocab_size, shape) for _ in range(STEPS)]
    loaded, losses, times, cpu_times = resident("VmRSS"), [], [], []
    for input_ids in batches:
        started, cpu = time.perf_counter(), time.process_time()
        loss = model(input_ids=input_ids, labels=input_ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(float(loss.detach()), 4))
        times.append(time.perf_counter() - started)
        cpu_times.append(time.process_time() - cpu)
    found = {
        "growth": resident("VmHWM") - loaded,
        "losses": losses,
        "seconds": round(sum(times[1:]) / (STEPS - 1), 2),  # the first one warms up
        "seconds_cpu": round(sum(cpu_times[1:]) / (STEPS - 1), 2),
    }
    write_json_atomic(folder / "found.json", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
