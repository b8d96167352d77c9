"""One run from start to end: rows, plan, training, what it changed, and what comes next.

Chapter: sft/your_model.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from posttrain.core.arguments import names
from posttrain.core.assets import load_tokenizer, model_folder
from posttrain.core.errors import AssetError
from posttrain.core.machine import run_record
from posttrain.core.storage.files import atomic_path, write_json_atomic
from posttrain.core.training.run_log import check_reporters
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.weights import config_from_hf, read_config
from posttrain.sft.adapters.files import CONFIG_NAME, WEIGHTS_NAME
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.recognition import detect_format
from posttrain.sft.chat.template import EncodedChat, Message, special_tokens
from posttrain.sft.data.hub import ChatRow
from posttrain.sft.presets import SFTPreset, dtype_of
from posttrain.sft.runs.before_after import Measured, compare, comparison_lines, measure
from posttrain.sft.runs.folder import RunFolder, model_digest
from posttrain.sft.runs.model_card import write_card
from posttrain.sft.runs.rows import RunRows, load_run_rows
from posttrain.sft.runs.settings import for_rows, with_settings
from posttrain.sft.runs.speaker import is_ours, load_speaker
from posttrain.sft.training.engines import run_engine
from posttrain.sft.training.model_shapes import published_shape
from posttrain.sft.training.packing import by_length
from posttrain.sft.training.plan import RunPlan, plan_run, refuse_what_cannot_fit
from posttrain.sft.training.run import check_device
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching, watch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

STAND_IN = "smollm2-135m-instruct"  # its tokenizer counts where a model is not here
FIXED_PROMPTS = 3  # held-out rows whose answers are shown on the way
LONGEST_SHOWN = 48  # tokens of their answers
SHOWN = 3  # times that they are answered, beside the first


@dataclass(frozen=True)
class RunRequest:
    """What was asked for.

    Attributes:
        preset: Where its settings come from.
        data: A file, or a data set on the hub; the preset's own where it is left out.
        validation: Rows to measure on; a part of ``data`` is held out where it is left out.
        model: Instead of the preset's.
        settings: Changes of the preset, as in ``training.learning_rate=1e-4``.
        steps: Optimizer steps, where the number is to be this.
        seed: Seed of the adapter and of the order.
        on_bad_row: Whether a bad row is an error or dropped and counted.
        report_to: Tools that get the numbers as well.
        prompts: Shown on the way, in place of held-out rows.
    """

    preset: SFTPreset
    data: str | None = None
    validation: str | None = None
    model: str | None = None
    settings: tuple[str, ...] = ()
    steps: int | None = None
    seed: int = 0
    on_bad_row: Literal["error", "drop"] = "error"
    report_to: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a single text where several are meant, and a choice that is none."""
        for name in ("settings", "report_to", "prompts"):
            object.__setattr__(self, name, tuple(names(getattr(self, name), name)))
        if self.on_bad_row not in ("error", "drop"):
            raise ValueError(f"on_bad_row is {self.on_bad_row!r}: give 'error' or 'drop'")


@dataclass(frozen=True)
class PreparedRun:
    """A run that could begin now.

    Attributes:
        request: What was asked for.
        preset: With model, format, batch and schedule as they will be.
        rows: The conversations, and what became of the other rows.
        examples: Encoded conversations to train on.
        held_out: Encoded conversations to measure on.
        asked: The same as messages.
        dropped: Rows that were left out while encoding, by reason.
        plan: What it will need.
        tokenizer: The model's tokenizer.
        stands_in: Whether lengths are those of another tokenizer, for a plan alone.
    """

    request: RunRequest
    preset: SFTPreset
    rows: RunRows
    examples: list[EncodedChat]
    held_out: list[EncodedChat]
    asked: list[list[Message]]
    dropped: Counter[str]
    plan: RunPlan | None
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
        preset = self.preset
        named = self.request.model or self.request.preset.model
        what = f"{preset.model}, chat format {preset.chat_format}"
        if self.stands_in:
            what = f"{named}, which is not here: its published shape, lengths as of {STAND_IN}"
        lines.append(f"model:      {what}, engine {preset.engine}")
        return lines + (self.plan.lines() if self.plan else [])


