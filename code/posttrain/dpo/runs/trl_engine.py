"""The run through TRL's DPOTrainer and PEFT, watched, guarded and resumable.

The trainer copies the adapter that it is given, and calls the copy the reference. Three things
are put right here, each of which would pass without a word. TRL rounds the adapter to bfloat16
beside 4-bit weights: the policy would begin beside its own reference. Its checkpoints hold the
copy in a folder of its own, and transformers then reads that folder alone: a resumed run would
go on from the first adapter. And bitsandbytes packs 4-bit weights at the first forward pass
without gradients, on processors with bfloat16 units, into a form that has no backward pass: the
blocks below would not be trained after the reference was computed.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from posttrain.core.training.contention import BusyWatch
from posttrain.core.training.identity import frozen_digest
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.checks import check_pair_engine, check_pair_outcome, check_run_pairs
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.dpo.training.pair_batches import pairs_digest
from posttrain.dpo.training.trl_dpo import dpo_config
from posttrain.sft.adapters.peft_models import load_peft_adapter
from posttrain.sft.presets import dtype_of
from posttrain.sft.training.trl_engine import (
    EngineRun,
    last_checkpoint,
    model_source,
    peft_config,
)
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase
    from trl import DPOConfig  # type: ignore[attr-defined]

REFERENCE = "ref"
"""What TRL calls its copy of the adapter, and the copy's folder in a checkpoint."""

PACKS = "support_avx512bf16_for_cpu"
"""Of bitsandbytes' layers: whether an evaluation may pack their weights."""


