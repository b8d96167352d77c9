"""``posttrain sft``: a preset's whole run, from its data set to an adapter.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm

from posttrain.core.artifacts import get_or_build
from posttrain.core.errors import AssetError
from posttrain.core.storage.files import atomic_path, write_json_atomic
from posttrain.sft.adapters.files import CONFIG_NAME, WEIGHTS_NAME
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.chat.template import EncodedChat, special_tokens
from posttrain.sft.data.hub import ChatRow, load_alpaca
from posttrain.sft.presets import SFTPreset, get_preset
from posttrain.sft.training.packing import by_length
from posttrain.sft.training.run import check_device, fine_tuned
from posttrain.sft.training.trl_engine import EngineRun, model_source, run_trl
from posttrain.sft.training.unsloth_engine import run_unsloth

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


HELD_OUT = 200  # conversations: forward passes alone, 4 % of the time of 100 steps of 16


def run_engine(
    preset: SFTPreset,
    examples: Sequence[EncodedChat],
    folder: Path,
    *,
    adapter: Path | None = None,
    validation: Sequence[EncodedChat] = (),
) -> EngineRun:
    """Train with the engine that a preset names: TRL here, Unsloth in a process of its own.

    Args:
        preset: A preset of the engine ``trl`` or ``unsloth``.
        examples: Encoded conversations, in the order of training.
        folder: Gets the adapter, and checkpoints while it runs.
        adapter: Start from this one; a new one is drawn where it is left out.
        validation: Encoded conversations to be measured on every ``eval_steps``; the adapter
            of the lowest loss is kept.

    Returns:
        What happened.

    Raises:
        ValueError: If the preset is trained by hand, or needs a GPU that is not here.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    if preset.engine == "by_hand":
        raise ValueError(
            f"the preset {preset.name!r} is trained by hand: call "
            "posttrain.sft.training.run.fine_tuned"
        )
    check_device(preset)
    run = run_trl if preset.engine == "trl" else run_unsloth
    return run(preset, examples, folder, adapter=adapter, validation=validation)


def encode_until(
    rows: Sequence[ChatRow], tokenizer: PreTrainedTokenizerBase, preset: SFTPreset, wanted: int
) -> tuple[list[EncodedChat], Counter[str]]:
    """Encode conversations in a preset's format, in random order, until there are enough.

    Args:
        rows: Conversations.
        tokenizer: The model's tokenizer.
        preset: Its format, its longest conversation, and the seed of the order.
        wanted: How many to encode; fewer come back where there are no more.

    Returns:
        The encoded conversations, and how many were dropped on the way, by reason.

    Raises:
        ValueError: If the tokenizer lacks a marker of the format.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    special_tokens(tokenizer, preset.chat_format)  # else every row would be dropped
    order = random.Random(preset.training.seed).sample(range(len(rows)), len(rows))
    examples: list[EncodedChat] = []
    dropped: Counter[str] = Counter()
    with tqdm(total=min(wanted, len(rows)), desc="encoding") as bar:
        for index in order:
            if len(examples) == wanted:
                break
            try:
                encoded = encode_for_training(
                    rows[index]["messages"], tokenizer, preset.chat_format
                )
            except ValueError:  # a marker in a message, or no conversation
                dropped["refused"] += 1
                continue
            if len(encoded.input_ids) > preset.max_length:
                dropped[f"longer than {preset.max_length} tokens"] += 1
                continue
            examples.append(encoded)
            bar.update()
    return examples, dropped


def sft_command(preset: str, steps: int | None, seed: int, out: Path | None) -> dict[str, Any]:
    """Run ``posttrain sft``.

    Args:
        preset: Name of the preset.
        steps: Optimizer steps, where they should differ from the preset's.
        seed: Seed of the adapter and of the order of the data.
        out: Folder for the adapter in PEFT's format, or ``None``.

    Returns:
        What was measured.

    Raises:
        ValueError: If there is no such preset, or it needs a GPU that is not here.
        AssetError: If its model or its data cannot be had.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    chosen = get_preset(preset)
    training = replace(chosen.training, seed=seed)
    if steps is not None:
        warmup = min(training.warmup_steps, steps)
        training = replace(training, max_steps=steps, warmup_steps=warmup)
    chosen = replace(chosen, training=training)
    check_device(chosen)
    shown, adapter = _by_hand(chosen) if chosen.engine == "by_hand" else _by_engine(chosen)
    if out is not None:
        copy_adapter(adapter, out)
    return {"preset": preset, **shown, "adapter": str(out or adapter)}


