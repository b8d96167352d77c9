"""What the models answer to questions that no pair was built from.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from posttrain.core.artifacts import get_or_build
from posttrain.core.seeds import base_seed
from posttrain.core.storage.files import write_json_atomic
from posttrain.dpo.alignment.facts import FACTS
from posttrain.dpo.alignment.sampling import LONGEST_ANSWER, sample_answers
from posttrain.dpo.alignment.start import EVERYDAY, TEMPERATURE, model_with
from posttrain.dpo.data.persona import to_last_sentence
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.sft.presets import dtype_of
from posttrain.sft.training.evaluation import tokenizer_of

PERSONA_PROMPT = (
    "You give short answers. Say the answer first and then why, with the word because. Speak "
    "to the reader as you. Use no greeting, no praise and no offer of help."
)
"""What a system message can say of the persona: the baseline without training."""

NO_ANSWER = "(no answer)"
"""Stands for an answer without a word, so that a judge has something to read."""

_LONGEST_FACT = 32  # tokens


@dataclass(frozen=True)
class ModelAnswers:
    """A model's answers to the held-out questions.

    Attributes:
        questions: The questions.
        texts: One answer each, cut back to its last finished sentence where it has one.
        finished: Whether each one ended by itself.
    """

    questions: list[str]
    texts: list[str]
    finished: list[bool]

    def __post_init__(self) -> None:
        if not len(self.questions) == len(self.texts) == len(self.finished):
            raise ValueError(
                f"{len(self.questions)} questions, {len(self.texts)} texts and "
                f"{len(self.finished)} ends: give one of each"
            )


def held_out_questions(count: int = 300) -> list[str]:
    """List the questions that no pair was built from.

    Args:
        count: How many; half of them, rounded up, from templates that no training question has.

    Returns:
        The questions.

    Chapter: dpo/alignment.
    """
    return [prompt.text for prompt in everyday_prompts(test=count)[1]]


def held_out_answers(
    adapter: Path | None, count: int = 300, *, system: str | None = None
) -> ModelAnswers:
    """Let a model answer the held-out questions greedily, once; then from the store.

    Args:
        adapter: Its adapter; ``None`` is the base model.
        count: Number of questions.
        system: A system message; the chat format's own where it is left out.

    Returns:
        The answers.

    Chapter: dpo/alignment.
    """
    (answers,) = _answered(adapter, held_out_questions(count), system=system)
    return answers


def fact_answers(adapter: Path | None) -> ModelAnswers:
    """Let a model answer :data:`posttrain.dpo.alignment.facts.FACTS`, greedily.

    Args:
        adapter: Its adapter; ``None`` is the base model.

    Returns:
        The answers: their first sentences stand within the few tokens that are written.

    Chapter: dpo/alignment.
    """
    asked = [fact.question for fact in FACTS]
    (answers,) = _answered(adapter, asked, longest=_LONGEST_FACT, cut=False)
    return answers


def drawn_answers(
    adapter: Path | None, count: int, number: int, seed: int | None = None
) -> list[ModelAnswers]:
    """Let a model answer the held-out questions several times, by sampling.

    Args:
        adapter: Its adapter; ``None`` is the base model.
        count: Number of questions.
        number: Answers to each.
        seed: Seed of the draws; the base seed where it is left out.

    Returns:
        As many sets of answers.

    Chapter: dpo/alignment.
    """
    seed = base_seed() if seed is None else seed
    return _answered(
        adapter, held_out_questions(count), number=number, temperature=TEMPERATURE, seed=seed
    )


def best_of(drawn: Sequence[ModelAnswers], scores: Sequence[Sequence[float]]) -> ModelAnswers:
    """Keep of each question's answers the one that scores highest.

    Args:
        drawn: Several sets of answers to the same questions.
        scores: A score for each answer of each set.

    Returns:
        The best answers; the first of those that score the same.

    Raises:
        ValueError: If there is no set, the sets differ in their questions, or there is not one
            score for each answer.

    Chapter: dpo/alignment.
    """
    if not drawn or any(each.questions != drawn[0].questions for each in drawn):
        raise ValueError("the sets answer different questions: give answers to the same ones")
    if [len(row) for row in scores] != [len(each.texts) for each in drawn]:
        raise ValueError("the scores do not match the answers: give one for each")
    places = range(len(drawn[0].questions))
    best = [max(range(len(drawn)), key=lambda k: scores[k][i]) for i in places]
    return ModelAnswers(
        drawn[0].questions,
        [drawn[k].texts[i] for i, k in zip(places, best, strict=True)],
        [drawn[k].finished[i] for i, k in zip(places, best, strict=True)],
    )


def _answered(
    adapter: Path | None,
    questions: list[str],
    *,
    system: str | None = None,
    number: int = 1,
    temperature: float = 0.0,
    seed: int = 0,
    longest: int = LONGEST_ANSWER,
    cut: bool = True,
) -> list[ModelAnswers]:
    """Answer each question so many times, once; then from the store."""

    def build(out: Path, scratch: Path) -> None:
        model, _ = model_with(adapter)
        drawn = sample_answers(
            model, tokenizer_of(EVERYDAY.model), questions, system=system,
            num_generations=number, temperature=temperature, seed=seed,
            max_new_tokens=longest, progress=True,
        )  # fmt: skip
        write_json_atomic(out / "answers.json", drawn)

    artifact = get_or_build(
        "dpo-answers",
        build,
        config={
            "adapter": adapter and f"{adapter.parent.parent.name}/{adapter.parent.name}",
            "system": system,
            "number": number,
            "temperature": temperature,
            "seed": seed,
            "longest": longest,
            "dtype": str(dtype_of(EVERYDAY)),
        },
        data=json.dumps(questions),
        modules=[__name__],
    )
    drawn = json.loads((artifact.folder / "answers.json").read_text("utf-8"))
    sets = []
    for texts in zip(*drawn, strict=True):
        whole = [to_last_sentence(text) or text or NO_ANSWER for text in texts]
        ended = [a.strip() == b.strip() for a, b in zip(whole, texts, strict=True)]
        sets.append(ModelAnswers(questions, whole if cut else list(texts), ended))
    return sets
