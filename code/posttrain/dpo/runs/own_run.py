"""One run on pairs from start to end: pairs, plan, training, what it changed, what comes next.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posttrain.core.arguments import names, whole_number
from posttrain.core.assets import load_tokenizer, model_folder
from posttrain.core.errors import AssetError
from posttrain.core.machine import run_record
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.run_log import check_reporters
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.before_after import (
    ANSWERS_NAME,
    MeasuredPairs,
    compare_pairs,
    held_out_prompts,
    measure_speaker,
    pair_comparison_lines,
    write_answers,
)
from posttrain.dpo.runs.checks import check_pair_engine, check_run_pairs
from posttrain.dpo.runs.engines import run_pair_engine
from posttrain.dpo.runs.plan import PairPlan, plan_pairs, refuse_pairs_that_cannot_fit
from posttrain.dpo.runs.rows import (
    RunPairs,
    by_pair_length,
    encode_run_pairs,
    load_run_pairs,
)
from posttrain.dpo.runs.settings import (
    for_pairs,
    settings_named,
    trainer_preset,
    with_pair_settings,
)
from posttrain.dpo.runs.start import adapter_digest, check_adapter_fits, from_adapter
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.chat.messages import Message
from posttrain.sft.chat.recognition import detect_format
from posttrain.sft.chat.template import special_tokens
from posttrain.sft.presets import dtype_of
from posttrain.sft.runs.folder import RunFolder, model_digest
from posttrain.sft.runs.model_card import write_card
from posttrain.sft.runs.own_run import STAND_IN, config_of, copy_adapter
from posttrain.sft.runs.speaker import is_ours, load_speaker
from posttrain.sft.training.model_shapes import published_shape
from posttrain.sft.training.run import check_device
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching, watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FIXED_PROMPTS = 3  # held-out prompts whose answers are shown on the way
LONGEST_SHOWN = 48  # tokens of their answers


@dataclass(frozen=True)
class PairsRequest:
    """What was asked for.

    Attributes:
        preset: Where its settings come from.
        data: A file of pairs, or a data set on the hub.
        validation: Pairs to measure on; a part of ``data`` is held out where it is left out.
        model: Instead of the adapter's, or the preset's.
        adapter: The fine-tuned adapter to start from; its frozen copy is the reference.
        settings: Changes of the preset, as in ``training.learning_rate=1e-5``.
        steps: Optimizer steps, where the number is to be this.
        seed: Seed of a new adapter and of the order.
        on_bad_row: Whether a bad row is an error or dropped and counted.
        report_to: Tools that get the numbers as well.
        prompts: Shown on the way, in place of held-out prompts.
        print_every: Steps between the answers that are shown.
    """

    preset: DPOPreset
    data: str
    validation: str | None = None
    model: str | None = None
    adapter: Path | None = None
    settings: tuple[str, ...] = ()
    steps: int | None = None
    seed: int = 0
    on_bad_row: Literal["error", "drop"] = "error"
    report_to: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    print_every: int = 20

    def __post_init__(self) -> None:
        """Refuse a single text where several are meant, and a choice that is none."""
        for name in ("settings", "report_to", "prompts"):
            object.__setattr__(self, name, tuple(names(getattr(self, name), name)))
        if self.on_bad_row not in ("error", "drop"):
            raise ValueError(f"on_bad_row is {self.on_bad_row!r}: give 'error' or 'drop'")
        whole_number(self.print_every, "print_every", 1)


@dataclass(frozen=True)
class PreparedPairs:
    """A run that could begin now.

    Attributes:
        request: What was asked for.
        preset: With model, format, batch and schedule as they will be.
        rows: The pairs, and what became of the other rows.
        pairs: Encoded pairs to train on.
        held_out: Encoded pairs to measure on.
        asked: The same as messages.
        dropped: Pairs that were left out while encoding, by reason.
        plan: What it will need.
        tokenizer: The model's tokenizer.
        stands_in: Whether lengths are those of another tokenizer, for a plan alone.
    """

    request: PairsRequest
    preset: DPOPreset
    rows: RunPairs
    pairs: list[EncodedPair]
    held_out: list[EncodedPair]
    asked: list[PairRow]
    dropped: Counter[str]
    plan: PairPlan | None
    tokenizer: PreTrainedTokenizerBase
    stands_in: bool = False

    def lines(self) -> list[str]:
        """Say what will be done.

        Returns:
            Lines of text.
        """
        lines = [*self.rows.lines()]
        if self.dropped:
            reasons = ", ".join(f"{n} {reason}" for reason, n in self.dropped.items())
            lines.append(f"left out:   {reasons}")
        start = self.preset.start
        what = f"{start.model}, chat format {start.chat_format}"
        if self.stands_in:
            named = self.request.model or self.request.preset.start.model
            what = f"{named}, which is not here: its published shape, lengths as of {STAND_IN}"
        lines.append(f"model:      {what}, engine {start.engine}")
        if self.request.adapter is not None:
            lines.append(f"start:      {self.request.adapter}; frozen, it is the reference")
        else:
            lines.append("start:      a new adapter; the reference is the model itself")
        return lines + (self.plan.lines() if self.plan else [])


def prepare_pairs(request: PairsRequest, *, plan_only: bool = False) -> PreparedPairs:
    """Read, check, encode and plan, without training anything.

    Args:
        request: What was asked for.
        plan_only: Whether a plan is all that is wanted. A model that cannot be had here is then
            planned with its published shape, and pairs are as long as SmolLM2's tokenizer makes
            them.

    Returns:
        The run.

    Raises:
        AssetError: If the model, the adapter or the pairs cannot be had.
        ValueError: If a setting is none, a row is bad and that is an error, the adapter belongs
            to another model, or nothing is left to train on.

    Chapter: dpo/alignment.
    """  # noqa: DOC502, DOC503
    check_reporters(request.report_to)
    preset = with_pair_settings(request.preset, request.settings)
    named = settings_named(request.settings)
    if request.model is not None:
        preset = replace(preset, start=replace(preset.start, model=request.model))
    if request.adapter is not None:
        preset = from_adapter(preset, request.adapter, request.model, named)
    preset = replace(preset, training=replace(preset.training, seed=request.seed))
    check_pair_engine(preset)
    rows = load_run_pairs(request.data, request.validation, request.on_bad_row, request.seed)
    standing_in = None
    if plan_only:
        preset, standing_in = _stand_in(preset)
    start = preset.start
    tokenizer = load_tokenizer(start.model)
    told = start.chat_format != request.preset.start.chat_format
    if start.model != request.preset.start.model and not told and standing_in is None:
        start = replace(start, chat_format=detect_format(tokenizer))
        preset = replace(preset, start=start)
    special_tokens(tokenizer, start.chat_format)
    shape = standing_in
    if standing_in is None:
        shape = config_of(start.model) if is_ours(start.model) else None
        if shape is None and start.engine == "by_hand":
            config_of(start.model)  # says what our GPT does not have
        if request.adapter is not None:
            check_adapter_fits(request.adapter, start.model, shape)
    limits = (tokenizer, start.chat_format, preset.max_length, request.on_bad_row)
    pairs, _, lost = encode_run_pairs(rows.train, *limits)
    held_out, asked, more = encode_run_pairs(rows.validation, *limits)
    again = [
        text
        for text, name in zip(request.settings, named, strict=True)
        if name == "batch_size" or name.startswith("training.")
    ]  # what was set wins over what follows from the number of pairs
    preset = with_pair_settings(for_pairs(preset, len(pairs), request.steps), again)
    check_run_pairs(pairs, held_out, preset)
    if start.engine != "by_hand":  # the run by hand packs; the others pad to the longest row
        pairs = by_pair_length(pairs, preset.batch_size, preset.training.seed)
    plan = None if shape is None else plan_pairs(preset, shape, pairs, len(held_out))
    return PreparedPairs(
        request, preset, rows, pairs, held_out, asked, lost + more, plan, tokenizer,
        standing_in is not None,
    )  # fmt: skip


def _stand_in(preset: DPOPreset) -> tuple[DPOPreset, GPTConfig | None]:
    """Let SmolLM2's tokenizer count, where the model is not here and its shape is known."""
    try:
        model_folder(preset.start.model)
    except AssetError:
        shape = published_shape(preset.start.model)
        if shape is None:
            raise
        start = replace(preset.start, model=STAND_IN, chat_format="smollm2")
        return replace(preset, start=start), shape
    return preset, None


