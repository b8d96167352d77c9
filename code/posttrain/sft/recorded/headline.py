"""The stage's main run with several seeds, question by question.

One run shows what one adapter answers; McNemar's test on it covers the questions. The seed of
the adapter and the order of the rows are another source of luck, which only more runs show.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from posttrain.sft.data.answer_format import complies
from posttrain.sft.experiments import Answers, answers_of
from posttrain.sft.presets import CPU
from posttrain.sft.training.run import fine_tuned

SHOTS = 3

CONFIG: dict[str, Any] = {"preset": asdict(CPU), "shots": SHOTS, "split": "test"}


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the adapter and of the order of the rows.

    Returns:
        One part for each seed.
    """
    return [{"seed": seed} for seed in seeds]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with one seed and let base and tuned model answer every test question.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row. ``ids`` names the questions; ``base_right``, ``tuned_right`` and their
        ``..._format`` hold a 0 or 1 for each, as text, in that order. The base model has worked
        examples and lenient scoring, the tuned model must keep to the format. ``val_losses``
        are those of the run, by step.
    """
    tuned = fine_tuned(CPU, part["seed"])
    base, own = answers_of(None, prompt="few-shot", shots=SHOTS), answers_of(tuned)
    return [
        {
            "seed": part["seed"],
            "ids": [row["id"] for row in own.rows],
            "kinds": [row["kind"] for row in own.rows],
            "base_right": _digits(base.right(strict=False)),
            "tuned_right": _digits(own.right(strict=True)),
            "base_format": _format(base),
            "tuned_format": _format(own),
            "val_losses": {
                str(row["step"]): round(row["val_loss"], 5) for row in tuned.history.evaluations
            },
            "diverged": tuned.diverged,
            "seconds": round(tuned.history.seconds, 1),
        }
    ]


def _format(answers: Answers) -> str:
    return _digits([complies(text) for text in answers.texts])


def _digits(values: Sequence[bool]) -> str:
    return "".join("1" if value else "0" for value in values)