def _by_hand(preset: SFTPreset) -> tuple[dict[str, Any], Path]:
    run = fine_tuned(preset, preset.training.seed)
    shown = {
        "steps": len(run.history.loss),
        "val_loss": run.best["val_loss"],
        "val_loss_at_step": run.best["step"],
        "val_loss_before": run.history.evaluations[0]["val_loss"],
        "seconds_training": run.history.seconds,
        "diverged": run.diverged,
    }
    return shown, run.best_adapter


def _by_engine(preset: SFTPreset) -> tuple[dict[str, Any], Path]:
    training = preset.training
    wanted = training.max_steps * preset.batch_size * training.gradient_accumulation_steps
    tokenizer = _tokenizer(preset)
    loaded = load_alpaca()
    held_out = HELD_OUT if training.eval_steps else 0
    encoded, dropped = encode_until(loaded.rows, tokenizer, preset, held_out + wanted)
    validation = encoded[:held_out]
    examples = by_length(encoded[held_out:], preset.batch_size, training.seed)

    def build(folder: Path, scratch: Path) -> dict[str, Any]:
        run = run_engine(preset, examples, scratch, validation=validation)
        shutil.copytree(run.adapter, folder / "adapter")
        write_json_atomic(folder / "losses.json", run.losses)
        write_json_atomic(folder / "validation.json", run.validation)
        return {
            "steps": len(run.losses),
            "first_loss": run.losses[0],
            "last_loss": run.losses[-1],
            **_validated(run.validation),
            "tokens": run.tokens,
            "seconds_training": run.seconds,
        }

    artifact = get_or_build(
        f"sft-{preset.name}",
        build,
        config=asdict(preset),
        data=hashlib.sha256(
            json.dumps([[asdict(x) for x in part] for part in (examples, validation)]).encode()
        ).hexdigest(),
        modules=[__name__, "posttrain.sft.training.unsloth_worker"],
    )
    shown = {
        **artifact.metrics,
        "examples": len(examples),
        "held_out": len(validation),
        "dropped": dict(loaded.dropped + dropped),
    }
    return shown, artifact.folder / "adapter"


def _validated(losses: dict[int, float]) -> dict[str, float | int]:
    trained = {step: loss for step, loss in losses.items() if step}
    if not trained:
        return {}
    best = min(trained, key=trained.__getitem__)
    return {
        "val_loss": trained[best],
        "val_loss_at_step": best,
        "val_loss_before": losses[0],
    }


def _tokenizer(preset: SFTPreset) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            model_source(preset.model), trust_remote_code=False
        )
    except (OSError, ValueError) as error:  # offline, or no such repository
        raise AssetError(
            f"{preset.model} could not be read from the hub ({type(error).__name__}): look at "
            "the network, or give a preset whose model is a folder"
        ) from error
    return tokenizer


def copy_adapter(source: Path, target: Path) -> None:
    """Copy an adapter; no crash leaves an old half beside a new one.

    Args:
        source: Folder of an adapter in PEFT's format.
        target: Folder for the copy; an adapter that lies there is replaced.

    Chapter: sft/fine_tuning.
    """
    (target / CONFIG_NAME).unlink(missing_ok=True)  # without it a folder is no adapter
    for name in (WEIGHTS_NAME, CONFIG_NAME):
        with atomic_path(target / name) as temporary:
            shutil.copyfile(source / name, temporary)
