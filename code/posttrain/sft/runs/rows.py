"""The rows of a run: a reader's own, or the preset's.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.data.duplicates import find_leaks
from posttrain.sft.data.hub import ChatRow, load_alpaca
from posttrain.sft.data.own_rows import OwnRows, load_rows, questions_of, split_rows
from posttrain.sft.presets import SFTPreset

HELD_OUT = 200  # of the preset's own data: forward passes alone, 4 % of the time of 100 steps
_SPARE = 1.05  # share of rows read beyond those needed, since some are refused or too long


@dataclass(frozen=True)
class RunRows:
    """Conversations to train and to measure on.

    Attributes:
        train: Conversations to train on.
        validation: Conversations that are held out.
        source: Where they come from.
        format: How they were written.
        dropped: Rows that were left out, by reason.
        leaks: Held-out rows whose question stands among the training rows.
        held_out_here: Whether the held-out rows were taken from the training file.
    """

    train: list[ChatRow]
    validation: list[ChatRow]
    source: str
    format: str
    dropped: Counter[str]
    leaks: int = 0
    held_out_here: bool = True

    @property
    def train_sha256(self) -> str:
        """What the training rows say."""
        return _digest(self.train)

    @property
    def validation_sha256(self) -> str:
        """What the held-out rows say."""
        return _digest(self.validation)

    def facts(self) -> dict[str, Any]:
        """Plain values for the run's record and card.

        Returns:
            Source, format, digest and numbers of rows.
        """
        return {
            "source": self.source,
            "format": self.format,
            "sha256": self.train_sha256,
            "train_rows": len(self.train),
            "held_out_rows": len(self.validation),
            "dropped": dict(self.dropped),
        }

    def lines(self) -> list[str]:
        """Describe the rows.

        Returns:
            Lines of text.
        """
        where = " of the same file" if self.held_out_here and self.validation else ""
        lines = [
            f"data:       {self.source}: {self.format}",
            f"rows:       {len(self.train):,} to train on, {len(self.validation):,}{where} "
            "held out",
        ]
        if self.dropped:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.dropped.items())
            lines.append(f"dropped:    {reasons}")
        if self.leaks:
            lines.append(
                f"warning:    {self.leaks} held-out rows ask what a training row asks: their "
                "losses say little about new questions (posttrain data check lists them)"
            )
        return lines


def load_run_rows(
    preset: SFTPreset,
    data: str | None,
    validation: str | None,
    on_bad_row: Literal["error", "drop"],
    seed: int,
) -> RunRows:
    """Read the rows of a run, and hold some out.

    Args:
        preset: Its own data set is read where ``data`` is left out.
        data: A file or a data set on the hub.
        validation: Rows to measure on; a part of ``data`` where it is left out.
        on_bad_row: Whether a bad row is an error or dropped and counted.
        seed: Seed of which rows are held out.

    Returns:
        The rows.

    Raises:
        AssetError: If a file cannot be read, or holds no row.
        ValueError: If a row is bad and that is an error, or ``validation`` comes alone.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    if data is None:
        if validation is not None:
            raise ValueError(
                "--val without --data: the preset's data has held-out rows already"
            )
        return _preset_rows(preset, seed)
    own = load_rows(data, on_bad_row=on_bad_row)
    if validation is None:
        if len(set(questions_of(own.rows)[0])) < 2:  # one question cannot lie on both sides
            return _checked(own, own.rows, [], own.dropped, here=True)
        train, held_out = split_rows(own, seed=seed)
        return _checked(own, train.rows, held_out.rows, own.dropped, here=True)
    other = load_rows(validation, on_bad_row=on_bad_row)
    return _checked(own, own.rows, other.rows, own.dropped + other.dropped, here=False)


def _checked(
    own: OwnRows,
    train: list[ChatRow],
    held_out: list[ChatRow],
    dropped: Counter[str],
    *,
    here: bool,
) -> RunRows:
    asked = questions_of(train, held_out)
    splits = dict(zip(("train", "validation"), asked, strict=True))
    leaks = find_leaks(splits) if held_out else []
    return RunRows(train, held_out, own.source, own.format, dropped, len(leaks), here)


def _preset_rows(preset: SFTPreset, seed: int) -> RunRows:
    if preset.dataset == "reckoning":
        splits = build_dataset()
        train, held_out = (
            [ChatRow(messages=row["messages"]) for row in splits[name]]
            for name in ("train", "validation")
        )
        return RunRows(train, held_out, "reckoning", "built by posttrain", Counter())
    loaded = load_alpaca()
    training = preset.training
    needed = training.max_steps * preset.batch_size * training.gradient_accumulation_steps
    count = min(len(loaded.rows), int((needed + HELD_OUT) * _SPARE))
    rows = random.Random(seed).sample(loaded.rows, count)
    return RunRows(
        rows[HELD_OUT:], rows[:HELD_OUT], "alpaca-cleaned", "Alpaca", Counter(loaded.dropped)
    )


def _digest(rows: Sequence[ChatRow]) -> str:
    text = json.dumps([row["messages"] for row in rows], ensure_ascii=False, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
