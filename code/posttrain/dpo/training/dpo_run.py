"""The run by hand: from a fine-tuned adapter and pairs to a preferred one.

The adapter of the fine-tuned model is trained on. The reference is that same model as it is
before the first step, so it needs no weights of its own: its log-probabilities of all pairs are
computed once, and kept.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.errors import TrainingDiverged
from posttrain.core.storage.files import atomic_path
from posttrain.core.training.checkpoints import History
from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.preference import preference_loss
from posttrain.dpo.losses.rewards import implicit_rewards, reward_accuracy
from posttrain.dpo.training.divergence import reference_states, token_divergence
from posttrain.dpo.training.pair_batches import (
    PackedPairs,
    PairBatches,
    ReferenceLogps,
    pack_pairs,
    pairs_digest,
)
from posttrain.dpo.training.pair_forward import (
    answer_states,
    logps_from_states,
    reference_logps,
)
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.files import save_adapter
from posttrain.sft.adapters.lora import LoRAConfig

START_TOLERANCE = (
    0.05  # nats of a margin at step 0: rounding of 16-bit weights in other batches
)


@dataclass(frozen=True)
class PairMetrics:
    """What a model says of some pairs, against the reference.

    Attributes:
        loss: Mean loss of a pair.
        chosen_logps: Mean log-probability of a chosen answer, in nats.
        rejected_logps: Mean log-probability of a rejected answer.
        margin: Mean difference of the implicit rewards.
        accuracy: Share of pairs that the implicit rewards order as the labels do; a tie is
            half.
        kl: Mean over the answers' tokens of the divergence from the reference, in nats;
            ``None`` where the reference's states were not given.
    """

    loss: float
    chosen_logps: float
    rejected_logps: float
    margin: float
    accuracy: float
    kl: float | None = None


def logps_of(
    model: GPT,
    batch: PackedPairs,
    config: PreferenceLossConfig,
    states: Tensor | None = None,
) -> PairLogps:
    """Compute what a loss is computed from.

    Args:
        model: The policy.
        batch: Packed pairs; with the reference's log-probabilities where the loss needs them.
        config: The loss.
        states: The policy's states, where they are known already; shape (M, C).

    Returns:
        The log-probabilities of the batch.

    Raises:
        ValueError: If the loss needs a reference and the batch has none.

    Chapter: dpo/alignment.
    """
    if states is None:
        states = answer_states(model, batch)
    chosen, rejected = logps_from_states(model, batch, states)
    reference: dict[str, Tensor] = {}
    if config.needs.reference:
        if batch.reference is None:
            raise ValueError(
                f"{config.needs.name} compares with a reference and the batch has none: give "
                "PairBatches what reference_logps returned"
            )
        reference = {
            "ref_chosen": batch.reference.chosen, "ref_rejected": batch.reference.rejected,
        }  # fmt: skip
    lengths = batch.counts.split(batch.pairs)
    return PairLogps(
        chosen, rejected, **reference, chosen_lengths=lengths[0], rejected_lengths=lengths[1]
    )


@torch.no_grad()
def measure_pairs(
    model: GPT,
    pairs: Sequence[EncodedPair],
    reference: ReferenceLogps,
    config: PreferenceLossConfig,
    batch_size: int = 8,
    reference_states: Sequence[Tensor] | None = None,
) -> PairMetrics:
    """Measure a model on pairs that it is not trained on.

    Args:
        model: The policy, in evaluation mode.
        pairs: The pairs.
        reference: What the reference says of them.
        config: The loss.
        batch_size: Pairs at once.
        reference_states: What :func:`posttrain.dpo.training.divergence.reference_states`
            returned for these pairs and this batch size.

    Returns:
        The means over all pairs, or over all tokens of their answers.

    Chapter: dpo/alignment.
    """
    found: list[tuple[Tensor, ...]] = []
    divergences: list[Tensor] = []
    for start in range(0, len(pairs), batch_size):
        rows = range(start, min(start + batch_size, len(pairs)))
        batch = pack_pairs([pairs[row] for row in rows], reference.rows(rows)).to(model.device)
        states = answer_states(model, batch)
        logps = logps_of(model, batch, config, states)
        if reference_states is not None:
            kept = reference_states[start // batch_size].to(states)
            divergences.append(token_divergence(model, states, kept))
        found.append(_told(config, logps, preference_loss(config, logps)))
    kl = float(torch.cat(divergences).mean()) if divergences else None
    return replace(_means(found), kl=kl)


def _told(config: PreferenceLossConfig, logps: PairLogps, losses: Tensor) -> tuple[Tensor, ...]:
    """What is looked at of some pairs, without gradient, shape (B,) each."""
    seen = (losses, logps.chosen, logps.rejected, *implicit_rewards(config, logps))
    return tuple(part.detach() for part in seen)


def _means(found: Sequence[tuple[Tensor, ...]]) -> PairMetrics:
    loss, chosen, rejected, good, bad = (torch.cat(part) for part in zip(*found, strict=True))
    return PairMetrics(
        loss=float(loss.mean()),
        chosen_logps=float(chosen.mean()),
        rejected_logps=float(rejected.mean()),
        margin=float((good - bad).mean()),
        accuracy=float(reward_accuracy(good, bad)),
    )


def train_pairs(
    model: GPT,
    lora: LoRAConfig,
    pairs: Sequence[EncodedPair],
    validation: Sequence[EncodedPair],
    config: PreferenceLossConfig,
    training: TrainingConfig,
    folder: Path,
    *,
    batch_size: int,
    seed: int = 0,
    scratch: Path | None = None,
    keep_order: bool = False,
    base_model_name: str = "",
    keep_start: bool = True,
    on_step: Callable[[int, History, PairMetrics, int], None] | None = None,
    on_evaluation: Callable[[GPT, int, PairMetrics], None] | None = None,
) -> tuple[History, str | None]:
    """Train a model's adapter on pairs; keep the one with the lowest validation loss.

    Args:
        model: The fine-tuned model with its adapter, as
            :func:`posttrain.sft.adapters.files.load_adapter` makes it. It is the reference
            before the first step, and the policy after it.
        lora: The adapter's configuration.
        pairs: What to learn from.
        validation: What to be measured on.
        config: The loss. KTO, whose answers are single, is not trained here.
        training: Schedule and optimizer.
        folder: Gets the adapters ``best`` and ``last``, in PEFT's format.
        batch_size: Pairs per micro-batch.
        seed: Seed of the order of the pairs.
        scratch: Where checkpoints are kept, and found after an interruption.
        keep_order: Take the pairs in their order, as a comparison with another trainer needs.
        base_model_name: What the adapter's file names as its base model.
        keep_start: Whether ``best`` may be the adapter before the first step.
        on_step: Called as ``on_step(step, history, metrics, tokens)`` after each step, with
            what the policy said of its pairs before the step, and with their tokens; it shows
            the run, in place of the progress bar.
        on_evaluation: Called as ``on_evaluation(model, step, metrics)`` after each evaluation.

    Returns:
        What happened, and what the guard said where it stopped the run. Each evaluation has the
        fields of :class:`PairMetrics`, on the validation pairs.

    Raises:
        ValueError: If there is nothing to be measured on, the loss takes no pairs, or the model
            differs from its own reference before the first step.
        ArtifactError: If ``scratch`` holds a checkpoint of another run, or a damaged one.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    if not validation:
        raise ValueError("there is nothing to measure: give at least one validation pair")
    if config.needs.data != "pairs":
        raise ValueError(
            f"{config.needs.name} takes single answers and this run trains on pairs: choose a "
            "loss on pairs"
        )
    reference, held_out = (_reference(model, part, scratch, name) for name, part in (
        ("train", pairs), ("validation", validation)
    ))  # fmt: skip
    batches = PairBatches(
        pairs, batch_size, None if keep_order else seed,
        reference if config.needs.reference else None, model.device,
    )  # fmt: skip
    trained_head = any(weight.requires_grad for weight in model.lm_head.parameters())
    apart = None if trained_head else reference_states(model, validation)
    best = (scratch or folder) / "best"
    history, diverged = History(), None
    seen: list[tuple[Tensor, ...]] = []
    tokens: list[int] = []

    def evaluate(current: nn.Module, step: int) -> dict[str, Any]:
        assert isinstance(current, GPT)
        found = measure_pairs(current, validation, held_out, config, reference_states=apart)
        if step == 0 and config.needs.reference:
            check_start(found, config)
        counted = (row for row in history.evaluations if keep_start or row["step"])
        before = min((row["loss"] for row in counted), default=math.inf)
        if found.loss < before and (keep_start or step):
            save_adapter(current, lora, best, base_model_name=base_model_name)
        if on_evaluation is not None:
            on_evaluation(current, step, found)
        return vars(found)

    def loss(current: nn.Module, batch: PackedPairs) -> tuple[Tensor, int]:
        assert isinstance(current, GPT)
        logps = logps_of(current, batch, config)
        losses = preference_loss(config, logps)
        if on_step is not None:
            seen.append(_told(config, logps, losses))
            tokens.append(len(batch.input_ids))
        return losses.sum(), batch.pairs

    def show(step: int, so_far: History) -> None:
        assert on_step is not None
        on_step(step, so_far, _means(seen), sum(tokens))
        seen.clear()
        tokens.clear()

    try:
        train(
            model, loss, batches, replace(training, seed=seed), evaluate=evaluate,
            checkpoint_folder=scratch, description=f"{config.needs.name} seed {seed}",
            history=history, on_step=None if on_step is None else show,
            identity={
                "lora": lora, "loss": config, "batch_size": batch_size,
                "validation": pairs_digest(validation, held_out),
            },
        )  # fmt: skip
    except TrainingDiverged as error:
        diverged = str(error)
    save_adapter(model, lora, folder / "last", base_model_name=base_model_name)
    if best.parent != folder and best.is_dir():
        shutil.copytree(best, folder / "best", dirs_exist_ok=True)
    model.eval()
    return history, diverged


