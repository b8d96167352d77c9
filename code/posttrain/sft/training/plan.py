"""What a run will need, before it begins: rows, steps, memory by part, minutes, money.

Every number of memory and time is a prediction: by the formulas of the chapters, from shapes.

Chapter: sft/your_model.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.presets import SFTPreset, dtype_of
from posttrain.sft.training.engine_costs import (
    MicroBatch,
    RunMemory,
    largest_micro_batch,
    pads,
    recomputes,
    run_memory,
    run_operations,
    unpacked_weights,
)
from posttrain.sft.training.hardware import (
    HARDWARE,
    PRESET_HARDWARE,
    PRICES_AS_OF,
    Hardware,
    this_machine,
)
from posttrain.sft.training.memory import PUBLISHED_SHAPES
from posttrain.sft.training.model_shapes import adapter_parameters, total_parameters

_PARTS = {
    "weights": "frozen weights",
    "mapped": "their file, in view",
    "adapter": "adapter",
    "gradients": "gradients",
    "optimizer": "optimizer",
    "activations": "activations",
    "logits": "logits",
    "workspace": "workspace",
    "loading": "while loading",
    "process": "the process itself",
}


@dataclass(frozen=True)
class Rows:
    """The conversations of a run, as a plan knows them.

    Attributes:
        lengths: Tokens of each, in the order of training.
        trained: Tokens of each that are trained.
        validation: Conversations that are held out.

    Chapter: sft/your_model.
    """

    lengths: tuple[int, ...]
    trained: tuple[int, ...]
    validation: int = 0

    def within(self, max_length: int) -> Rows:
        """Leave out what is longer.

        Args:
            max_length: Tokens of the longest that stays.

        Returns:
            The others, in their order.
        """
        kept = [
            pair for pair in zip(self.lengths, self.trained, strict=True)
            if pair[0] <= max_length
        ]  # fmt: skip
        lengths, trained = zip(*kept, strict=True) if kept else ((), ())
        return Rows(lengths, trained, self.validation)

    def largest(self, batch_size: int) -> MicroBatch:
        """Put the longest into one batch, as ``largest_micro_batch`` does; sorted once.

        Args:
            batch_size: Conversations in a batch, from 1 up.

        Returns:
            The batch; smaller where there are fewer conversations.
        """
        longest, tokens, trained = self._sums
        rows = min(batch_size, len(tokens))
        return MicroBatch(
            rows, longest, tokens[rows - 1], min(trained[rows - 1], tokens[rows - 1])
        )

    @cached_property
    def _sums(self) -> tuple[int, list[int], list[int]]:
        lengths, trained = (sorted(n, reverse=True) for n in (self.lengths, self.trained))
        return lengths[0], list(accumulate(lengths)), list(accumulate(trained))


@dataclass(frozen=True)
class MachinePlan:
    """A run on one machine.

    Attributes:
        hardware: The machine.
        preset: The run as it would be there: its device, and a type that the machine has.
        memory: Predicted bytes for the largest micro-batch that can occur.
        seconds: Predicted time of training and of the evaluations on the way.
        largest_batch: Conversations of the largest micro-batch that fits; 0 where none does.

    Chapter: sft/your_model.
    """

    hardware: Hardware
    preset: SFTPreset
    memory: RunMemory
    seconds: float
    largest_batch: int

    @property
    def fits(self) -> bool:
        """Whether the machine has what is needed."""
        return self.memory.needed <= self.hardware.usable

    @property
    def dollars(self) -> float | None:
        """Hours times the assumed price; ``None`` where nobody bills."""
        price = self.hardware.price
        return None if price is None else self.seconds / 3600 * price


@dataclass(frozen=True)
class RunPlan:
    """What a run will need.

    Attributes:
        preset: The run.
        config: The model's shape.
        rows: The conversations.
        padded_tokens: Tokens of one pass with padding; without where the engine packs.
        epochs: Passes over the conversations.
        trainable: Parameters that are trained.
        machines: The run on this machine and on the cards of
            :data:`posttrain.sft.training.hardware.HARDWARE`.
        target: The run where it is meant to be: on this machine if that has the device, else on
            the card that the preset is made for.

    Chapter: sft/your_model.
    """

    preset: SFTPreset
    config: GPTConfig
    rows: Rows
    padded_tokens: int
    epochs: float
    trainable: int
    machines: tuple[MachinePlan, ...]
    target: MachinePlan

    def lines(self) -> list[str]:
        """Write the plan for people. What is predicted or assumed is called so.

        Returns:
            Lines of text.
        """
        lengths, preset, training = self.rows.lengths, self.preset, self.preset.training
        tokens, trained = sum(lengths), sum(self.rows.trained)
        more = f"; {self.padded_tokens:,} with padding" if pads(preset) else "; no padding"
        each = preset.batch_size * training.gradient_accumulation_steps
        total = total_parameters(self.config)
        here, *cards = [machine.hardware for machine in self.machines]
        shares = ", ".join(f"{card.utilization:.0%} ({card.name})" for card in cards)
        return [
            f"tokens:     {tokens:,} in {len(lengths):,} rows of {min(lengths):,} to "
            f"{max(lengths):,}, median {statistics.median(lengths):,.0f}{more}",
            f"trained on: {trained:,} of them ({trained / tokens:.0%})",
            f"steps:      {training.max_steps:,} of {each} rows ({preset.batch_size} x "
            f"{training.gradient_accumulation_steps}), {self.epochs:.1f} passes over the rows",
            f"adapter:    {self.trainable:,} of {total:,} parameters "
            f"({self.trainable / total:.2%})",
            *self._table(),
            f"assumed:    training reaches {here.utilization:.0%} of the peak timed here; of "
            "those published,",
            f"            {shares}",
            f"            prices: {PRICES_AS_OF}",
        ]

    def _table(self) -> list[str]:
        """One column for each machine; parts that are nowhere needed are left out."""
        columns = self.machines
        names = [m.hardware.name.partition(",")[0] for m in columns]
        wide = max(12, *map(len, names)) + 1

        def row(name: str, cells: Sequence[str]) -> str:
            return (f"{name:31}" + "".join(f"{cell:>{wide}}" for cell in cells)).rstrip()

        lines = [row("predicted (not measured), GB", names)]
        for part, name in _PARTS.items():
            sizes = [m.memory.parts()[part] for m in columns]
            if any(sizes):
                assumed = " (assumed)" if part == "process" else ""
                lines.append(row(f"  {name}{assumed}", [f"{size / 1e9:.2f}" for size in sizes]))
        verdicts = ["" if m.fits else "does not fit" for m in columns]
        return [
            *lines,
            row("  needed at the peak *", [f"{m.memory.needed / 1e9:.2f}" for m in columns]),
            row("  usable", [f"{m.hardware.usable / 1e9:.2f}" for m in columns]),
            *([row("", verdicts)] if any(verdicts) else []),
            row("  largest micro-batch, rows", [f"{m.largest_batch}" for m in columns]),
            row("  minutes, evaluations too", [_minutes(m) for m in columns]),
            row("  US dollars (price assumed)", [_dollars(m) for m in columns]),
            "  * loading, logits and workspace are never there together: the largest counts;",
            "    pages of the file are taken back where memory is short, and do not count",
        ]


def _minutes(machine: MachinePlan) -> str:
    minutes = machine.seconds / 60
    if not machine.fits:
        return "-"
    return f"{minutes:,.0f}" if minutes >= 10 else f"{minutes:.1f}"


def _dollars(machine: MachinePlan) -> str:
    if not machine.fits or machine.dollars is None:
        return "-"
    return f"{machine.dollars:.2f}"


def plan_run(
    preset: SFTPreset,
    config: GPTConfig,
    lengths: Sequence[int],
    trained: Sequence[int],
    validation_rows: int = 0,
    *,
    here: Hardware | None = None,
) -> RunPlan:
    """Say what a run will need, on this machine and on three cards.

    Args:
        preset: The run.
        config: The model's shape.
        lengths: Tokens of each conversation, in the order of training.
        trained: Tokens of each that are trained.
        validation_rows: Conversations that are held out.
        here: This machine; it is measured where it is left out, which takes a third of a
            second once in a process.

    Returns:
        The plan.

    Raises:
        ValueError: If there is no conversation, or a number makes no sense.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    largest_micro_batch(lengths, trained, preset.batch_size)  # checks the numbers
    rows = Rows(tuple(lengths), tuple(trained), validation_rows)
    if here is None:
        own = _placed(preset, "cpu", bf16=True)
        here = this_machine(preset.device, dtype_of(own))
    machines = [_on(preset, config, rows, each) for each in (here, *HARDWARE.values())]
    target = machines[0]
    if preset.device != here.device:
        made_for = HARDWARE[PRESET_HARDWARE.get(preset.name, "t4")]
        target = next(m for m in machines if m.hardware is made_for)
    training = preset.training
    read = preset.batch_size * training.gradient_accumulation_steps * training.max_steps
    return RunPlan(
        preset=preset,
        config=config,
        rows=rows,
        padded_tokens=sum(n * longest for n, longest, *_ in _batches(preset, rows)),
        epochs=read / len(rows.lengths),
        trainable=adapter_parameters(config, preset.lora),
        machines=tuple(machines),
        target=target,
    )


