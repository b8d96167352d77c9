"""How many rows are enough? Accuracy after two passes over 50 to 1,000 of them.

Each run reads its rows twice, so more rows also mean more steps, as they do for a reader. The
rows of the smaller sets are among those of the larger ones. The adapters stand in the upper
third of the blocks alone, which costs less than half of the main run's adapters: the frozen
blocks below see each row once.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from posttrain.sft.data.dataset import Row, build_dataset
from posttrain.sft.data.duplicates import same_words_key
from posttrain.sft.practice.tuning import digits, per_token, steps_of, tuned
from posttrain.sft.presets import CPU
from posttrain.sft.training.evaluation import (
    encode_rows,
    mean_loss,
    right_in_first_line,
    tokenizer_of,
)

SIZES = (50, 100, 200, 500, 1000)
PASSES = 2
RATE = 2e-3  # half the main run's, since a batch has half as many rows

PRESET = replace(
    CPU,
    name="row-counts",
    batch_size=8,  # so that 50 rows make a dozen steps
    lora=replace(CPU.lora, layers_to_transform=tuple(range(20, 30))),
    training=replace(CPU.training, learning_rate=RATE),
)

CONFIG: dict[str, Any] = {"preset": asdict(PRESET), "sizes": SIZES, "passes": PASSES}


def training_rows(count: int) -> list[Row]:
    """Take more training rows than one build of the data set has.

    Further builds have other seeds. What they share with the rows taken, or with the rows that
    are held out, is left out.

    Args:
        count: Rows wanted.

    Returns:
        The rows; the first 600 are those of the main run.

    Raises:
        ValueError: If ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"count is {count}: give 1 or more rows")
    data = build_dataset()
    known = {_question(row) for part in ("validation", "test") for row in data[part]}
    rows: list[Row] = []
    seed = 0
    while len(rows) < count:
        for row in build_dataset(seed)["train"]:
            if (key := _question(row)) not in known:
                known.add(key)
                rows.append(row)
        seed += 1
    return rows[:count]


def _question(row: Row) -> str:
    return same_words_key(row["messages"][1]["content"])


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the adapter and of the order of the rows.

    Returns:
        One part for each number of rows and seed.
    """
    return [{"rows": size, "seed": seed} for size in SIZES for seed in seeds]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train on so many rows, and ask the test questions.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: ``right``, a digit for each test question in order; ``val_loss``; ``steps``;
        ``diverged``; ``seconds`` of training.
    """
    data, tokenizer = build_dataset(), tokenizer_of(PRESET.model)
    examples, held_out = (
        encode_rows(rows, tokenizer, PRESET.max_length, PRESET.chat_format)
        for rows in (training_rows(part["rows"]), data["validation"])
    )
    preset = steps_of(PRESET, part["rows"], PASSES)
    model, history, diverged = tuned(preset, examples, part["seed"])
    right = right_in_first_line(model, tokenizer, data["test"], PRESET.chat_format)
    loss = mean_loss(model, held_out)
    return [
        {
            **part,
            "right": digits(right),
            "val_loss": per_token(loss),
            "steps": len(history.loss),
            "diverged": diverged,
            "seconds": round(history.seconds, 1),
        }
    ]
