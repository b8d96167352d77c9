"""What a micro-batch of pairs takes, by engine, on top of Stage 1's formulas.

By hand a pair is one row: the prompt once, then both answers, and logits of the answers alone.
TRL and Unsloth make two rows of it, which both hold the prompt, pad all rows to the longest and
compute the logits of every position. No engine holds a second model: the reference's
log-probabilities are computed once, before the first step.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.engine_costs import (
    MicroBatch,
    RunMemory,
    bytes_of,
    pads,
    recomputes,
    run_memory,
    run_operations,
)

BY_HAND_LOGIT_BYTES = 16
"""Logits, their exponentials and two gradients, all float32, counted for each answer token."""

TRL_LOGIT_BYTES = {2: 10, 4: 15}
"""Counted on a CPU for each position, by bytes of a number: logits, their gradient, a row."""


@dataclass(frozen=True)
class PairTokens:
    """The pairs of a run, as a plan knows them.

    Attributes:
        prompts: Tokens of each prompt.
        chosen: Tokens of each chosen answer.
        rejected: Tokens of each rejected answer.
        validation: Pairs that are held out.

    Chapter: dpo/alignment.
    """

    prompts: tuple[int, ...]
    chosen: tuple[int, ...]
    rejected: tuple[int, ...]
    validation: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    @cached_property
    def answers(self) -> list[int]:
        """Tokens of both answers of each pair."""
        return [c + r for c, r in zip(self.chosen, self.rejected, strict=True)]

    @cached_property
    def rows(self) -> list[int]:
        """Tokens of each prompt with its longer answer."""
        longer = map(max, self.chosen, self.rejected)
        return [p + a for p, a in zip(self.prompts, longer, strict=True)]

    @cached_property
    def once(self) -> list[int]:
        """Tokens of each pair, its prompt once."""
        return [p + a for p, a in zip(self.prompts, self.answers, strict=True)]

    @cached_property
    def twice(self) -> list[int]:
        """Tokens of each pair as two rows, its prompt in both."""
        return [2 * p + a for p, a in zip(self.prompts, self.answers, strict=True)]

    def batch(self, preset: SFTPreset, start: int, size: int) -> MicroBatch:
        """Say what one micro-batch reads.

        Args:
            preset: Its engine decides.
            start: The first of its pairs.
            size: Pairs in it.

        Returns:
            The batch: of rows with the engines that pad, else of pairs.
        """
        part = slice(start, start + size)
        answers = sum(self.answers[part])
        if not pads(preset):
            pairs = self.once[part]
            return MicroBatch(len(pairs), max(pairs), sum(pairs), answers)
        rows = self.rows[part]
        return MicroBatch(2 * len(rows), max(rows), sum(self.twice[part]), answers)

    def sorted(self, preset: SFTPreset) -> PairTokens:
        """Put the pairs first that need the most.

        Args:
            preset: Its engine decides.

        Returns:
            The same pairs.
        """
        sizes = self.rows if pads(preset) else self.once
        order = sorted(range(len(self)), key=sizes.__getitem__, reverse=True)
        prompts, chosen, rejected = (
            tuple(part[i] for i in order) for part in (self.prompts, self.chosen, self.rejected)
        )
        return PairTokens(prompts, chosen, rejected, self.validation)


def pair_tokens(pairs: Sequence[EncodedPair], validation: int = 0) -> PairTokens:
    """Count the tokens of encoded pairs.

    Args:
        pairs: The pairs, in the order of training.
        validation: Pairs that are held out.

    Returns:
        Their numbers of tokens.

    Raises:
        ValueError: If there is no pair.

    Chapter: dpo/alignment.
    """
    if not pairs:
        raise ValueError("there is nothing to count: give at least one pair")
    return PairTokens(
        tuple(len(pair.prompt_ids) for pair in pairs),
        tuple(len(pair.chosen_ids) for pair in pairs),
        tuple(len(pair.rejected_ids) for pair in pairs),
        validation,
    )


def pair_memory(
    preset: DPOPreset,
    config: GPTConfig,
    batch: MicroBatch,
    *,
    process: int = 0,
) -> RunMemory:
    """Predict what a run takes at its peak.

    As :func:`posttrain.sft.training.engine_costs.run_memory`, with other logits: by hand those
    of all answer tokens at once, with TRL and Unsloth those of every position. TRL's copy of
    the adapter, which is its reference, counts with the adapter.

    Args:
        preset: The run as it would be there.
        config: The model's shape.
        batch: The largest micro-batch.
        process: Bytes that are there before the model.

    Returns:
        The prediction, in bytes.

    Chapter: dpo/alignment.
    """
    start, V = trainer_preset(preset), config.vocab_size
    found = run_memory(start, config, batch, process=process)
    kept = run_memory(recomputing(preset), config, batch)
    if not pads(start):
        logits = BY_HAND_LOGIT_BYTES * V * batch.trained
        return replace(found, logits=logits)
    scaled = start.device == "cuda" and start.dtype == "float16"  # autocast gives float32
    each = TRL_LOGIT_BYTES[4 if scaled else bytes_of(start)]
    return replace(
        found,
        logits=each * V * batch.padded,
        adapter=2 * found.adapter,
        activations=kept.activations,
    )


def pair_operations(preset: DPOPreset, config: GPTConfig, batch: MicroBatch) -> float:
    """Count the floating-point operations of one micro-batch, forward and back.

    As :func:`posttrain.sft.training.engine_costs.run_operations`; the head is read once on the
    way forward and once on the way back, for the answers by hand and for every position by TRL
    and Unsloth.

    Args:
        preset: The run as it would be there.
        config: The model's shape.
        batch: The micro-batch.

    Returns:
        Operations.

    Chapter: dpo/alignment.
    """
    blocks = run_operations(
        recomputing(preset), config, batch.rows, batch.longest, 0, batch.tokens
    )
    positions = batch.padded if pads(preset.start) else batch.trained
    return blocks + 2 * 2 * config.vocab_size * config.hidden_size * positions


def forward_share(preset: DPOPreset) -> float:
    """Say which part of a step's time a forward pass alone takes.

    Args:
        preset: The run as it would be there.

    Returns:
        A half; a third where activations are computed a second time.

    Chapter: dpo/alignment.
    """
    return 1 / 3 if recomputes(recomputing(preset)) else 1 / 2


def recomputing(preset: DPOPreset) -> SFTPreset:
    """Say the run so that Stage 1's formulas see whether activations are computed twice.

    There that goes by the device: TRL and Unsloth do it on every GPU. Here a setting decides,
    so the formulas are asked about the device that does the same.

    Args:
        preset: The run as it would be there.

    Returns:
        Stage 1's preset, for activations, operations and 4-bit weights alone.

    Chapter: dpo/alignment.
    """
    start = trainer_preset(preset)
    if start.engine == "by_hand":
        return start
    dtype = start.dtype
    if dtype == "auto":
        dtype = "float32" if bytes_of(start) == 4 else "bfloat16"
    device = "cuda" if preset.gradient_checkpointing else "cpu"
    return replace(start, device=device, dtype=dtype)  # type: ignore[arg-type]
