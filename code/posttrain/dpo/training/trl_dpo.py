"""The same run through TRL's DPOTrainer and PEFT.

The trainer copies the adapter that it is given, and calls the copy the reference. So a run that
starts from a fine-tuned adapter is compared with the fine-tuned model. A trainer that is given
a new adapter on a base model compares with the base model instead.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.sft.adapters.peft_models import load_peft_adapter
from posttrain.sft.training.trl_engine import EngineRun, model_source

if TYPE_CHECKING:
    import torch
    from trl import DPOConfig  # type: ignore[attr-defined]

LOSS_TYPES = ("sigmoid", "robust", "ipo", "sigmoid_norm")
"""Losses that TRL's DPOTrainer has under the same names."""


def check_trl_loss(config: PreferenceLossConfig) -> None:
    """Refuse a loss that TRL's DPOTrainer lacks, or computes otherwise.

    Args:
        config: The loss.

    Raises:
        ValueError: If TRL's trainer has no such loss, or means another one by its name.

    Chapter: dpo/alignment.
    """
    smoothed = config.loss_type == "sigmoid" and config.label_smoothing > 0
    summed = config.loss_type == "ipo" and config.ipo_aggregation == "sum"
    if config.loss_type not in LOSS_TYPES or smoothed or summed:
        raise ValueError(
            f"TRL's DPOTrainer does not train {config.needs.name} as it is set here: choose "
            "sigmoid without label smoothing, robust, sigmoid_norm, or ipo with "
            "ipo_aggregation='mean', or train by hand"
        )


def dpo_config(
    config: PreferenceLossConfig,
    training: TrainingConfig,
    batch_size: int,
    folder: Path,
    *,
    precompute: bool = False,
    **changed: Any,
) -> DPOConfig:
    """Say the same to TRL.

    Args:
        config: The loss.
        training: Schedule and optimizer.
        batch_size: Pairs per micro-batch.
        folder: Where the trainer may write.
        precompute: Compute the reference's log-probabilities before the first step, as the run
            by hand does; otherwise they are computed anew in each step.
        **changed: Further fields of TRL's configuration; they win.

    Returns:
        TRL's configuration. The pairs keep their order, and what does not fill a batch at the
        end of a pass is dropped, as here.

    Raises:
        ValueError: If TRL's trainer has no such loss, or means another one by its name.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    from trl import DPOConfig  # type: ignore[attr-defined]

    check_trl_loss(config)
    cosine = training.lr_scheduler_type == "cosine"
    schedule: dict[str, Any] = {
        "lr_scheduler_type": "cosine" if cosine else "constant_with_warmup"
    }
    if cosine and training.min_lr_ratio:
        schedule = {
            "lr_scheduler_type": "cosine_with_min_lr",
            "lr_scheduler_kwargs": {"min_lr_rate": training.min_lr_ratio},
        }
    fields: dict[str, Any] = dict(
        output_dir=str(folder),
        loss_type=[config.loss_type],
        beta=config.beta,
        label_smoothing=config.label_smoothing,
        precompute_ref_log_probs=precompute,
        per_device_train_batch_size=batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        max_steps=training.max_steps,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps if training.max_steps > 1 else 0,
        weight_decay=training.weight_decay,
        adam_beta1=training.adam_beta1,
        adam_beta2=training.adam_beta2,
        adam_epsilon=training.adam_epsilon,
        max_grad_norm=training.max_grad_norm,
        seed=training.seed,
        max_length=None,  # the pairs were fitted before
        train_sampling_strategy="sequential",
        dataloader_drop_last=True,
        gradient_checkpointing=False,
        use_cpu=True,
        bf16=training.use_bf16,
        logging_nan_inf_filter=False,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **schedule,
    )
    return DPOConfig(**{**fields, **changed})


def run_trl_pairs(
    model: str,
    adapter: Path,
    pairs: Sequence[EncodedPair],
    config: PreferenceLossConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    batch_size: int,
    dtype: torch.dtype,
    precompute: bool = False,
) -> EngineRun:
    """Train a fine-tuned adapter on pairs with TRL, on the CPU.

    Args:
        model: The base model: a name that ``posttrain.core.assets`` knows, or a folder.
        adapter: The fine-tuned adapter; its frozen copy is the reference.
        pairs: Encoded pairs, in the order of training.
        config: The loss.
        training: Schedule and optimizer.
        folder: Gets the adapter.
        batch_size: Pairs per micro-batch.
        dtype: Type of the frozen weights.
        precompute: See :func:`dpo_config`.

    Returns:
        What happened. ``tokens`` counts the tokens of both rows of each pair.

    Raises:
        ValueError: If TRL's trainer has no such loss, or the pairs do not fill a batch.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.trainer_callback import PrinterCallback
    from trl import DPOTrainer  # type: ignore[attr-defined]

    if len(pairs) < batch_size:
        raise ValueError(f"{len(pairs)} pairs do not fill a batch of {batch_size}: give more")
    settings = dpo_config(
        config, training, batch_size, folder / "trainer", precompute=precompute
    )

    class EncodedPairsTrainer(DPOTrainer):
        """Takes tokens as they are: ours have one prompt for both answers already."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **options: Any) -> Any:
            return dataset

    source = model_source(model)
    base = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, trust_remote_code=False)
    torch.manual_seed(training.seed)
    policy = load_peft_adapter(base, adapter, trainable=True)
    rows = Dataset.from_list(
        [
            {
                "prompt_ids": list(pair.prompt_ids),
                "chosen_ids": list(pair.chosen_ids),
                "rejected_ids": list(pair.rejected_ids),
            }
            for pair in pairs
        ]
    )
    started = time.perf_counter()
    trainer = EncodedPairsTrainer(
        model=policy,
        args=settings,
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(source, trust_remote_code=False),
    )
    trainer.remove_callback(PrinterCallback)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    if not precompute:  # else the reference was computed while the trainer was made
        started = time.perf_counter()
    trainer.train()
    seconds = time.perf_counter() - started
    policy.save_pretrained(str(folder / "adapter"), selected_adapters=["default"])
    shutil.rmtree(folder / "trainer", ignore_errors=True)
    log = trainer.state.log_history
    steps = training.max_steps * training.gradient_accumulation_steps * batch_size
    read = [pairs[i % (len(pairs) - len(pairs) % batch_size)] for i in range(steps)]
    return EngineRun(
        losses=[float(entry["loss"]) for entry in log if "loss" in entry],
        seconds=seconds,
        tokens=sum(
            2 * len(p.prompt_ids) + len(p.chosen_ids) + len(p.rejected_ids) for p in read
        ),
        adapter=folder / "adapter",
    )