def pair_trainer_config(preset: DPOPreset, folder: Path) -> DPOConfig:
    """Say a run to TRL.

    Args:
        preset: The run.
        folder: Where the trainer may write.

    Returns:
        TRL's configuration. The reference is computed once, before the first step. The held-out
        pairs are measured before the first step and every ``eval_steps``, and the adapter of
        the lowest loss after a step is the result.

    Raises:
        ValueError: If TRL's trainer has no such loss.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    training = preset.training
    on_gpu = preset.start.device != "cpu"
    apart = training.eval_steps or training.max_steps
    return dpo_config(
        preset.loss,
        training,
        preset.batch_size,
        folder,
        precompute=True,
        use_cpu=not on_gpu,
        fp16=on_gpu and preset.start.dtype == "float16",  # small gradients must be scaled
        gradient_checkpointing=preset.gradient_checkpointing,
        dataloader_drop_last=False,  # it would drop held-out pairs too; see fit_pairs
        per_device_eval_batch_size=preset.batch_size,
        eval_strategy="steps",
        eval_steps=apart,
        eval_on_start=True,
        save_strategy="steps",
        save_steps=apart,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
    )


def fit_pairs(
    model: PeftModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    preset: DPOPreset,
    folder: Path,
    validation: Sequence[EncodedPair],
    watching: Watching | None = None,
) -> EngineRun:
    """Run TRL's DPOTrainer on a model that has its adapter already.

    A run that was interrupted goes on from its last checkpoint where it is started again with
    the same folder, model, pairs and preset.

    Args:
        model: A PEFT model. Its adapter is trained in float32, and a frozen copy of it is the
            reference.
        tokenizer: Its tokenizer.
        pairs: Encoded pairs, in the order of training.
        preset: Loss, schedule, optimizer and batch.
        folder: Gets the adapter.
        validation: Encoded pairs to be measured on, at least one.
        watching: How the run is shown; not at all where it is left out.

    Returns:
        What happened. ``tokens`` counts those of both rows of each pair.

    Raises:
        ValueError: If the pairs do not fill a step, nothing is held out, or a setting would be
            ignored.
        TrainingDiverged: If the guard stops the run, as it does by hand.
        TrainingIncomplete: If fewer steps were taken than asked for, or nothing was learned.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    import torch
    from datasets import Dataset
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOTrainer  # type: ignore[attr-defined]

    from posttrain.dpo.runs.trl_watching import PairWatchCallback
    from posttrain.sft.training.trl_watching import GuardCallback

    check_pair_engine(preset)
    check_run_pairs(pairs, validation, preset)
    on_cpu = preset.start.device == "cpu"
    watch = BusyWatch(torch.get_num_threads() if on_cpu else 1)
    pairs = pairs[: len(pairs) - len(pairs) % preset.batch_size]
    for module in model.modules():
        if hasattr(module, PACKS):
            setattr(module, PACKS, False)
    start = {
        name: weight.detach().clone().float()
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    own = folder / "trainer" / _fingerprint(model, start, pairs, validation, preset)
    own.mkdir(parents=True, exist_ok=True)

    class EncodedPairsTrainer(DPOTrainer):
        """Takes tokens as they are: ours have one prompt for both answers already."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **options: Any) -> Any:
            return dataset

    trainer = EncodedPairsTrainer(
        model=cast(Any, model),
        args=pair_trainer_config(preset, own),
        train_dataset=Dataset.from_list(_columns(pairs)),
        eval_dataset=Dataset.from_list(_columns(validation)),
        processing_class=tokenizer,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(GuardCallback(trainer_preset(preset)))
    if watching is not None:
        trainer.add_callback(PairWatchCallback(watching, preset, tokenizer))
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            weight.data = start[name].clone()
    checkpoint = last_checkpoint(own)
    if checkpoint is not None:
        shutil.rmtree(Path(checkpoint) / REFERENCE, ignore_errors=True)
    watch.warn()
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    end = {name: weight.detach().float() for name, weight in model.named_parameters()}
    check_pair_outcome(
        trainer.state.global_step, preset, start, {name: end[name] for name in start}
    )
    model.save_pretrained(str(folder / "adapter"), selected_adapters=["default"])
    shutil.rmtree(folder / "trainer")
    log = trainer.state.log_history
    return EngineRun(
        losses=[float(entry["loss"]) for entry in log if "loss" in entry],
        seconds=seconds,
        tokens=int(max(entry.get("num_tokens", 0) for entry in log if "loss" in entry)),
        adapter=folder / "adapter",
        validation={
            int(entry["step"]): float(entry["eval_loss"])
            for entry in log
            if "eval_loss" in entry
        },
    )


def _columns(pairs: Sequence[EncodedPair]) -> list[dict[str, list[int]]]:
    names = ("prompt_ids", "chosen_ids", "rejected_ids")
    return [{name: list(getattr(pair, name)) for name in names} for pair in pairs]


def _fingerprint(
    model: PeftModel,
    start: dict[str, Any],
    pairs: Sequence[EncodedPair],
    validation: Sequence[EncodedPair],
    preset: DPOPreset,
) -> str:
    """Name a run, so that no checkpoint of another one is taken for its own.

    The frozen weights count, and not where they lie.
    """
    settings = asdict(preset)
    settings["start"] = {
        name: value
        for name, value in settings["start"].items()
        if name not in ("name", "model", "training", "batch_size", "max_length", "dataset")
    }
    settings |= {"dtype": str(dtype_of(preset.start)), "frozen": frozen_digest(model)}
    rows = [pairs_digest(part) for part in (pairs, validation)]
    digest = hashlib.sha256(json.dumps([settings, rows], sort_keys=True).encode())
    for weight in start.values():
        digest.update(weight.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def run_pairs_trl(
    preset: DPOPreset,
    pairs: Sequence[EncodedPair],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedPair] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with TRL and PEFT in this process.

    Args:
        preset: The run; ``quantization="nf4"`` loads the weights through bitsandbytes.
        pairs: Encoded pairs, in the order of training.
        folder: Gets the adapter.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded pairs to be measured on; see :func:`fit_pairs`.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        AssetError: If ``adapter`` holds none.
        ValueError: If the pairs do not fill a step, or ``adapter`` does not fit the model.
        TrainingIncomplete: If fewer steps were taken than asked for, or nothing was learned.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

    check_pair_engine(preset)
    check_run_pairs(pairs, validation, preset)
    start = preset.start
    source, dtype = model_source(start.model), dtype_of(start)
    options: dict[str, Any] = {}
    if start.quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        source, dtype=dtype, device_map={"": start.device}, trust_remote_code=False, **options
    )
    torch.manual_seed(preset.training.seed)
    tuned = (
        load_peft_adapter(model, adapter, trainable=True)
        if adapter is not None
        else get_peft_model(model, peft_config(start.lora))
    )
    tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    return fit_pairs(tuned, tokenizer, pairs, preset, folder, validation, watching)
