"""The chapter's experiments around the run: answers, sweeps, overfitting, engines, forgetting.

Each is made once and then found in the store.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from posttrain.core.artifacts import get_or_build
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.data.dataset import Row, build_dataset, dataset_hash, few_shot_prompt
from posttrain.sft.data.forgetting import general_chats, play_windows
from posttrain.sft.presets import CPU, SFTPreset, dtype_of
from posttrain.sft.training.evaluation import (
    conversation_losses,
    encode_rows,
    right_answers,
    tokenizer_of,
    write_answers,
)
from posttrain.sft.training.run import SFTRun, base_model, train_adapter, tuned_model

_UPPER_BLOCKS = tuple(range(26, 30))  # the last four of SmolLM2's 30 blocks

SWEEP = replace(
    CPU,
    name="sweep",
    lora=replace(CPU.lora, layers_to_transform=_UPPER_BLOCKS),  # a fifth of the work
    batch_size=8,
    training=replace(
        CPU.training,
        max_steps=12,  # 96 rows: the order of the settings shows by then
        warmup_steps=0,  # a rate is to be what it says from the first step on
        eval_steps=0,  # at the start and the end only
        save_steps=0,  # a run this short is started again, not resumed
    ),
)

OVERFIT = replace(
    CPU,
    name="overfit",
    lora=replace(
        CPU.lora,
        r=32,  # room to memorize
        lora_alpha=64,  # the same scaling
        layers_to_transform=_UPPER_BLOCKS,  # as the sweep
    ),
    training=replace(
        CPU.training,
        max_steps=72,  # six passes over 200 examples
        warmup_steps=0,  # so that each pass trains at the same rate
        lr_scheduler_type="constant",  # so that only the number of passes changes
        eval_steps=24,  # after every second pass
        save_steps=24,  # likewise
    ),
)

ENGINES = replace(
    CPU,
    name="engines",
    dtype="float32",  # so that the first two can be compared to the last digits
    batch_size=2,  # small: three engines share the time
    training=replace(
        CPU.training,
        max_steps=6,  # enough to see the loss fall
        warmup_steps=0,  # transformers' schedule is one step behind ours in a warm-up
        eval_steps=0,  # none of the engines evaluates
        save_steps=0,  # nor resumes
    ),
)


@dataclass(frozen=True)
class Answers:
    """What a model answered on a split.

    Attributes:
        rows: The questions.
        texts: The answers, without the stop token.
    """

    rows: list[Row]
    texts: list[str]

    def right(self, *, strict: bool) -> list[bool]:
        """See :func:`posttrain.sft.training.evaluation.right_answers`.

        Args:
            strict: Whether an answer outside the format counts as wrong.

        Returns:
            Whether each answer is right.
        """
        return right_answers(self.rows, self.texts, strict=strict)


def answers_of(
    run: SFTRun | None, *, prompt: Literal["plain", "few-shot"] = "plain", shots: int = 3
) -> Answers:
    """Let a model answer the test split, greedily.

    Args:
        run: Its best adapter answers; ``None`` is the base model of the ``cpu`` preset.
        prompt: ``plain`` asks the question alone; ``few-shot`` puts the format and worked
            examples of the same kind before it.
        shots: Number of worked examples.

    Returns:
        The answers.

    Chapter: sft/fine_tuning.
    """
    data, preset = build_dataset(), CPU if run is None else run.preset
    rows = data["test"]

    def build(out: Path, scratch: Path) -> None:
        from posttrain.pretraining.sampling.decoding import PackedGPT
        from posttrain.sft.training.evaluation import plain_model

        model = base_model(CPU) if run is None else tuned_model(run)
        packed, tokenizer = PackedGPT(plain_model(model)), tokenizer_of(preset.model)
        texts = [""] * len(rows)
        for kind in sorted({row["kind"] for row in rows}) if prompt == "few-shot" else [None]:
            chosen = [i for i, row in enumerate(rows) if kind in (None, row["kind"])]
            if kind is None:
                asked = [rows[i]["messages"][:-1] for i in chosen]
            else:
                asked = [few_shot_prompt(rows[i], data["train"], k=shots) for i in chosen]
            shared = 1 if kind is None else 1 + 2 * shots  # the system message, or all shots
            written = write_answers(
                packed, tokenizer, asked, shared=shared, chat_format=preset.chat_format
            )
            for i, text in zip(chosen, written, strict=True):
                texts[i] = text
        write_json_atomic(out / "texts.json", texts)

    artifact = get_or_build(
        "sft-answers",
        build,
        config={
            "run": run.artifact.folder.name if run else None,
            "prompt": prompt,
            "shots": shots,
            "dtype": str(dtype_of(preset)),
        },
        data=dataset_hash([*rows, *(data["train"] if prompt == "few-shot" else [])]),
        modules=[__name__],
    )
    return Answers(rows, json.loads((artifact.folder / "texts.json").read_text("utf-8")))


def losses_elsewhere(run: SFTRun | None, count: int = 12) -> dict[str, list[float]]:
    """Measure a model on text and conversations that it was not tuned on.

    Args:
        run: Its best adapter is measured; ``None`` is the base model of the ``cpu`` preset.
        count: Windows of plays, and conversations.

    Returns:
        Mean loss of each, in nats per token: ``plays`` and ``chats``.

    Raises:
        ValueError: If the run's model writes another chat format than these conversations.

    Chapter: sft/fine_tuning.
    """
    preset = CPU if run is None else run.preset
    if preset.chat_format != CPU.chat_format:
        raise ValueError(
            f"chat_format is {preset.chat_format!r} and the conversations to measure on are "
            f"written as {CPU.chat_format!r}: give a run with that format"
        )

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        tokenizer = tokenizer_of(preset.model)
        model = base_model(CPU) if run is None else tuned_model(run)
        parts = {
            "plays": play_windows(tokenizer, count),
            "chats": general_chats(tokenizer, count),
        }
        result: dict[str, Any] = {}
        for name, examples in parts.items():
            sums, counts = conversation_losses(model, examples)
            result[name] = (sums / counts).tolist()
        return result

    artifact = get_or_build(
        "sft-elsewhere",
        build,
        config={
            "run": run.artifact.folder.name if run else None,
            "count": count,
            "dtype": str(dtype_of(preset)),
        },
        modules=[__name__],
    )
    return artifact.metrics


@dataclass(frozen=True)
class EngineCurve:
    """What one engine reports of the common run.

    Attributes:
        losses: Mean loss of each step's batch, in nats.
        seconds: Time in training alone.
        tokens: Tokens that were read, padding not counted.
    """

    losses: list[float]
    seconds: float
    tokens: int


def compare_engines(preset: SFTPreset = ENGINES) -> dict[str, EngineCurve]:
    """Run the same steps by hand, with TRL and PEFT, and with Unsloth in 4 bits.

    All three start from the same adapter and read the same rows in the same order.

    Args:
        preset: The run; the base seed is added to its own.

    Returns:
        A curve for each of ``by_hand``, ``trl`` and ``unsloth``.

    Chapter: sft/fine_tuning.
    """
    seed = preset.training.seed + base_seed()
    preset = replace(preset, training=replace(preset.training, seed=seed))
    steps = preset.training.max_steps * preset.training.gradient_accumulation_steps
    rows = build_dataset()["train"][: steps * preset.batch_size]

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        from posttrain.sft.training.trl_engine import run_trl
        from posttrain.sft.training.unsloth_engine import run_unsloth

        tokenizer = tokenizer_of(preset.model)
        examples = encode_rows(rows, tokenizer, preset.max_length, preset.chat_format)
        start = initial_adapter(preset, scratch / "start")
        _, history, _ = train_adapter(
            preset, rows, rows[:1], scratch / "mine", seed=seed, keep_order=True
        )
        tokens = sum(len(example.input_ids) for example in examples)
        curves = {"by_hand": EngineCurve(history.loss, history.seconds, tokens)}
        trl = run_trl(preset, examples, scratch / "trl", adapter=start)
        curves["trl"] = EngineCurve(trl.losses, trl.seconds, tokens)
        four_bit = replace(preset, quantization="nf4")
        unsloth = run_unsloth(four_bit, examples, scratch / "unsloth", adapter=start)
        curves["unsloth"] = EngineCurve(unsloth.losses, unsloth.seconds, tokens)
        return {name: asdict(curve) for name, curve in curves.items()}

    artifact = get_or_build(
        "sft-engines",
        build,
        config={"preset": asdict(preset)},
        data=dataset_hash(rows),
        modules=[
            __name__,
            "posttrain.sft.training.trl_engine",
            "posttrain.sft.training.unsloth_worker",
        ],
    )
    return {name: EngineCurve(**curve) for name, curve in artifact.metrics.items()}


def initial_adapter(preset: SFTPreset, folder: Path) -> Path:
    """Write the adapter that a run by hand starts from, for another engine to start from.

    Args:
        preset: The run; its seed decides.
        folder: Where the adapter goes.

    Returns:
        The folder.

    Chapter: sft/fine_tuning.
    """
    from posttrain.sft.adapters.files import save_adapter

    model = base_model(preset)
    inject_lora(model, preset.lora, preset.training.seed)
    save_adapter(model, preset.lora, folder, base_model_name=preset.model)
    return folder