def prepare_run(request: RunRequest, *, plan_only: bool = False) -> PreparedRun:
    """Read, check, encode and plan, without training anything.

    Args:
        request: What was asked for.
        plan_only: Whether a plan is all that is wanted. A model that cannot be had here is then
            planned with its published shape, and rows are as long as SmolLM2's tokenizer makes
            them.

    Returns:
        The run.

    Raises:
        AssetError: If the model or the rows cannot be had.
        ValueError: If a setting is none, a row is bad and that is an error, or nothing is left
            to train on.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    check_reporters(request.report_to)
    preset = with_settings(request.preset, request.settings)
    if request.model is not None:
        preset = replace(preset, model=request.model)
    preset = replace(preset, training=replace(preset.training, seed=request.seed))
    rows = load_run_rows(
        preset, request.data, request.validation, request.on_bad_row, request.seed
    )
    standing_in = None
    if plan_only:
        preset, standing_in = _stand_in(preset)
    tokenizer = load_tokenizer(preset.model)
    told = preset.chat_format != request.preset.chat_format
    if preset.model != request.preset.model and not told and standing_in is None:
        preset = replace(preset, chat_format=detect_format(tokenizer))
    special_tokens(tokenizer, preset.chat_format)
    examples, _, lost = encode_rows_of(rows.train, tokenizer, preset, request.on_bad_row)
    held_out, asked, more = encode_rows_of(
        rows.validation, tokenizer, preset, request.on_bad_row
    )
    dropped = lost + more
    if request.data is not None:
        preset = with_settings(for_rows(preset, len(examples), request.steps), request.settings)
    elif request.steps is not None:
        warmup = min(preset.training.warmup_steps, request.steps)
        training = replace(preset.training, max_steps=request.steps, warmup_steps=warmup)
        preset = replace(preset, training=training)
    if preset.engine != "by_hand":  # the run by hand packs; the others pad to the longest row
        examples = by_length(examples, preset.batch_size, preset.training.seed)
    plan = None
    shape = config_of(preset.model) if standing_in is None and is_ours(preset.model) else None
    if (shape := shape or standing_in) is not None:
        plan = plan_run(
            preset,
            shape,
            [len(x.input_ids) for x in examples],
            [sum(x.assistant_mask) for x in examples],
            len(held_out),
        )
    return PreparedRun(
        request, preset, rows, examples, held_out, asked, dropped, plan, tokenizer,
        standing_in is not None,
    )  # fmt: skip


def _stand_in(preset: SFTPreset) -> tuple[SFTPreset, GPTConfig | None]:
    """Let SmolLM2's tokenizer count, where the model is not here and its shape is known."""
    try:
        model_folder(preset.model)
    except AssetError:
        shape = published_shape(preset.model)
        if shape is None:
            raise
        return replace(preset, model=STAND_IN, chat_format="smollm2"), shape
    return preset, None


def config_of(model: str) -> GPTConfig:
    """Read a model's shape.

    Args:
        model: As for ``core.assets.model_folder``.

    Returns:
        The shape.

    Chapter: sft/your_model.
    """
    return config_from_hf(read_config(model_folder(model)))


def encode_rows_of(
    rows: Sequence[ChatRow],
    tokenizer: PreTrainedTokenizerBase,
    preset: SFTPreset,
    on_bad_row: Literal["error", "drop"],
) -> tuple[list[EncodedChat], list[list[Message]], Counter[str]]:
    """Encode conversations in a preset's format.

    Args:
        rows: Conversations.
        tokenizer: The model's tokenizer.
        preset: Its format and its longest conversation.
        on_bad_row: What to do with a row that is refused or too long.

    Returns:
        The encoded conversations, the same as messages, and how many were left out, by reason.

    Raises:
        ValueError: If a row is refused or too long, and that is an error.

    Chapter: sft/your_model.
    """
    examples: list[EncodedChat] = []
    kept: list[list[Message]] = []
    dropped: Counter[str] = Counter()
    for index, row in enumerate(rows):
        reason = "refused"
        try:
            encoded = encode_for_training(row["messages"], tokenizer, preset.chat_format)
            if (length := len(encoded.input_ids)) > preset.max_length:
                reason = f"longer than {preset.max_length} tokens"
                raise ValueError(
                    f"it has {length} tokens and max_length is {preset.max_length}: raise it "
                    "with --set max_length=..., or shorten the row; cut, it would lose its end"
                )
        except ValueError as error:
            if on_bad_row == "error":
                raise ValueError(
                    f"conversation {index + 1}: {error} (--on-bad-row drop leaves such rows "
                    "out)"
                ) from None
            dropped[reason] += 1
            continue
        examples.append(encoded)
        kept.append(row["messages"])
    return examples, kept, dropped


