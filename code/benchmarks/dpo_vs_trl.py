"""Trained pairs per second of our run on pairs, against TRL's DPOTrainer with PEFT.

Both continue the same adapter on the same pairs in the same order, in bfloat16 with LoRA on all
linear layers. Ours computes each prompt once for both answers, logits on answers alone, no
padding, and the reference's log-probabilities before the first step: that time counts. TRL is
timed as it comes, with the reference computed in each step, and with
``precompute_ref_log_probs``, where that time counts as well. Aim: at least twice TRL's pairs
per second.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from _common import ratio_of, write_result

from posttrain.dpo.data.pair_formats import make_pair
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.dpo.data.tokenizing import EncodedPair, encode_pairs
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.training.dpo_run import train_pairs
from posttrain.dpo.training.trl_dpo import run_trl_pairs
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.experiments import initial_adapter
from posttrain.sft.presets import CPU
from posttrain.sft.training.evaluation import tokenizer_of
from posttrain.sft.training.run import base_model

ENGINES = ("ours", "trl", "trl, reference first")
BATCH = 4
WORDS = (
    "you can do this because it keeps the water warm and saves time every day at home".split()
)


def pairs_for(count: int) -> list[EncodedPair]:
    """Make pairs of everyday questions and answers of some 30 words; what they say is random.

    Args:
        count: How many.

    Returns:
        Encoded pairs.
    """
    rng = random.Random(0)
    rows = []
    for prompt in everyday_prompts()[0][:count]:
        chosen, rejected = (" ".join(rng.choices(WORDS, k=rng.randint(20, 40))) for _ in "ab")
        rows.append(make_pair(prompt.text, chosen, rejected))
    return encode_pairs(rows, tokenizer_of(CPU.model)).pairs


def pairs_per_second(engine: str, steps: int) -> float:
    """Train once.

    Args:
        engine: One of ``ENGINES``.
        steps: Optimizer steps.

    Returns:
        Pairs per second; the reference's time included, loading not.
    """
    import torch

    config = PreferenceLossConfig(beta=0.1)
    training = replace(
        CPU.training, max_steps=steps, warmup_steps=0, eval_steps=0, save_steps=0,
        learning_rate=1e-4,
    )  # fmt: skip
    pairs = pairs_for(steps * BATCH)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        preset = replace(CPU, dtype="bfloat16")
        start = initial_adapter(preset, folder / "start")
        if engine == "ours":
            model = base_model(preset)
            load_adapter(model, start)
            started = time.perf_counter()
            train_pairs(
                model, CPU.lora, pairs, pairs[:1], config, training, folder / "out",
                batch_size=BATCH, keep_order=True,
            )  # fmt: skip
            return len(pairs) / (time.perf_counter() - started)
        run = run_trl_pairs(
            CPU.model, start, pairs, config, training, folder / "out", batch_size=BATCH,
            dtype=torch.bfloat16, precompute=engine != "trl",
        )  # fmt: skip
        return len(pairs) / run.seconds


def peak_memory(engine: str, steps: int) -> float:
    """Train once in a process of its own.

    Args:
        engine: One of ``ENGINES``.
        steps: Optimizer steps.

    Returns:
        Largest resident memory of that process, in GiB.
    """
    command = [sys.executable, __file__, "--one", engine, "--steps", str(steps)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    """Run the comparison and write its record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--one", metavar="ENGINE", help="for the memory")
    arguments = parser.parse_args()
    if arguments.one:
        pairs_per_second(arguments.one, arguments.steps)
        status = Path("/proc/self/status").read_text()
        print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20)
        return
    timed: dict[str, list[float]] = {engine: [] for engine in ENGINES}
    for engine in ("ours", "trl"):
        pairs_per_second(engine, 1)  # warm up both
    for _ in range(arguments.rounds):
        for engine in ENGINES:
            timed[engine].append(pairs_per_second(engine, arguments.steps))
    ratios = [
        ratio_of(f"DPO, trained pairs/s, peer {peer}", timed["ours"], timed[peer])
        for peer in ENGINES[1:]
    ]
    memory = {engine: peak_memory(engine, arguments.steps) for engine in ENGINES}
    print(f"peak memory, GiB: {memory}", flush=True)
    write_result(
        "dpo_vs_trl", ratios, steps=arguments.steps, batch_size=BATCH, peak_memory_gib=memory
    )


if __name__ == "__main__":
    main()