def check_start(found: PairMetrics, config: PreferenceLossConfig) -> None:
    """Refuse a run whose policy is not its reference before the first step.

    Every margin is then 0. A run with another reference begins elsewhere, and its divergence
    from the reference is never what is reported.

    Args:
        found: Measured at step 0.
        config: The loss.

    Raises:
        ValueError: If the mean margin is not 0.

    Chapter: dpo/alignment.
    """
    if not abs(found.margin) <= START_TOLERANCE * config.beta:
        raise ValueError(
            f"before the first step the mean margin is {found.margin:.3g} and not 0: the "
            "reference is another model than the one that training starts from"
        )


def _reference(
    model: GPT, pairs: Sequence[EncodedPair], scratch: Path | None, name: str
) -> ReferenceLogps:
    """Compute the reference's log-probabilities, or find those of an interrupted run.

    After an interruption the model that is given is the start again, and so would they be; but
    other batches round otherwise, and a run that goes on must go on to the same bits.
    """
    from safetensors.torch import load_file, save_file

    file = None if scratch is None else scratch / f"reference-{name}.safetensors"
    digest = pairs_digest(pairs)
    if file is not None and file.is_file():
        stored = load_file(file)
        if bytes(stored["digest"].tolist()).decode() == digest:
            return ReferenceLogps(stored["chosen"], stored["rejected"])
    found = reference_logps(model, pairs)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        named = torch.tensor(list(digest.encode()), dtype=torch.uint8)
        with atomic_path(file) as temporary:  # a kill must not leave half of it
            save_file(
                {"chosen": found.chosen, "rejected": found.rejected, "digest": named}, temporary
            )
    return found