def _placed(preset: SFTPreset, device: str, *, bf16: bool) -> SFTPreset:
    """The same run on another device, in a type that it has."""
    dtype = preset.dtype
    if device == "cpu" and dtype == "float16":
        dtype = "auto"
    if device == "cuda" and dtype == "bfloat16" and not bf16:
        dtype = "float16"
    return replace(preset, device="cuda" if device == "cuda" else "cpu", dtype=dtype)


def _on(preset: SFTPreset, config: GPTConfig, rows: Rows, hardware: Hardware) -> MachinePlan:
    placed = _placed(preset, hardware.device, bf16=hardware.bf16)
    return MachinePlan(
        hardware=hardware,
        preset=placed,
        memory=_memory(placed, config, rows, hardware, placed.batch_size),
        seconds=predicted_seconds(placed, config, rows, hardware),
        largest_batch=largest_batch(placed, config, rows, hardware),
    )


def _memory(
    preset: SFTPreset, config: GPTConfig, rows: Rows, hardware: Hardware, batch_size: int
) -> RunMemory:
    return run_memory(preset, config, rows.largest(batch_size), process=hardware.process)


def largest_batch(preset: SFTPreset, config: GPTConfig, rows: Rows, hardware: Hardware) -> int:
    """Find the largest micro-batch that fits, whichever rows come together.

    Args:
        preset: The run as it would be there; its batch size is not read.
        config: The model's shape.
        rows: The conversations.
        hardware: The machine.

    Returns:
        Conversations, at most all there are; 0 where not even one fits.

    Chapter: sft/your_model.
    """
    low, high = 0, len(rows.lengths)
    while low < high:
        middle = (low + high + 1) // 2
        if _memory(preset, config, rows, hardware, middle).needed <= hardware.usable:
            low = middle
        else:
            high = middle - 1
    return low


