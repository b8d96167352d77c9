"""The run through Unsloth and TRL's DPOTrainer, in a process of its own.

As in Stage 1 a job goes in as a file and a result comes out as files, since Unsloth rewrites
parts of transformers, PEFT and TRL when it is imported.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.checks import check_pair_engine, check_run_pairs
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.unsloth_engine import EngineError, preset_from
from posttrain.sft.training.watching import Watching

WORKER = "posttrain.dpo.runs.unsloth_worker"


def run_pairs_unsloth(
    preset: DPOPreset,
    pairs: Sequence[EncodedPair],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedPair] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with Unsloth in a process of its own.

    Args:
        preset: The run; with ``quantization="nf4"`` the weights are held in 4 bits.
        pairs: Encoded pairs, in the order of training.
        folder: Gets the adapter, and ``log.txt`` with all that Unsloth says. Where the run is
            watched, its lines are printed as they come.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded pairs to be measured on.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        EngineError: If the process fails. It quotes the end of the log.
        ValueError: If the pairs do not fill a step, nothing is held out, or a setting would be
            ignored.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    check_pair_engine(preset)
    check_run_pairs(pairs, validation, preset)
    folder.mkdir(parents=True, exist_ok=True)
    result, log = folder / "result.json", folder / "log.txt"
    result.unlink(missing_ok=True)  # of an earlier run
    if Path(preset.start.model).is_dir():  # the process runs in another folder
        start = replace(preset.start, model=str(Path(preset.start.model).resolve()))
        preset = replace(preset, start=start)
    job = {
        "preset": asdict(preset),
        "pairs": [asdict(pair) for pair in pairs],
        "adapter": str(adapter.resolve()) if adapter else None,
        "validation": [asdict(pair) for pair in validation],
        "watching": asdict(watching) if watching else None,
    }
    write_json_atomic(folder / "job.json", job)
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    with subprocess.Popen(
        [sys.executable, "-m", WORKER, str(folder.resolve())],
        cwd=folder,  # Unsloth writes a folder of compiled code where it runs
        env={**os.environ, **quiet},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            code = _forward(process, log, show=watching is not None and watching.show)
        except BaseException:  # such as Ctrl-C: no training goes on behind one's back
            process.terminate()
            raise
    if code or not result.is_file():
        said = log.read_text(encoding="utf-8", errors="replace").strip()
        end = " / ".join(said.splitlines()[-4:])
        raise EngineError(
            f"Unsloth's process ended with code {code}: {end[-400:]} (all of it: {log})"
        )
    found = json.loads(result.read_text(encoding="utf-8"))
    losses = {int(step): loss for step, loss in found["validation"].items()}  # JSON has text
    return EngineRun(**{**found, "adapter": Path(found["adapter"]), "validation": losses})


def _forward(process: subprocess.Popen[bytes], log: Path, *, show: bool) -> int:
    """Write all that a process says to a file, and print it as it comes."""
    assert process.stdout is not None
    with log.open("wb") as file:
        for line in process.stdout:
            file.write(line)
            file.flush()
            if show:
                sys.stdout.write(line.decode(errors="replace"))
                sys.stdout.flush()
    return process.wait()


def pair_preset_from(fields: dict[str, Any]) -> DPOPreset:
    """Read a preset back from JSON.

    Args:
        fields: What ``dataclasses.asdict`` gave.

    Returns:
        The preset.

    Chapter: dpo/alignment.
    """
    return DPOPreset(
        **{
            **fields,
            "start": preset_from(fields["start"]),
            "loss": PreferenceLossConfig(**fields["loss"]),
            "training": TrainingConfig(**fields["training"]),
        }
    )


def pair_from(fields: dict[str, Any]) -> EncodedPair:
    """Read an encoded pair back from JSON.

    Args:
        fields: What ``dataclasses.asdict`` gave.

    Returns:
        The pair.

    Chapter: dpo/alignment.
    """
    return EncodedPair(**{name: tuple(ids) for name, ids in fields.items()})
