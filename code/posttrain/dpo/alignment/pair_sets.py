"""Pairs for the persona, out of what the start itself writes.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from posttrain.core.arguments import whole_number
from posttrain.core.artifacts import get_or_build
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.dpo.alignment.sampling import sample_answers
from posttrain.dpo.alignment.start import (
    EVERYDAY,
    START_PROMPTS,
    TEMPERATURE,
    everyday_start,
    model_with,
)
from posttrain.dpo.data.building import by_editing, by_rule, gather
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.data.persona import to_last_sentence
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.sft.presets import dtype_of
from posttrain.sft.training.evaluation import tokenizer_of

SAMPLES = 4
"""Answers to each question."""

_TOP_P = 0.95
_VALIDATION_SHARE = 0.12  # of the questions


@dataclass(frozen=True)
class PairSet:
    """Pairs to train on and pairs to measure on, with no question in both.

    Attributes:
        train: Pairs to train on, in random order.
        validation: Pairs to measure on.
        made: How many pairs each builder made, before the set was cut to its size.
        left_out: Why no pair was made, with counts, for each builder.
    """

    train: list[PairRow]
    validation: list[PairRow]
    made: dict[str, int]
    left_out: dict[str, dict[str, int]]


def sampled_answers(prompts: int, seed: int | None = None) -> dict[str, list[str]]:
    """Let the start answer everyday questions several times, once; then from the store.

    Args:
        prompts: How many of the training questions.
        seed: Seed of the start and of the draws; the base seed where it is left out.

    Returns:
        For each question `SAMPLES` answers, each cut back to its last finished sentence.

    Raises:
        ValueError: If there are not so many questions beside those of the start.

    Chapter: dpo/alignment.
    """
    seed = base_seed() if seed is None else seed
    asked = [prompt.text for prompt in everyday_prompts()[0][:-START_PROMPTS]]
    if not 1 <= whole_number(prompts, "prompts", 1) <= len(asked):
        raise ValueError(f"prompts is {prompts}: there are {len(asked)} beside the start's")
    asked = asked[:prompts]
    start = everyday_start(seed)

    def build(out: Path, scratch: Path) -> None:
        model, _ = model_with(start.adapter)
        drawn = sample_answers(
            model, tokenizer_of(EVERYDAY.model), asked, num_generations=SAMPLES,
            temperature=TEMPERATURE, top_p=_TOP_P, seed=seed, progress=True,
        )  # fmt: skip
        write_json_atomic(out / "answers.json", drawn)

    artifact = get_or_build(
        "dpo-samples",
        build,
        config={
            "start": start.adapter.parent.name,
            "seed": seed,
            "dtype": str(dtype_of(EVERYDAY)),
        },
        data=str(asked),
        modules=[__name__],
    )
    drawn = json.loads((artifact.folder / "answers.json").read_text("utf-8"))
    cut = ([to_last_sentence(text) for text in answers] for answers in drawn)
    return dict(zip(asked, cut, strict=True))


def persona_pairs(count: int = 300, prompts: int = 260, seed: int | None = None) -> PairSet:
    """Build pairs by the persona's rules and by edits, out of the start's own answers.

    Half of the pairs are two answers as they were drawn. The other half are one answer, edited
    into the persona and out of it again. Where one builder makes too few the other fills up.

    Args:
        count: Pairs to train on.
        prompts: Questions that the start answers for them.
        seed: Seed of the draws; the base seed where it is left out.

    Returns:
        The pairs.

    Raises:
        ValueError: If so many questions give too few pairs.

    Chapter: dpo/alignment.
    """
    seed = base_seed() if seed is None else seed
    answers = sampled_answers(prompts, seed)
    held_out = round(_VALIDATION_SHARE * len(answers))
    parts = list(answers.items())
    generator = random.Random(f"pairs {seed}")
    made: dict[str, int] = {}
    left_out: dict[str, dict[str, int]] = {}
    sets: list[dict[str, list[PairRow]]] = []
    for part in (parts[:-held_out], parts[-held_out:]):
        built = {
            "by rule": gather(by_rule(question, texts) for question, texts in part),
            "by editing": gather(
                by_editing(question, text, seed=place)
                for question, texts in part
                for place, text in enumerate(dict.fromkeys(texts))
                if text
            ),
        }
        sets.append({})
        for name, found in built.items():
            sets[-1][name] = generator.sample(found.pairs, len(found.pairs))
            made[name] = made.get(name, 0) + len(found.pairs)
            reasons = left_out.setdefault(name, {})
            for reason, times in found.left_out.items():
                reasons[reason] = reasons.get(reason, 0) + times
    train = _mixed(sets[0], count)
    if len(train) < count:
        raise ValueError(
            f"{prompts} questions gave {len(train)} pairs and {count} are wanted: give more "
            "questions"
        )
    validation = _mixed(sets[1], sum(map(len, sets[1].values())))
    generator.shuffle(train)
    return PairSet(train, validation, made, left_out)


def _mixed(built: dict[str, list[PairRow]], count: int) -> list[PairRow]:
    """Take half of the pairs from each builder, or more where the other made too few."""
    first, second = built.values()
    least = max(count // 2, count - len(second))
    taken = first[:least]
    return [*taken, *second[: count - len(taken)]]
