"""The page that travels with an adapter: where it comes from and what it was measured to do.

Chapter: sft/your_model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from posttrain.core.storage.files import write_text_atomic
from posttrain.sft.presets import SFTPreset
from posttrain.sft.runs.before_after import comparison_lines

CARD_NAME = "README.md"


def write_card(
    folder: Path,
    preset: SFTPreset,
    *,
    base: str,
    data: Mapping[str, Any],
    measured: Mapping[str, Any] | None,
    machine: Mapping[str, Any],
    stage: str = "sft",
    unit: str = "rows",
    more: Mapping[str, str] | None = None,
    said: Sequence[str] | None = None,
) -> None:
    """Write a model card in the hub's form: facts for programs, then text for people.

    Args:
        folder: The adapter's folder.
        preset: The run.
        base: Name of the base model.
        data: ``source``, ``format``, ``sha256``, ``train_rows``, ``held_out_rows``.
        measured: What ``compare`` gave, or ``None``.
        machine: Versions and processor, as ``core.machine.run_record`` gives them.
        stage: Tag of the stage.
        unit: What the data consist of.
        more: Further lines of the table, by name.
        said: What was measured, a sentence each, in place of ``measured``.

    Chapter: sft/your_model.
    """
    training, lora = preset.training, preset.lora
    public = base if "/" in base and not Path(base).is_absolute() else None
    head = ["---", *([f"base_model: {public}"] if public else []), "library_name: peft",
            "pipeline_tag: text-generation", f"tags: [lora, {stage}, posttrain]",
            "---"]  # fmt: skip
    examples = preset.batch_size * training.gradient_accumulation_steps
    frozen = "4 bits (NF4)" if preset.quantization else preset.dtype
    a_step = f"{examples} {'examples' if unit == 'rows' else unit}"
    table = {
        "base model": base,
        "chat format": preset.chat_format,
        unit: f"{data['train_rows']} to train on, {data['held_out_rows']} held out",
        "data": f"{data['source']} ({data['format']}), SHA-256 {data['sha256']}",
        "preset": f"{preset.name}, engine {preset.engine}",
        "frozen weights": frozen,
        "adapter": f"r = {lora.r}, lora_alpha = {lora.lora_alpha:g}, on "
        f"{', '.join(lora.target_modules)}",
        "steps": f"{training.max_steps} of {a_step}",
        "learning rate": f"{training.learning_rate:g}, warm-up of {training.warmup_steps} "
        f"steps, {training.lr_scheduler_type}",
        "seed": str(training.seed),
        "machine": f"{machine.get('cpu')}, {machine.get('gpu') or 'no GPU'}",
        "versions": json.dumps(machine.get("versions", {}), sort_keys=True),
    }
    table |= more or {}
    lines = [*head, "", f"# A LoRA adapter for {base}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in table.items()]
    lines += ["", f"## Measured on {unit} that were held out", ""]
    if said is not None:
        lines += [f"- {line}" for line in said]
    elif measured is None:
        lines.append("Nothing was held out, so nothing was measured.")
    else:
        lines += [f"- {line}" for line in comparison_lines(dict(measured))]
        lines.append(
            "- Intervals cover the rows (95 %), not the seed: one run. An exact answer equals "
            "the row's, white space aside."
        )
    lines += [
        "",
        "## Use",
        "",
        "```",
        "posttrain chat --adapter THIS_FOLDER",
        "```",
        "",
        "PEFT, transformers and vLLM load the folder as it is. What the adapter does beyond "
        f"the {unit} above was not measured: test it before others use it, and name the "
        "licence of the data and of the base model where you publish it.",
    ]
    write_text_atomic(folder / CARD_NAME, "\n".join(lines) + "\n")
