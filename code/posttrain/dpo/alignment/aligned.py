"""The stage's run on the CPU: from the start and the pairs to an aligned adapter, once.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from posttrain.core.artifacts import get_or_build
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.checkpoints import History
from posttrain.dpo.alignment.pair_sets import PairSet, persona_pairs
from posttrain.dpo.alignment.sampling import sample_answers
from posttrain.dpo.alignment.start import everyday_start, model_with
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.data.tokenizing import EncodedPair, encode_pairs
from posttrain.dpo.presets import CPU, DPOPreset
from posttrain.dpo.training.dpo_run import PairMetrics, train_pairs
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.presets import dtype_of
from posttrain.sft.training.evaluation import tokenizer_of

WATCHED = (
    "Why do stars twinkle?",
    "What goes well with rice?",
    "Help, my bike squeaks! What now?",
)
"""Questions that are answered at each evaluation."""

_SAMPLES = "samples.json"


@dataclass(frozen=True)
class DPORun:
    """A finished run.

    Attributes:
        preset: What was run.
        seed: Seed of the start, the pairs and their order.
        history: Loss and gradient norm of every step; evaluations with the fields of
            :class:`posttrain.dpo.training.dpo_run.PairMetrics` on the validation pairs.
        diverged: What the guard said where it stopped the run, else ``None``.
        folder: Holds the adapters ``best`` and ``last`` in PEFT's format.
    """

    preset: DPOPreset
    seed: int
    history: History
    diverged: str | None
    folder: Path

    @property
    def samples(self) -> list[dict[str, Any]]:
        """What was written at each evaluation: ``step``, and ``texts`` for `WATCHED`."""
        rows: list[dict[str, Any]] = _read(self.folder / _SAMPLES)
        return rows

    @property
    def adapter(self) -> Path:
        """The adapter of the evaluation with the lowest loss."""
        return self.folder / "best"

    @property
    def end(self) -> dict[str, Any]:
        """The last evaluation."""
        return self.history.evaluations[-1]


def encoded(pairs: Sequence[PairRow], preset: DPOPreset = CPU) -> list[EncodedPair]:
    """Turn pairs into tokens as a preset's model reads them.

    Args:
        pairs: The pairs.
        preset: Names the model, how it writes a conversation, and the longest allowed.

    Returns:
        The encoded pairs; those longer than the preset allows are left out.

    Raises:
        ValueError: If a pair cannot be encoded.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    start = preset.start
    return encode_pairs(
        pairs, tokenizer_of(start.model), start.chat_format, max_length=preset.max_length
    ).pairs


def aligned(
    preset: DPOPreset = CPU, seed: int | None = None, pairs: PairSet | None = None
) -> DPORun:
    """Load a run from the store, or train it.

    Args:
        preset: A preset of the engine ``by_hand`` on the CPU.
        seed: Seed of the start, the pairs and their order; the base seed where it is left out.
        pairs: Pairs to train on; the persona's where they are left out.

    Returns:
        The run.

    Raises:
        ValueError: If the preset trains with another engine.

    Chapter: dpo/alignment.
    """
    seed = base_seed() if seed is None else seed
    if preset.start.engine != "by_hand":
        raise ValueError(
            f"the preset {preset.name!r} trains with {preset.start.engine}: run posttrain dpo "
            f"--preset {preset.name}"
        )
    pairs = persona_pairs(seed=seed) if pairs is None else pairs
    start = everyday_start(seed)

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        model, lora = model_with(start.adapter, preset.start)

        def watch(current: GPT, step: int, _: PairMetrics) -> None:
            texts = [
                answer
                for (answer,) in sample_answers(
                    current, tokenizer_of(preset.start.model), WATCHED,
                    chat_format=preset.start.chat_format,
                )
            ]  # fmt: skip
            rows = [] if step == 0 else _read(scratch / _SAMPLES)
            rows = [row for row in rows if row["step"] < step]  # a resumed run comes by again
            write_json_atomic(scratch / _SAMPLES, [*rows, {"step": step, "texts": texts}])

        history, diverged = train_pairs(
            model,
            lora,
            encoded(pairs.train, preset),
            encoded(pairs.validation, preset),
            preset.loss,
            preset.training,
            out,
            batch_size=preset.batch_size,
            seed=seed,
            scratch=scratch,
            base_model_name=preset.start.model,
            on_evaluation=watch,
        )
        write_json_atomic(out / _SAMPLES, _read(scratch / _SAMPLES))
        write_json_atomic(out / "history.json", asdict(history))
        return {"diverged": diverged, "seconds_training": history.seconds}

    artifact = get_or_build(
        f"dpo-{preset.name}",
        build,
        config={
            "preset": asdict(preset),
            "seed": seed,
            "start": start.adapter.parent.name,
            "dtype": str(dtype_of(preset.start)),
        },
        data=json.dumps([pairs.train, pairs.validation]),
        modules=[__name__],
    )
    history = History(**_read(artifact.folder / "history.json"))
    return DPORun(preset, seed, history, artifact.metrics["diverged"], artifact.folder)


def _read(file: Path) -> Any:
    return json.loads(file.read_text("utf-8"))