@dataclass(frozen=True)
class FinishedPairs:
    """What is left of a run.

    Attributes:
        folder: The adapter with its card, log, answers and measurements.
        preset: What was run.
        engine: What the engine reports.
        measured: The comparison before and after.
    """

    folder: Path
    preset: DPOPreset
    engine: EngineRun
    measured: dict[str, Any]

    def lines(self) -> list[str]:
        """Say what came out, and the next commands.

        Returns:
            Lines of text.
        """
        name = self.folder
        return [
            *pair_comparison_lines(self.measured),
            f"answers of both models, for you or a judge: {name / ANSWERS_NAME}",
            f"the adapter: {name}",
            "next:",
            f"  posttrain chat --adapter {name}",
            f"  posttrain merge --adapter {name} --out {name}-merged",
            f"  posttrain push {name} YOUR_NAME/YOUR_MODEL --dry-run",
        ]


def execute_pairs(
    run: PreparedPairs,
    out: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> FinishedPairs:
    """Train what was prepared.

    Args:
        run: The run.
        out: Folder for it; new, empty, or with the run that is to go on.
        resume: Go on with the run that the folder holds.
        say: Takes each line for people.

    Returns:
        What is left of it.

    Raises:
        AssetError: If the folder cannot hold this run.
        ValueError: If this machine cannot run it.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    folder, preset, start = RunFolder(out), run.preset, trainer_preset(run.preset)
    folder.check(resume=resume)
    check_device(start)
    if run.plan is not None:
        refuse_pairs_that_cannot_fit(run.plan)
    facts = {"data": run.rows.facts(), "base": start.model}
    folder.begin(identity_of_pairs(run), facts)
    prompts = held_out_prompts(run.asked)
    record = folder.record or {}
    if "before" in record:
        before = MeasuredPairs(**record["before"])
    else:
        say(f"measuring the start on {len(run.held_out)} held-out pairs")
        before = _measure(run, run.request.adapter, prompts)
        folder.note(before=asdict(before))
    engine = run_pair_engine(
        preset,
        run.pairs,
        folder.work,
        adapter=run.request.adapter,
        validation=run.held_out,
        watching=_watching(run, out),
    )
    copy_adapter(engine.adapter, out)
    after = _measure(run, out, prompts)
    lengths = [(len(pair.chosen_ids), len(pair.rejected_ids)) for pair in run.held_out]
    measured = compare_pairs(before, after, lengths, preset.loss)
    write_answers(out, prompts, before, after)
    write_json_atomic(
        out / "evaluation.json",
        {**measured, "pairs_before": asdict(before), "pairs_after": asdict(after)},
    )
    _write_card(run, out, measured)
    folder.finish()
    return FinishedPairs(out, preset, engine, measured)


def _write_card(run: PreparedPairs, out: Path, measured: dict[str, Any]) -> None:
    loss, adapter = run.preset.loss, run.request.adapter
    reference = f"{adapter}, frozen" if adapter else "the base model"
    if not loss.needs.reference:
        reference = "none"
    write_card(
        out,
        trainer_preset(run.preset),
        base=run.preset.start.model,
        data=run.rows.facts(),
        measured=None,
        machine=run_record(),
        stage="dpo",
        unit="pairs",
        more={
            "loss": f"{loss.needs.name} ({loss.needs.source}), beta = {loss.beta:g}",
            "started from": str(adapter) if adapter else "a new adapter",
            "reference": reference,
        },
        said=[
            *pair_comparison_lines(measured),
            "Intervals cover the pairs (95 %), not the seed: one run. The reward is the "
            "implicit one, against the model that the run started from.",
        ],
    )


def identity_of_pairs(run: PreparedPairs) -> dict[str, Any]:
    """List all that decides the result. Where model and adapter lie does not.

    Args:
        run: The run.

    Returns:
        Plain values.

    Chapter: dpo/alignment.
    """
    preset, adapter = asdict(run.preset), run.request.adapter
    preset["start"] = {
        name: value
        for name, value in preset["start"].items()
        if name not in ("name", "training", "batch_size", "max_length", "dataset")
    }
    preset["start"]["model"] = model_digest(model_folder(run.preset.start.model))
    return {
        "preset": preset,
        "dtype": str(dtype_of(run.preset.start)),
        "adapter": None if adapter is None else adapter_digest(adapter),
        "train": run.rows.train.sha256,
        "validation": run.rows.validation.sha256,
        "pairs": [len(run.pairs), len(run.held_out)],
    }


def _watching(run: PreparedPairs, out: Path) -> Watching:
    prompts: list[list[Message]] = [
        [{"role": "user", "content": text}] for text in run.request.prompts
    ]
    if not prompts:
        prompts = held_out_prompts(run.asked)[:FIXED_PROMPTS]
    return watch(
        out.resolve(),  # Unsloth's process runs in another folder
        prompts,
        run.tokenizer,
        run.preset.start.chat_format,
        sample_steps=run.request.print_every,
        max_new_tokens=min(_longest_answer(run), LONGEST_SHOWN),
        report_to=run.request.report_to,
    )


def _longest_answer(run: PreparedPairs) -> int:
    """Twice the longest answer of the pairs, at most 256, in tokens."""
    longest = max(
        max(len(pair.chosen_ids), len(pair.rejected_ids))
        for pair in (*run.pairs, *run.held_out)
    )
    return min(2 * longest, 256)


def _measure(
    run: PreparedPairs, adapter: Path | None, prompts: list[list[Message]]
) -> MeasuredPairs:
    start = run.preset.start
    speaker, tokenizer = load_speaker(
        start.model,
        adapter,
        dtype=dtype_of(start),
        quantization=start.quantization,
        device=start.device,
    )
    return measure_speaker(
        speaker, tokenizer, run.held_out, prompts, start.chat_format, _longest_answer(run)
    )
