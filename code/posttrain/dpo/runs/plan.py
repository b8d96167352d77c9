"""What a run on pairs will need, before it begins: tokens, steps, memory by part, minutes.

Every number of memory and time is a prediction: by the formulas of the chapters, from shapes.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.costs import (
    PairTokens,
    forward_share,
    pair_memory,
    pair_operations,
    pair_tokens,
    recomputing,
)
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.presets import dtype_of
from posttrain.sft.training.engine_costs import MicroBatch, RunMemory, pads, unpacked_weights
from posttrain.sft.training.hardware import (
    HARDWARE,
    PRESET_HARDWARE,
    PRICES_AS_OF,
    Hardware,
    this_machine,
)
from posttrain.sft.training.model_shapes import adapter_parameters, total_parameters
from posttrain.sft.training.plan import MachinePlan, Rows, RunPlan


@dataclass(frozen=True)
class PairPlan(RunPlan):
    """What a run on pairs will need; of Stage 1's plan it has the table of machines.

    Attributes:
        run: The run.
        tokens: Tokens of the pairs to train on.

    Chapter: dpo/alignment.
    """

    run: DPOPreset
    tokens: PairTokens

    def lines(self) -> list[str]:
        """Write the plan for people. What is predicted or assumed is called so.

        Returns:
            Lines of text.
        """
        run, training, tokens = self.run, self.run.training, self.tokens
        each = run.batch_size * training.gradient_accumulation_steps
        total = total_parameters(self.config)
        here, *cards = [machine.hardware for machine in self.machines]
        shares = ", ".join(f"{card.utilization:.0%} ({card.name})" for card in cards)
        read = sum(tokens.once)
        again = sum(tokens.twice)
        more = (
            f"each prompt read twice {again:,}, with padding {self.padded_tokens:,}"
            if pads(run.start)
            else f"each prompt read once, not twice ({again:,}), and no padding"
        )
        reference = "one forward pass over all pairs before the first step"
        if not run.loss.needs.reference:
            reference = f"none: {run.loss.needs.name} needs no reference"
        table = [
            line.replace("largest micro-batch, rows ", "largest micro-batch, pairs")
            for line in self._table()
        ]
        return [
            f"tokens:     {read:,} in {len(tokens):,} pairs; {more}",
            f"lengths:    prompts {_range(tokens.prompts)}, chosen {_range(tokens.chosen)}, "
            f"rejected {_range(tokens.rejected)}",
            f"reference:  {reference}; no second copy of the weights",
            f"loss:       {run.loss.needs.name}, beta {run.loss.beta:g}",
            f"steps:      {training.max_steps:,} of {each} pairs ({run.batch_size} x "
            f"{training.gradient_accumulation_steps}), {self.epochs:.1f} passes over the pairs",
            f"adapter:    {self.trainable:,} of {total:,} parameters "
            f"({self.trainable / total:.2%})",
            *table,
            f"assumed:    training reaches {here.utilization:.0%} of the peak timed here; of "
            "those published,",
            f"            {shares}",
            f"            prices: {PRICES_AS_OF}",
        ]


def _range(numbers: Sequence[int]) -> str:
    return f"{min(numbers):,} to {max(numbers):,} (median {statistics.median(numbers):,.0f})"


def plan_pairs(
    preset: DPOPreset,
    config: GPTConfig,
    pairs: Sequence[EncodedPair],
    validation: int = 0,
    *,
    here: Hardware | None = None,
) -> PairPlan:
    """Say what a run will need, on this machine and on three cards.

    Args:
        preset: The run.
        config: The model's shape.
        pairs: Encoded pairs, in the order of training.
        validation: Pairs that are held out.
        here: This machine; it is measured where it is left out.

    Returns:
        The plan.

    Raises:
        ValueError: If there is no pair.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    tokens = pair_tokens(pairs, validation)
    start = trainer_preset(preset)
    if here is None:
        here = this_machine(start.device, dtype_of(trainer_preset(_placed(preset, "cpu"))))
    machines = [_on(preset, config, tokens, each) for each in (here, *HARDWARE.values())]
    target = machines[0]
    if start.device != here.device:
        made_for = HARDWARE[PRESET_HARDWARE.get(preset.name, "t4")]
        target = next(m for m in machines if m.hardware is made_for)
    training = preset.training
    read = preset.batch_size * training.gradient_accumulation_steps * training.max_steps
    batches = _batches(preset, tokens)
    return PairPlan(
        preset=start,
        config=config,
        rows=Rows(tuple(tokens.once), tuple(tokens.answers), validation),
        padded_tokens=sum(batch.padded for batch in batches),
        epochs=read / len(tokens),
        trainable=adapter_parameters(config, start.lora),
        machines=tuple(machines),
        target=target,
        run=preset,
        tokens=tokens,
    )


