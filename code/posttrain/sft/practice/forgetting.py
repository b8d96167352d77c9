"""Four remedies against forgetting, each tried beside the run that needs one.

A narrow data set makes a model worse at everything else. Said to help are fewer steps, a lower
rate, rows of general conversation mixed in (*replay*), and LoRA in place of full training.

What is measured: the loss on general conversations, of the kind that is replayed but none of
those rows; the loss on plays, which nothing here replays; and the accuracy on the task, since a
remedy that prevents the learning is none.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.data.forgetting import general_chats, play_windows
from posttrain.sft.practice.tuning import digits, per_token, steps_of, tuned
from posttrain.sft.presets import CPU
from posttrain.sft.training.evaluation import (
    conversation_losses,
    encode_rows,
    right_in_first_line,
    tokenizer_of,
)
from posttrain.sft.training.run import base_model

ROWS = 192  # of the task, in every run but the shorter one: 12 batches of 16
MEASURED_CHATS, MEASURED_PLAYS = 40, 24
FULL_RATE = 4e-4  # a tenth of LoRA's, as "LoRA without regret" has it


@dataclass(frozen=True)
class Remedy:
    """What a run does differently.

    Attributes:
        replay: Share of general conversations among all rows.
        rows: Rows of the task.
        rate: Learning rate.
        full: Whether the adapted matrices are trained in full instead.
    """

    replay: float = 0.0
    rows: int = ROWS
    rate: float = CPU.training.learning_rate
    full: bool = False


BASE, PLAIN = "base model", "no remedy"

REMEDIES = {
    PLAIN: Remedy(),
    "5 % replay": Remedy(replay=0.05),
    "10 % replay": Remedy(replay=0.1),
    "20 % replay": Remedy(replay=0.2),
    "half the steps": Remedy(rows=ROWS // 2),
    "a quarter of the rate": Remedy(rate=CPU.training.learning_rate / 4),
    "full training": Remedy(rate=FULL_RATE, full=True),
}

CONFIG: dict[str, Any] = {
    "preset": asdict(CPU),
    "remedies": {name: asdict(remedy) for name, remedy in REMEDIES.items()},
    "measured": [MEASURED_CHATS, MEASURED_PLAYS],
}


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the adapter, of the order and of which conversations are replayed.

    Returns:
        The base model once, and one part for each remedy and seed.
    """
    runs = [{"remedy": name, "seed": seed} for name in REMEDIES for seed in seeds]
    return [{"remedy": BASE, "seed": seeds[0]}, *runs]


def replayed(share: float, rows: int, seed: int) -> list[EncodedChat]:
    """Draw the general conversations that are mixed in.

    Args:
        share: Their share among all rows, from 0 to below 1.
        rows: Rows of the task.
        seed: Seed of the draw.

    Returns:
        Conversations, none of which is measured.

    Raises:
        ValueError: If the share is none, or there are not so many conversations.
    """
    if not 0 <= share < 1:
        raise ValueError(f"share is {share}: give a number from 0 up to, and below, 1")
    count = round(rows * share / (1 - share))
    pool = general_chats(tokenizer_of(CPU.model))[MEASURED_CHATS:]
    if count > len(pool):
        raise ValueError(
            f"{count} conversations are wanted and {len(pool)} are there: give a lower share"
        )
    return random.Random(seed).sample(pool, count)


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with one remedy, and measure what was learned and what was lost.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: losses of each conversation (``chats``) and window (``plays``), in nats per
        token; ``right``, a digit for each test question; ``steps``, ``diverged``, ``seconds``.
    """
    tokenizer = tokenizer_of(CPU.model)
    if part["remedy"] == BASE:
        untrained = {"steps": 0, "diverged": None, "seconds": 0.0}
        return [{**part, **_measure(base_model(CPU)), **untrained}]
    remedy = REMEDIES[part["remedy"]]
    task = encode_rows(
        build_dataset()["train"][: remedy.rows], tokenizer, CPU.max_length, CPU.chat_format
    )
    examples = task + replayed(remedy.replay, remedy.rows, part["seed"])
    preset = replace(CPU, training=replace(CPU.training, learning_rate=remedy.rate))
    preset = steps_of(preset, len(examples))
    model, history, diverged = tuned(preset, examples, part["seed"], full=remedy.full)
    return [
        {
            **part,
            **_measure(model),
            "steps": len(history.loss),
            "diverged": diverged,
            "seconds": round(history.seconds, 1),
        }
    ]


def _measure(model: GPT) -> dict[str, Any]:
    tokenizer = tokenizer_of(CPU.model)
    chats = conversation_losses(model, general_chats(tokenizer, MEASURED_CHATS))
    plays = conversation_losses(model, play_windows(tokenizer, MEASURED_PLAYS))
    test = build_dataset()["test"]
    return {
        "chats": _each(*chats),
        "plays": _each(*plays),
        "right": digits(right_in_first_line(model, tokenizer, test, CPU.chat_format)),
    }


def _each(sums: Tensor, counts: Tensor) -> list[float | None]:
    return [per_token(loss) for loss in (sums / counts).tolist()]
