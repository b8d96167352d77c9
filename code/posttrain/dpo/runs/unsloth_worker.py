"""Unsloth's own process: ``python -m posttrain.dpo.runs.unsloth_worker FOLDER``.

Reads ``job.json`` in the folder, trains, writes ``result.json``. Started by
:func:`posttrain.dpo.runs.unsloth_engine.run_pairs_unsloth`. Unsloth must be imported before
everything that it rewrites.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path


def main(folder: Path) -> None:
    """Do the job of a folder.

    Args:
        folder: Holds ``job.json``.

    Chapter: dpo/alignment.
    """
    from unsloth import FastLanguageModel  # first: it patches what comes after

    from posttrain.core.storage.files import write_json_atomic
    from posttrain.dpo.runs.trl_engine import fit_pairs
    from posttrain.dpo.runs.unsloth_engine import pair_from, pair_preset_from
    from posttrain.sft.presets import dtype_of
    from posttrain.sft.training.trl_engine import model_source
    from posttrain.sft.training.watching import watching_from

    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    preset = pair_preset_from(job["preset"])
    start, lora = preset.start, preset.start.lora
    model, tokenizer = FastLanguageModel.from_pretrained(
        model_source(start.model),
        max_seq_length=preset.max_length,
        dtype=dtype_of(start),
        load_in_4bit=start.quantization == "nf4",
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=lora.r,
        lora_alpha=lora.lora_alpha,
        lora_dropout=lora.lora_dropout,
        target_modules=list(lora.target_modules),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        layers_to_transform=list(lora.layers_to_transform)
        if lora.layers_to_transform
        else None,
        use_gradient_checkpointing="unsloth" if preset.gradient_checkpointing else False,
        random_state=preset.training.seed,
    )
    if job["adapter"]:
        from peft import set_peft_model_state_dict

        from posttrain.sft.adapters.files import read_adapter_weights
        from posttrain.sft.adapters.peft_models import check_peft_names

        tensors = read_adapter_weights(Path(job["adapter"]))
        check_peft_names(model, set(tensors), Path(job["adapter"]))
        set_peft_model_state_dict(model, tensors)
    pairs, validation = (
        [pair_from(row) for row in job[part]] for part in ("pairs", "validation")
    )
    watching = watching_from(job.get("watching"))
    run = fit_pairs(model, tokenizer, pairs, preset, folder, validation, watching)
    write_json_atomic(folder / "result.json", {**asdict(run), "adapter": str(run.adapter)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