def _placed(preset: DPOPreset, device: str, *, bf16: bool = True) -> DPOPreset:
    """The same run on another device, in a type that it has."""
    start = preset.start
    dtype: Any = start.dtype
    if device == "cpu" and dtype == "float16":
        dtype = "auto"
    if device == "cuda" and dtype == "bfloat16" and not bf16:
        dtype = "float16"
    device = "cuda" if device == "cuda" else "cpu"
    placed = replace(start, device=device, dtype=dtype)  # type: ignore[arg-type]
    return replace(preset, start=placed)


def _on(
    preset: DPOPreset, config: GPTConfig, tokens: PairTokens, hardware: Hardware
) -> MachinePlan:
    placed = _placed(preset, hardware.device, bf16=hardware.bf16)
    return MachinePlan(
        hardware=hardware,
        preset=trainer_preset(placed),
        memory=_memory(placed, config, tokens, hardware, placed.batch_size),
        seconds=predicted_pair_seconds(placed, config, tokens, hardware),
        largest_batch=_largest_batch(placed, config, tokens, hardware),
    )


def _memory(
    preset: DPOPreset, config: GPTConfig, tokens: PairTokens, hardware: Hardware, size: int
) -> RunMemory:
    largest = tokens.sorted(preset.start).batch(preset.start, 0, size)
    return pair_memory(preset, config, largest, process=hardware.process)


def _largest_batch(
    preset: DPOPreset, config: GPTConfig, tokens: PairTokens, hardware: Hardware
) -> int:
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high + 1) // 2
        if _memory(preset, config, tokens, hardware, middle).needed <= hardware.usable:
            low = middle
        else:
            high = middle - 1
    return low


def _batches(preset: DPOPreset, tokens: PairTokens) -> list[MicroBatch]:
    size = preset.batch_size
    starts = range(0, max(len(tokens) - size, 0) + 1, size)
    return [tokens.batch(preset.start, start, size) for start in starts]


def predicted_pair_seconds(
    preset: DPOPreset, config: GPTConfig, tokens: PairTokens, hardware: Hardware
) -> float:
    """Predict how long a run takes: the reference, the steps, the evaluations on the way.

    The reference is a forward pass over all pairs, once. Loading, and answers before and after,
    are not counted.

    Args:
        preset: The run as it would be there.
        config: The model's shape.
        tokens: The pairs.
        hardware: The machine.

    Returns:
        Seconds.

    Chapter: dpo/alignment.
    """
    training = preset.training
    batches = _batches(preset, tokens)
    speed = hardware.peak * hardware.utilization
    operations = sum(pair_operations(preset, config, batch) for batch in batches)
    each = operations / len(batches) / speed
    each += unpacked_weights(recomputing(preset), config) / hardware.unpacking
    steps = training.max_steps * training.gradient_accumulation_steps
    evaluations = 1 + (training.max_steps // training.eval_steps if training.eval_steps else 1)
    forward = tokens.validation * evaluations
    if preset.loss.needs.reference:
        forward += len(tokens) + tokens.validation
    return each * (steps + forward_share(preset) * forward / preset.batch_size)


def refuse_pairs_that_cannot_fit(plan: PairPlan) -> None:
    """Refuse a run that the machine it is meant for cannot hold.

    Args:
        plan: The plan.

    Raises:
        ValueError: If more is needed than can be had. It says what is needed, what there is,
            and what would fit.

    Chapter: dpo/alignment.
    """
    target = plan.target
    if target.fits:
        return
    hardware = target.hardware
    placed = _placed(plan.run, hardware.device, bf16=hardware.bf16)
    tried = {
        f"--set batch_size={target.largest_batch}": replace(
            placed, batch_size=max(1, target.largest_batch)
        ),
        "--set gradient_checkpointing=true": replace(placed, gradient_checkpointing=True),
        "--set quantization=nf4": replace(
            placed, start=replace(placed.start, quantization="nf4")
        ),
    }
    if placed.start.engine == "by_hand":
        del tried["--set gradient_checkpointing=true"]
    ways = []
    for text, changed in tried.items():
        size = min(changed.batch_size, len(plan.tokens))
        memory = _memory(changed, plan.config, plan.tokens, hardware, size)
        if changed != placed and memory.needed <= hardware.usable:
            ways.append(f"{text} ({memory.needed / 1e9:.1f} GB)")
    larger = [m.hardware.name for m in plan.machines if m.fits and m is not target]
    if larger:
        ways.append(f"another machine ({', '.join(larger)})")
    fits = f"what fits is {', or '.join(ways)}" if ways else "no setting makes it fit"
    where = "this machine" if target is plan.machines[0] else hardware.name
    raise ValueError(
        f"the run needs {target.memory.needed / 1e9:.1f} GB (predicted) and {where} has "
        f"{hardware.usable / 1e9:.1f}: {fits}"
    )
