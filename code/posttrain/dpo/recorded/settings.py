"""What one setting does: beta, flipped labels, the number of pairs, a robust loss.

Every run starts from the same fine-tuned model and draws its pairs from the same pool. All but
one setting are those of the chapter's main run. The seed draws the pairs, which of them are
flipped, and their order.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from posttrain.dpo.alignment.aligned import encoded
from posttrain.dpo.alignment.answers import held_out_questions
from posttrain.dpo.alignment.pair_sets import persona_pairs
from posttrain.dpo.alignment.sampling import sample_answers
from posttrain.dpo.alignment.shift import manner_of
from posttrain.dpo.alignment.start import everyday_start, model_with
from posttrain.dpo.data.checks import flip_labels
from posttrain.dpo.data.persona import to_last_sentence
from posttrain.dpo.presets import CPU, DPOPreset
from posttrain.dpo.training.dpo_run import train_pairs
from posttrain.sft.training.evaluation import tokenizer_of

PAIRS, POOL_PROMPTS, QUESTIONS = 300, 440, 100
BETAS = (0.03, 0.3, 1.0)
FLIPPED = (0.1, 0.3)
COUNTS = (100, 600)
ROBUST = 0.3

CONFIG: dict[str, Any] = {
    "preset": asdict(CPU),
    "pairs": PAIRS,
    "pool_prompts": POOL_PROMPTS,
    "questions": QUESTIONS,
    "betas": BETAS,
    "flipped": FLIPPED,
    "counts": COUNTS,
    "robust": ROBUST,
}


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the choice and the order of the pairs.

    Returns:
        One part for each setting and seed; ``main`` is the chapter's own.
    """
    plain = {"beta": CPU.loss.beta, "flipped": 0.0, "pairs": PAIRS, "loss": "sigmoid"}
    varied: list[dict[str, Any]] = [
        {"varied": "main"},
        *({"varied": "beta", "beta": beta} for beta in BETAS),
        *({"varied": "flipped", "flipped": share} for share in FLIPPED),
        {"varied": "robust", "flipped": ROBUST, "loss": "robust"},
        *({"varied": "pairs", "pairs": count} for count in COUNTS),
    ]
    return [{**plain, **one, "seed": seed} for one in varied for seed in seeds]


def preset_for(part: dict[str, Any]) -> DPOPreset:
    """Set the main run's preset to one part: one pass over the pairs, whatever their number.

    Args:
        part: One of :func:`parts`.

    Returns:
        The preset.
    """
    steps = part["pairs"] // CPU.batch_size
    smoothing = part["flipped"] if part["loss"] == "robust" else 0.0
    loss = replace(
        CPU.loss, loss_type=part["loss"], beta=part["beta"], label_smoothing=smoothing
    )
    training = replace(
        CPU.training, max_steps=steps, warmup_steps=max(1, steps // 10), eval_steps=0,
        save_steps=0,
    )  # fmt: skip
    return replace(CPU, loss=loss, training=training)


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train with one setting, and let the model answer held-out questions.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: ``scores``, a digit from 0 to 4 for each question; ``words`` of each answer;
        ``finished``, a digit for each; what :class:`PairMetrics` says of held-out pairs with
        true labels; ``diverged``, ``seconds``.
    """
    preset, seed = preset_for(part), part["seed"]
    pool = persona_pairs(max(COUNTS), POOL_PROMPTS, seed=0)
    chosen = random.Random(f"pool {seed}").sample(pool.train, part["pairs"])
    if part["flipped"]:
        chosen = flip_labels(chosen, part["flipped"], seed=seed).pairs
    model, lora = model_with(everyday_start(0).adapter)
    with TemporaryDirectory() as folder:
        history, diverged = train_pairs(
            model, lora, encoded(chosen, preset), encoded(pool.validation, preset),
            preset.loss, preset.training, Path(folder), batch_size=preset.batch_size, seed=seed,
        )  # fmt: skip
    drawn = sample_answers(
        model, tokenizer_of(preset.start.model), held_out_questions(QUESTIONS)
    )
    raw = [answer for (answer,) in drawn]
    texts = [to_last_sentence(text) for text in raw]
    end = history.evaluations[-1]
    return [
        {
            **part,
            "scores": "".join(map(str, manner_of(texts).scores)),
            "words": [len(text.split()) for text in texts],
            "finished": "".join("01"[a == b.strip()] for a, b in zip(texts, raw, strict=True)),
            **{name: round(end[name], 5) for name in end if name != "step"},
            "diverged": diverged,
            "seconds": round(history.seconds, 1),
        }
    ]