def _batches(preset: SFTPreset, rows: Rows) -> list[tuple[int, int, int, int]]:
    """Rows, longest, trained tokens and tokens of each full micro-batch, in order."""
    size, found = preset.batch_size, []
    for start in range(0, max(len(rows.lengths) - size, 0) + 1, size):
        lengths = rows.lengths[start : start + size]
        trained = sum(rows.trained[start : start + size])
        found.append((len(lengths), max(lengths), trained, sum(lengths)))
    return found


def predicted_seconds(
    preset: SFTPreset, config: GPTConfig, rows: Rows, hardware: Hardware
) -> float:
    """Predict how long training takes, the evaluations on the way included.

    Operations over the share of the peak that training is assumed to reach; and 4-bit weights
    over how many a machine turns into numbers in a second. An evaluation is the forward pass of
    the held-out rows: half of what as many training rows take, a third where activations are
    computed a second time. Loading, and answers before and after, are not counted.

    Args:
        preset: The run as it would be there.
        config: The model's shape.
        rows: The conversations.
        hardware: The machine.

    Returns:
        Seconds.

    Chapter: sft/your_model.
    """
    training = preset.training
    count = training.max_steps * training.gradient_accumulation_steps
    batches = _batches(preset, rows)[:count]
    speed = hardware.peak * hardware.utilization
    operations = sum(run_operations(preset, config, *batch) for batch in batches)
    each = operations / len(batches) / speed
    each += unpacked_weights(preset, config) / hardware.unpacking
    evaluations = 1 + (training.max_steps // training.eval_steps if training.eval_steps else 0)
    held_out = math.ceil(rows.validation / preset.batch_size) * evaluations
    return each * (count + held_out / (3 if recomputes(preset) else 2))


@dataclass(frozen=True)
class Remedy:
    """A change that makes a run fit.

    Attributes:
        text: What to change, in a few words.
        preset: The changed run.
        config: The shape of its model.
        rows: What is left of the conversations.
        needed: Bytes that it needs, predicted.

    Chapter: sft/your_model.
    """

    text: str
    preset: SFTPreset
    config: GPTConfig
    rows: Rows
    needed: int


def remedies(plan: RunPlan) -> list[Remedy]:
    """List changes of which each alone makes a run fit where it is meant to be.

    A smaller micro-batch, shorter rows, activations computed twice, weights in 4 bits, or a
    smaller model. Where none of them lets the model be kept, two or three are put together.

    Args:
        plan: The plan of a run.

    Returns:
        The changes, each computed; none where nothing helps.

    Chapter: sft/your_model.
    """
    hardware = plan.target.hardware
    base = Remedy("", plan.target.preset, plan.config, plan.rows, 0)
    found = _single(base, hardware)
    four = _four_bits(base.preset)
    for preset in (four, replace(four, batch_size=1)):
        if preset != base.preset and not any(r.config == plan.config for r in found):
            text = "--set quantization=nf4 " * (base.preset.quantization is None)
            text += "--set batch_size=1 " * (preset.batch_size < base.preset.batch_size)
            more = _single(replace(base, text=text, preset=preset), hardware)
            found = [*(r for r in more if r.config == plan.config), *found]
    return found


def _four_bits(preset: SFTPreset) -> SFTPreset:
    return replace(preset, quantization="nf4")


def _single(base: Remedy, hardware: Hardware) -> list[Remedy]:
    """Try each kind of change on a run, and keep what fits."""
    preset, config, rows = base.preset, base.config, base.rows
    tried: list[tuple[str, SFTPreset, GPTConfig, Rows]] = []
    batch_size = largest_batch(preset, config, rows, hardware)
    if 0 < batch_size < preset.batch_size:
        smaller = replace(preset, batch_size=batch_size)
        tried.append((f"--set batch_size={batch_size}", smaller, config, rows))
    if length := _longest_that_fits(base, hardware):
        shorter, kept = replace(preset, max_length=length), rows.within(length)
        dropped = len(rows.lengths) - len(kept.lengths)
        rows_text = f"{dropped} longer row{'s' if dropped > 1 else ''}"
        text = f"--set max_length={length} --on-bad-row drop, without {rows_text}"
        tried.append((text, shorter, config, kept))
    if preset.engine == "by_hand" and hardware.device == "cuda":
        other = replace(preset, engine="trl")
        text = "--set engine=trl, which computes activations twice"
        tried.append((text, other, config, rows))
    if preset.quantization is None:
        tried.append(("--set quantization=nf4", _four_bits(preset), config, rows))
    sizes = {name: total_parameters(shape) for name, shape in PUBLISHED_SHAPES.items()}
    smaller_models = [n for n, size in sizes.items() if size < total_parameters(config)]
    for name in sorted(smaller_models, key=sizes.__getitem__, reverse=True):
        memory = _memory(preset, PUBLISHED_SHAPES[name], rows, hardware, preset.batch_size)
        if memory.needed <= hardware.usable:
            shape = PUBLISHED_SHAPES[name]
            tried.append((f"a smaller model, such as {name}", preset, shape, rows))
            break
    found = []
    for text, changed, shape, left in tried:
        needed = _memory(changed, shape, left, hardware, changed.batch_size).needed
        if needed <= hardware.usable:
            found.append(Remedy(base.text + text, changed, shape, left, needed))
    return found


def _longest_that_fits(base: Remedy, hardware: Hardware) -> int:
    """Find the longest row that can stay; 0 where too few rows would be left, or none fits."""
    preset, rows = base.preset, base.rows
    least = preset.batch_size * preset.training.gradient_accumulation_steps
    choices = sorted(set(rows.lengths))[:-1]
    best = 0
    low, high = 0, len(choices)
    while low < high:
        middle = (low + high) // 2
        kept = rows.within(choices[middle])
        memory = _memory(preset, base.config, kept, hardware, preset.batch_size)
        if memory.needed <= hardware.usable:
            best, low = choices[middle], middle + 1
        else:
            high = middle
    return best if best and len(rows.within(best).lengths) >= least else 0


def refuse_what_cannot_fit(plan: RunPlan) -> None:
    """Refuse a run that the machine it is meant for cannot hold.

    Args:
        plan: The plan.

    Raises:
        ValueError: If more is needed than can be had. It says what is needed, what there is,
            and what would fit.

    Chapter: sft/your_model.
    """
    target = plan.target
    if target.fits:
        return
    ways = [f"{r.text} ({r.needed / 1e9:.1f} GB)" for r in remedies(plan)]
    larger = [m.hardware.name for m in plan.machines if m.fits and m is not target]
    if larger:
        ways.append(f"another machine ({', '.join(larger)})")
    fits = f"what fits is {', or '.join(ways)}" if ways else "no setting makes it fit"
    where = "this machine" if target is plan.machines[0] else target.hardware.name
    raise ValueError(
        f"the run needs {target.memory.needed / 1e9:.1f} GB (predicted) and {where} has "
        f"{target.hardware.usable / 1e9:.1f}: {fits}"
    )
