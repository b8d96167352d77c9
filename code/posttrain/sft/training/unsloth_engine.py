"""The same run through Unsloth, in a process of its own.

Unsloth rewrites parts of transformers, PEFT and TRL when it is imported. A job goes in as a
file and a result comes out as files, so that nothing of that reaches the other engines.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from posttrain.core.errors import PosttrainError
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.optimization import TrainingConfig
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.peft_models import check_same_adapter
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.run_checks import check_examples
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching


class EngineError(PosttrainError):
    """A trainer in another process failed."""


def run_unsloth(
    preset: SFTPreset,
    examples: Sequence[EncodedChat],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedChat] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with Unsloth in a process of its own.

    Args:
        preset: The run; with ``quantization="nf4"`` the weights are held in 4 bits.
        examples: Encoded conversations, in the order of training.
        folder: Gets the adapter, and ``log.txt`` with all that Unsloth says. Where the run is
            watched, its lines are printed as they come.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded conversations to be measured on.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        AssetError: If ``adapter`` holds none.
        EngineError: If the process fails. It quotes the end of the log.
        ValueError: If the examples do not fill a step, one cannot be trained as it is, or
            ``adapter`` is none of the preset's shape.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502, DOC503
    check_examples(examples, validation, preset)
    if adapter is not None:
        check_same_adapter(adapter, preset.lora)
    (folder / "result.json").unlink(missing_ok=True)  # of an earlier run
    folder.mkdir(parents=True, exist_ok=True)
    job = {
        "preset": asdict(preset),
        "examples": [asdict(example) for example in examples],
        "adapter": str(adapter) if adapter else None,
        "validation": [asdict(example) for example in validation],
        "watching": asdict(watching) if watching else None,
    }
    write_json_atomic(folder / "job.json", job)
    log = folder / "log.txt"
    quiet = {"HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    worker = "posttrain.sft.training.unsloth_worker"
    with subprocess.Popen(
        [sys.executable, "-m", worker, str(folder.resolve())],
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
    result = folder / "result.json"
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


def preset_from(fields: dict[str, Any]) -> SFTPreset:
    """Read a preset back from JSON.

    Args:
        fields: What ``dataclasses.asdict`` gave.

    Returns:
        The preset.

    Chapter: sft/fine_tuning.
    """
    return SFTPreset(
        **{
            **fields,
            "lora": LoRAConfig(**fields["lora"]),
            "training": TrainingConfig(**fields["training"]),
        }
    )
