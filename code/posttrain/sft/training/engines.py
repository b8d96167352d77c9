"""Who trains: this book's own code, TRL, or Unsloth, behind one call.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.by_hand_engine import run_by_hand
from posttrain.sft.training.run import check_device
from posttrain.sft.training.trl_engine import EngineRun, run_trl
from posttrain.sft.training.unsloth_engine import run_unsloth
from posttrain.sft.training.watching import Watching

ENGINES: dict[str, Callable[..., EngineRun]] = {
    "by_hand": run_by_hand,
    "trl": run_trl,
    "unsloth": run_unsloth,
}


def run_engine(
    preset: SFTPreset,
    examples: Sequence[EncodedChat],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedChat] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with the engine that a preset names; Unsloth gets a process of its own.

    Args:
        preset: The run.
        examples: Encoded conversations. TRL and Unsloth take them in this order, the run by
            hand in an order of its own in each pass.
        folder: Gets the adapter, and checkpoints while it runs.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded conversations to be measured on every ``eval_steps``; the adapter
            of the lowest loss is kept.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        ValueError: If the preset needs a GPU that is not here.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    check_device(preset)
    run = ENGINES[preset.engine]
    return run(
        preset, examples, folder, adapter=adapter, validation=validation, watching=watching
    )
