"""Who trains on pairs: this book's own code, TRL, or Unsloth, behind one call.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.by_hand_engine import run_pairs_by_hand
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.dpo.runs.trl_engine import run_pairs_trl
from posttrain.dpo.runs.unsloth_engine import run_pairs_unsloth
from posttrain.sft.training.run import check_device
from posttrain.sft.training.trl_engine import EngineRun
from posttrain.sft.training.watching import Watching

PAIR_ENGINES: dict[str, Callable[..., EngineRun]] = {
    "by_hand": run_pairs_by_hand,
    "trl": run_pairs_trl,
    "unsloth": run_pairs_unsloth,
}


def run_pair_engine(
    preset: DPOPreset,
    pairs: Sequence[EncodedPair],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedPair] = (),
    watching: Watching | None = None,
) -> EngineRun:
    """Train with the engine that a preset names; Unsloth gets a process of its own.

    Args:
        preset: The run.
        pairs: Encoded pairs. TRL and Unsloth take them in this order, the run by hand in an
            order of its own in each pass.
        folder: Gets the adapter, and checkpoints while it runs.
        adapter: Start from this one, whose frozen copy is the reference; a new one is drawn
            where it is left out, and the reference is the model itself.
        validation: Encoded pairs to be measured on every ``eval_steps``; the adapter of the
            lowest loss is kept.
        watching: How the run is shown.

    Returns:
        What happened.

    Raises:
        ValueError: If the preset needs a GPU that is not here.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    check_device(trainer_preset(preset))
    run = PAIR_ENGINES[preset.start.engine]
    return run(preset, pairs, folder, adapter=adapter, validation=validation, watching=watching)
