"""Models of true shape and random weights through every engine: memory predicted and measured.

The weights of Llama-3.2-1B and Qwen2.5-1.5B need the hub, their shapes do not. A random model
of the exact shape goes three optimizer steps through the code of the presets ``t4`` and
``t4-qwen`` on the CPU, beside runs of SmolLM2's shape with other batches.

*What is measured.* Each run is a process of its own. It first trains a model of half a
megabyte with the same engine, because libraries load much of their code only when it is used;
then its resident memory is read. That is the loaded process. Then it loads the model and
trains. The largest resident memory that the kernel has seen (``VmHWM``), less that of the
loaded process, is the measured growth. It holds the pages of the weights' file that are in
view. Unsloth trains in a process that it gets from ``run_unsloth``: there both numbers are
peaks, one of a twin that trains the small model and ends.

*What malloc keeps.* glibc returns freed memory late: a freed block of up to 32 MB raises the
limit below which blocks come from its heap, and the heap shrinks only at its top. So a process
holds more than the run does, by an amount that depends on the order of frees. With fixed limits
(``MALLOC_TRIM_THRESHOLD_``, ``MALLOC_MMAP_THRESHOLD_``) freed memory goes back at once, and the
growth is what the run holds: that is what the formula predicts. Some runs are made once more
with glibc's own limits, which shows what it adds.

Chapter: sft/your_model.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from posttrain.core.assets import load_tokenizer
from posttrain.core.errors import RecordError
from posttrain.core.machine import preferred_dtype
from posttrain.core.storage.files import write_json_atomic
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import T4, T4_QWEN, SFTPreset
from posttrain.sft.training.engine_costs import MicroBatch, RunMemory, run_memory
from posttrain.sft.training.engines import run_engine
from posttrain.sft.training.hardware import this_machine
from posttrain.sft.training.memory import PUBLISHED_SHAPES
from posttrain.sft.training.plan import Rows, predicted_seconds
from posttrain.sft.training.unsloth_engine import preset_from

STEPS = 3
PRESETS = {"Llama-3.2-1B": T4, "Qwen2.5-1.5B": T4_QWEN, "SmolLM2-135M": T4}
"""The preset that each shape goes through; SmolLM2's has none of its own on a GPU."""

LIMITS = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
"""Bytes; glibc's own starting values, which then no longer move."""

# shape, engine, quantization, rows, tokens of each, micro-batches a step, malloc
RUNS: tuple[tuple[str, str, str | None, int, int, int, str], ...] = (
    ("Llama-3.2-1B", "unsloth", "nf4", 1, 256, 1, "returns"),
    ("Llama-3.2-1B", "by_hand", "nf4", 1, 256, 1, "returns"),
    ("Llama-3.2-1B", "by_hand", None, 2, 128, 1, "returns"),
    ("Llama-3.2-1B", "trl", None, 1, 256, 1, "returns"),
    ("Llama-3.2-1B", "unsloth", "nf4", 1, 256, 1, "default"),
    ("Llama-3.2-1B", "by_hand", None, 2, 128, 1, "default"),
    ("Qwen2.5-1.5B", "unsloth", "nf4", 1, 256, 1, "returns"),
    ("Qwen2.5-1.5B", "by_hand", "nf4", 1, 256, 1, "returns"),
    ("Qwen2.5-1.5B", "by_hand", None, 2, 128, 1, "returns"),
    ("Qwen2.5-1.5B", "trl", "nf4", 1, 256, 1, "returns"),
    ("SmolLM2-135M", "by_hand", None, 8, 128, 1, "returns"),
    ("SmolLM2-135M", "by_hand", "nf4", 2, 256, 2, "returns"),
    ("SmolLM2-135M", "trl", None, 4, 128, 2, "returns"),
    ("SmolLM2-135M", "trl", "nf4", 4, 128, 1, "returns"),
    ("SmolLM2-135M", "unsloth", "nf4", 4, 128, 1, "returns"),
    ("SmolLM2-135M", "trl", "nf4", 4, 128, 1, "default"),
)
_NAMES = ("shape", "engine", "quantization", "batch_size", "T", "accumulation", "malloc")

CONFIG: dict[str, Any] = {
    "presets": {shape: asdict(preset) for shape, preset in PRESETS.items()},
    "steps": STEPS,
    "limits": LIMITS,
    "runs": [dict(zip(_NAMES, run, strict=True)) for run in RUNS],
}

