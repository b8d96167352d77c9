"""TRL's side of the comparison: its collators and its trainers' own ``compute_loss``.

TRL 1.14.2 does not compute all losses in one place. Conservative DPO is its ``aot`` loss on one
pair, since its ``sigmoid`` leaves ``label_smoothing`` out. IPO on sums is ``CPOTrainer``'s on
log-ratios. ORPO's fine-tuning term counts the prompt and averages over the batch there, so both
sides get prompts of one token and chosen answers of one length.

Chapter: dpo/losses.
"""

from __future__ import annotations

import functools
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.storage.conversion import without_progress_bars
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.parity_draws import DrawnBatch, Row, llama_pair
from posttrain.sft.chat.masking import IGNORE_INDEX


def trl_loss(batch: DrawnBatch, policy: nn.Module, reference: nn.Module) -> Tensor:
    """Compute the loss of a batch as a trainer of TRL does, its collator included.

    Args:
        batch: The batch.
        policy: The model that is trained.
        reference: The model to compare with.

    Returns:
        The loss, a scalar.

    Chapter: dpo/losses.
    """
    _restore_device()
    config, rows, n = batch.config, batch.rows, len(batch.rows) // 2
    pairs = list(zip(rows[:n], rows[n:], strict=False))
    if batch.variant == "kto":
        return _trl_kto(batch, policy, reference)
    if batch.variant == "orpo":
        trainer = _trainers().orpo
        trainer.beta = config.beta
        return trainer.compute_loss(policy, trainer.data_collator(_cpo_features(pairs)))
    if batch.variant in ("simpo", "ipo sum"):
        return _trl_cpo(config, pairs, policy, reference)
    trainer = _trainers().dpo
    names = {"dpo": "sigmoid", "conservative": "aot", "ipo mean": "ipo"}
    trainer.loss_types, trainer.loss_weights = [names.get(batch.variant, batch.variant)], [1.0]
    trainer.beta, trainer.label_smoothing = config.beta, config.label_smoothing
    trainer.ref_model = reference
    features = [
        {"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}
        for (prompt, chosen), (_, rejected) in pairs
    ]
    return trainer.compute_loss(policy, trainer.data_collator(features))


def _trl_kto(batch: DrawnBatch, policy: nn.Module, reference: nn.Module) -> Tensor:
    trainer, config = _trainers().kto, batch.config
    trainer.beta, trainer.ref_model = config.beta, reference
    trainer.desirable_weight = config.desirable_weight
    trainer.undesirable_weight = config.undesirable_weight
    answers = [answer for _, answer in batch.rows]
    features = [
        {"prompt_ids": p, "completion_ids": answer, "KL_completion_ids": other, "label": good}
        for (p, answer), other, good in zip(
            batch.rows, [answers[-1], *answers[:-1]], batch.desirable, strict=True
        )
    ]
    return trainer.compute_loss(policy, trainer.data_collator(features))


def _trl_cpo(
    config: PreferenceLossConfig,
    pairs: list[tuple[Row, Row]],
    policy: nn.Module,
    reference: nn.Module,
) -> Tensor:
    """SimPO, which is all CPOTrainer's; or IPO on sums, of which it has the parts."""
    trainer = _trainers().cpo
    trainer.loss_type, trainer.beta = config.loss_type, config.beta
    trainer.simpo_gamma = config.simpo_gamma
    batch = trainer.data_collator(_cpo_features(pairs))
    if config.loss_type == "simpo":
        return trainer.compute_loss(policy, batch)

    def log_ratios(side: str) -> Tensor:
        ids, labels = batch[f"{side}_input_ids"], batch[f"{side}_labels"]
        mask = batch[f"{side}_attention_mask"]
        sums = trainer.get_batch_logps(
            policy(input_ids=ids, attention_mask=mask).logits, labels
        )
        with torch.no_grad():
            logits = reference(input_ids=ids, attention_mask=mask).logits
            ref_sums = trainer.get_batch_logps(logits, labels)
        return sums - ref_sums

    losses, _, _ = trainer.cpo_loss(log_ratios("chosen"), log_ratios("rejected"))
    return losses.mean()


def _cpo_features(pairs: list[tuple[Row, Row]]) -> list[dict[str, list[int]]]:
    features = []
    for chosen, rejected in pairs:
        feature = {}
        for side, (prompt, answer) in (("chosen", chosen), ("rejected", rejected)):
            feature[f"{side}_input_ids"] = prompt + answer
            feature[f"{side}_attention_mask"] = [1] * len(prompt + answer)
            feature[f"{side}_labels"] = [IGNORE_INDEX] * len(prompt) + answer
        features.append(feature)
    return features


@functools.cache
def _trainers() -> SimpleNamespace:
    """TRL's trainers, made once; each comparison sets their loss, beta and reference."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder, _quietly():
        warnings.simplefilter("ignore")  # that trl.experimental is experimental
        return _made_trainers(folder)


def _restore_device() -> None:
    """Put back what accelerate shares among trainers.

    Whoever makes arguments for another trainer empties it, and the trainers made here would no
    longer know their device.
    """
    from accelerate import Accelerator  # type: ignore[import-untyped]
    from accelerate.state import AcceleratorState  # type: ignore[import-untyped]

    _trainers()
    if not AcceleratorState._shared_state:
        Accelerator(cpu=True)


def _made_trainers(folder: str) -> SimpleNamespace:
    from datasets import Dataset
    from trl import (  # type: ignore[attr-defined]
        DPOConfig,
        DPOTrainer,
        KTOConfig,
        KTOTrainer,
    )
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    usual: dict[str, Any] = {
        "output_dir": folder, "report_to": "none", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "disable_tqdm": True,
        "remove_unused_columns": False, "per_device_train_batch_size": 2,
    }  # fmt: skip
    data = Dataset.from_list([{"prompt": "a b", "chosen": " c", "rejected": " d"}] * 2)
    given: dict[str, Any] = {"train_dataset": data, "processing_class": _tokenizer()}
    models: Any = llama_pair(0)  # to the trainers' types, modules are too little
    policy, reference = models
    kto = KTOConfig(**usual, train_sampling_strategy="sequential")
    cpo = CPOConfig(**usual, loss_type="simpo", cpo_alpha=0.0)
    return SimpleNamespace(
        dpo=DPOTrainer(policy, reference, DPOConfig(**usual), **given),
        kto=KTOTrainer(policy, reference, kto, **given),
        cpo=CPOTrainer(policy, cpo, **given),
        orpo=ORPOTrainer(policy, ORPOConfig(**usual), **given),
    )


@contextmanager
def _quietly() -> Iterator[None]:
    """Hide the bars of two rows' preparation."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    hidden = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        with without_progress_bars():
            yield
    finally:
        if not hidden:
            enable_progress_bars()


def _tokenizer() -> Any:
    """A tokenizer of a few letters: trainers ask for one, the comparisons do not use it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    names = ["<pad>", "<eos>", "a", "b", "c", "d"]
    vocabulary = {name: index for index, name in enumerate(names)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<pad>"
    )