@dataclass(frozen=True)
class FinishedRun:
    """What is left of a run.

    Attributes:
        folder: The adapter with its card, log and measurements.
        preset: What was run.
        engine: What the engine reports.
        measured: The comparison before and after, or ``None`` where nothing was held out.
    """

    folder: Path
    preset: SFTPreset
    engine: EngineRun
    measured: dict[str, Any] | None

    def lines(self) -> list[str]:
        """Say what came out, and the next commands.

        Returns:
            Lines of text.
        """
        lines = [] if self.measured is None else comparison_lines(self.measured)
        name = self.folder
        return [
            *lines,
            f"the adapter: {name}",
            "next:",
            f"  posttrain chat --adapter {name}",
            f"  posttrain merge --adapter {name} --out {name}-merged",
            f"  posttrain push {name} YOUR_NAME/YOUR_MODEL --dry-run",
        ]


def execute_run(
    run: PreparedRun,
    out: Path,
    *,
    resume: bool = False,
    say: Callable[[str], None] = print,
) -> FinishedRun:
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

    Chapter: sft/your_model.
    """  # noqa: DOC502
    folder, preset = RunFolder(out), run.preset
    folder.check(resume=resume)
    check_device(preset)
    if run.plan is not None:
        refuse_what_cannot_fit(run.plan)
    folder.begin(identity_of(run), {"data": run.rows.facts(), "base": preset.model})
    before = _measured_before(run, folder, say)
    engine = run_engine(
        preset,
        run.examples,
        folder.work,
        validation=run.held_out,
        watching=_watching(run, out),
    )
    copy_adapter(engine.adapter, out)
    measured = None
    if before is not None:
        after = _measure(run, out)
        measured = compare(before, after)
        write_json_atomic(
            out / "evaluation.json",
            {**measured, "rows_before": asdict(before), "rows_after": asdict(after)},
        )
    write_card(
        out, preset, base=preset.model, data=run.rows.facts(), measured=measured,
        machine=run_record(),
    )  # fmt: skip
    folder.finish()
    return FinishedRun(out, preset, engine, measured)


def identity_of(run: PreparedRun) -> dict[str, Any]:
    """List all that decides the result. Where the model lies does not.

    Args:
        run: The run.

    Returns:
        Plain values.

    Chapter: sft/your_model.
    """
    preset = asdict(run.preset)
    preset["model"] = model_digest(model_folder(run.preset.model))
    return {
        "preset": preset,
        "dtype": str(dtype_of(run.preset)),
        "train": run.rows.train_sha256,
        "validation": run.rows.validation_sha256,
        "examples": [len(run.examples), len(run.held_out)],
    }


def _watching(run: PreparedRun, out: Path) -> Watching:
    prompts: list[list[Message]] = [
        [{"role": "user", "content": text}] for text in run.request.prompts
    ]
    if not prompts:
        prompts = [messages[:-1] for messages in run.asked[:FIXED_PROMPTS]]
    return watch(
        out.resolve(),  # Unsloth's process runs in another folder
        prompts,
        run.tokenizer,
        run.preset.chat_format,
        sample_steps=max(1, run.preset.training.max_steps // SHOWN),
        max_new_tokens=min(longest_answer(run), LONGEST_SHOWN),
        report_to=run.request.report_to,
    )


def longest_answer(run: PreparedRun) -> int:
    """Say how long an answer may become while it is measured.

    Args:
        run: The run.

    Returns:
        Twice the longest answer of its rows, at most 256, in tokens: an answer that goes on for
        longer is wrong whatever it says.

    Chapter: sft/your_model.
    """
    longest = max(sum(x.assistant_mask) for x in (*run.examples, *run.held_out))
    return min(2 * longest, 256)


def _measured_before(
    run: PreparedRun, folder: RunFolder, say: Callable[[str], None]
) -> Measured | None:
    """Measure the base model once; a run that goes on finds it in its folder."""
    if not run.held_out:
        return None
    record = folder.record or {}
    if "before" in record:
        return Measured(**record["before"])
    say(f"measuring the base model on {len(run.held_out)} held-out rows")
    found = _measure(run, None)
    folder.note(before=asdict(found))
    return found


def _measure(run: PreparedRun, adapter: Path | None) -> Measured:
    preset = run.preset
    speaker, tokenizer = load_speaker(
        preset.model,
        adapter,
        dtype=dtype_of(preset),
        quantization=preset.quantization,
        device=preset.device,
    )
    return measure(
        speaker, tokenizer, run.held_out, run.asked, preset.chat_format, longest_answer(run)
    )


def copy_adapter(source: Path, target: Path) -> None:
    """Copy an adapter; no crash leaves an old half beside a new one.

    Args:
        source: Folder of an adapter in PEFT's format.
        target: Folder for the copy; an adapter that lies there is replaced.

    Chapter: sft/your_model.
    """
    (target / CONFIG_NAME).unlink(missing_ok=True)  # without it a folder is no adapter
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
