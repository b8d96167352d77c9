"""Where alignment starts: a model that gives short answers and sometimes shows the persona.

Stage 1's adapter answers everything in the three lines of its task. Asked what goes well with
rice it names a word and a confidence. So the same run is made here on everyday questions.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from posttrain.core.artifacts import get_or_build
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.training.checkpoints import History
from posttrain.dpo.alignment.sampling import sample_answers
from posttrain.dpo.data.building import EDIT_CHANGE
from posttrain.dpo.data.persona import to_last_sentence
from posttrain.dpo.data.persona_edits import EditError, edit_into, one_paragraph
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.presets import CPU, SFTPreset, dtype_of
from posttrain.sft.training.evaluation import tokenizer_of
from posttrain.sft.training.run import base_model, train_adapter

TEMPERATURE = 0.7
"""At 1 a model of this size writes half of its answers in no language."""

START_PROMPTS = 160
"""Questions that the start is trained on: the last of the training questions."""

_HELD_OUT = 16  # of them, to watch the loss on
_LEAST_WORDS = 8  # of an answer that is trained on

EVERYDAY = replace(
    CPU,
    name="everyday",
    batch_size=12,  # conversations of about 80 tokens: as many tokens a step as Stage 1's
    training=replace(
        CPU.training,
        max_steps=12,  # one pass over 144 conversations: the model has to move little
        learning_rate=1e-3,  # a quarter of Stage 1's, since the answers are its own
        eval_steps=6,  # three points
        save_steps=6,  # an interruption loses half of the run at most
    ),
)


@dataclass(frozen=True)
class Start:
    """The fine-tuned model that alignment starts from.

    Attributes:
        adapter: Its adapter, in PEFT's format.
        rows: The conversations that it was trained on, those held out last.
        history: Loss of every step; evaluations with ``val_loss``.
        preset: What was run.
    """

    adapter: Path
    rows: list[dict[str, Any]]
    history: History
    preset: SFTPreset


def everyday_start(seed: int | None = None) -> Start:
    """Load the start from the store, or train it.

    The base model answers everyday questions. What it writes is cut back to its last finished
    sentence and, where the rules can do it, edited into the persona. Stage 1's run trains an
    adapter on that. So the start comes to an end, and shows the persona now and then: pairs
    need both.

    Args:
        seed: Seed of the draws, the adapter and the order; the base seed where it is left out.

    Returns:
        The start.

    Chapter: dpo/alignment.
    """
    seed = base_seed() if seed is None else seed
    asked = [prompt.text for prompt in everyday_prompts()[0][-START_PROMPTS:]]

    def build(out: Path, scratch: Path) -> dict[str, Any]:
        drawn = sample_answers(
            base_model(EVERYDAY), tokenizer_of(EVERYDAY.model), asked, num_generations=2,
            temperature=TEMPERATURE, seed=seed, progress=True,
        )  # fmt: skip
        rows: list[Any] = [
            {"messages": [
                {"role": "user", "content": question}, {"role": "assistant", "content": text},
            ]}
            for question, answers in zip(asked, drawn, strict=True)
            if len((text := shown(answers)).split()) >= _LEAST_WORDS
        ]  # fmt: skip
        _, history, _ = train_adapter(
            EVERYDAY, rows[:-_HELD_OUT], rows[-_HELD_OUT:], out, seed=seed, scratch=scratch
        )
        write_json_atomic(out / "history.json", asdict(history))
        write_json_atomic(out / "rows.json", rows)
        return {"seconds_training": history.seconds}

    artifact = get_or_build(
        "dpo-start",
        build,
        config={"preset": asdict(EVERYDAY), "seed": seed, "dtype": str(dtype_of(EVERYDAY))},
        data=str(asked),
        modules=[__name__],
    )
    read = {
        name: json.loads((artifact.folder / f"{name}.json").read_text("utf-8"))
        for name in ("history", "rows")
    }
    return Start(artifact.folder / "best", read["rows"], History(**read["history"]), EVERYDAY)


def shown(answers: Sequence[str]) -> str:
    """Choose what the start is shown for a question.

    Args:
        answers: What the base model drew.

    Returns:
        The first answer that the rules can edit into the persona, edited; else the first one.
        Both are cut back to their last finished sentence.

    Chapter: dpo/alignment.
    """
    cut = [to_last_sentence(answer) for answer in answers]
    for text in cut:
        with suppress(EditError):
            return edit_into(one_paragraph(text), tolerance=EDIT_CHANGE)
    return cut[0]


def model_with(adapter: Path | None, preset: SFTPreset = EVERYDAY) -> tuple[GPT, LoRAConfig]:
    """Load a preset's model with an adapter.

    Args:
        adapter: Its folder; ``None`` leaves the model as it is.
        preset: Names the model and its type.

    Returns:
        The model in evaluation mode, and the adapter's configuration; the preset's where there
        is no adapter.

    Raises:
        AssetError: If files are missing or damaged.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    model = base_model(preset)
    lora = preset.lora if adapter is None else load_adapter(model, adapter)
    return model.eval(), lora