SMALL = GPTConfig(
    vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
)  # fmt: skip
"""A model so small that a process that has trained it is but a loaded process."""


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the random weights.

    Returns:
        One part for each run and seed, those of one shape together.
    """
    return [{"seed": seed, **run} for seed in seeds for run in CONFIG["runs"]]


def preset_of(part: dict[str, Any], model: str) -> SFTPreset:
    """Make the preset of a part: the GPU's, on the CPU and with a small batch.

    Args:
        part: One of :func:`parts`.
        model: Folder of the model.

    Returns:
        The preset, in the type that this processor prefers.
    """
    preset = PRESETS.get(part["shape"], T4)
    training = replace(
        preset.training,
        max_steps=STEPS,
        warmup_steps=0,
        gradient_accumulation_steps=part["accumulation"],
        eval_steps=0,
        save_steps=0,
        seed=part["seed"],
    )
    dtype: Any = str(preferred_dtype()).removeprefix("torch.")
    return replace(
        preset, model=model, engine=part["engine"], quantization=part["quantization"],
        batch_size=part["batch_size"], max_length=part["T"], training=training, dtype=dtype,
        device="cpu",
    )  # fmt: skip


def predict(part: dict[str, Any], config: GPTConfig, preset: SFTPreset) -> RunMemory:
    """Predict the memory of a part.

    Args:
        part: One of :func:`parts`.
        config: The model's shape.
        preset: The preset of the part.

    Returns:
        The prediction, part by part.
    """
    rows, T = part["batch_size"], part["T"]
    return run_memory(preset, config, MicroBatch(rows, T, rows * T, rows * sum(_mask(T))))


def examples_for(preset: SFTPreset, vocab_size: int) -> list[EncodedChat]:
    """Write rows of exactly the longest length allowed, of which the second half is trained.

    Args:
        preset: Longest row, and how many a run reads.
        vocab_size: Tokens that the model knows.

    Returns:
        As many rows as the run reads.
    """
    T, mask = preset.max_length, _mask(preset.max_length)
    count = preset.batch_size * preset.training.gradient_accumulation_steps * STEPS
    return [
        EncodedChat([(7919 * row + 31 * i) % vocab_size for i in range(T)], mask)
        for row in range(count)
    ]


def _mask(T: int) -> list[int]:
    return [0] * (T // 2) + [1] * (T - T // 2)


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Make a random model, predict, and measure a run of it in a process of its own.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: the part; ``dtype``; ``predicted``, bytes by name; ``loaded``, ``peak`` and
        ``growth``, measured bytes; ``losses``; ``seconds_step`` and, by the plan's formula,
        ``seconds_step_predicted``.
    """
    config = PUBLISHED_SHAPES[part["shape"]]
    return [run_shape(part, config)]


def run_shape(part: dict[str, Any], config: GPTConfig) -> dict[str, Any]:
    """Do the work of :func:`run` for any shape.

    Args:
        part: One of :func:`parts`, or one of another shape.
        config: The model's shape.

    Returns:
        The row.
    """
    folder = _random_model(config, part["seed"])
    preset = preset_of(part, folder.name)
    here = this_machine("cpu")
    T, count = part["T"], part["batch_size"] * part["accumulation"]
    rows = Rows((T,) * count, (sum(_mask(T)),) * count)
    predicted = predict(part, config, preset)
    found = measure(preset, config, part["malloc"])
    return {
        **part,
        "dtype": preset.dtype,
        "predicted": predicted.parts(),
        "predicted_growth": predicted.growth,
        **found,
        "seconds_step_predicted": round(
            predicted_seconds(preset, config, rows, here) / STEPS, 2
        ),
    }


@functools.lru_cache(maxsize=1)
def _random_model(config: GPTConfig, seed: int) -> TemporaryDirectory[str]:
    """Make a random model; its folder is kept until another one is made."""
    folder = TemporaryDirectory(prefix="true-shape-")
    save_random(config, Path(folder.name), seed)
    return folder


def save_random(config: GPTConfig, folder: Path, seed: int = 0) -> None:
    """Save a random model in 16 bits, with SmolLM2's tokenizer beside it.

    Args:
        config: The model's shape.
        folder: Where it goes.
        seed: Seed of the weights.
    """
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)  # as published, and half the bytes while it is made
    try:
        save_pretrained(GPT(config), folder)
    finally:
        torch.set_default_dtype(before)
    load_tokenizer("smollm2-135m-instruct").save_pretrained(folder)


def measure(preset: SFTPreset, config: GPTConfig, malloc: str) -> dict[str, Any]:
    """Run a preset in a process of its own.

    Args:
        preset: The run.
        config: The shape of its model.
        malloc: ``returns`` fixes glibc's limits, ``default`` leaves them.

    Returns:
        ``loaded``, ``peak`` and ``growth`` in bytes, ``losses`` and ``seconds_step``.

    Raises:
        RecordError: If the process fails.
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        save_random(replace(SMALL, qkv_bias=config.qkv_bias), folder / "small")
        job = {"preset": asdict(preset), "vocab_size": config.vocab_size}
        write_json_atomic(folder / "job.json", job)
        quiet = {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
        fixed = LIMITS if malloc == "returns" else {}
        done = subprocess.run(
            [sys.executable, "-m", __name__, name],
            env={**os.environ, **quiet, **fixed}, check=False, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise RecordError(
                f"the run of {preset.engine} on {preset.model} ended with {done.returncode}: "
                f"{' / '.join(done.stdout.strip().splitlines()[-3:])[-400:]}"
            )
        found: dict[str, Any] = json.loads((folder / "found.json").read_text("utf-8"))
        return found


def main(folder: Path) -> None:
    """Do the job of a folder: train the small model, then the one that counts.

    Args:
        folder: Holds ``job.json`` and the model ``small``; gets ``found.json``.
    """
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    preset = preset_from(job["preset"])
    small = replace(preset, model=str(folder / "small"), batch_size=1, max_length=16)
    run_engine(small, examples_for(small, SMALL.vocab_size), folder / "first")
    own = preset.engine != "unsloth"
    loaded = resident("VmRSS") if own else _largest_child()
    ran = run_engine(preset, examples_for(preset, job["vocab_size"]), folder / "run")
    peak = resident("VmHWM") if own else _largest_child()
    found = {
        "loaded": loaded,
        "peak": peak,
        "growth": peak - loaded,
        "losses": [round(loss, 4) for loss in ran.losses],
        "seconds_step": round(ran.seconds / len(ran.losses), 2),
    }
    write_json_atomic(folder / "found.json", found)


def _largest_child() -> int:
    """Most resident memory of any process that this one has started and that has ended."""
    import resource

    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


def resident(name: str) -> int:
    """Read this process's memory from Linux.

    Args:
        name: ``VmRSS`` for what is resident, ``VmHWM`` for the most so far.

    Returns:
        Bytes.

    Raises:
        RecordError: If the system tells nothing of the kind.
    """
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise RecordError(f"this system tells no {name}: memory is measured on Linux only")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
