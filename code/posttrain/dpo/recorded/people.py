"""Judges beside people: 500 pairs of HH-RLHF, on which a person has said what is better.

Five judges see the last question of each dialogue and both answers. None of the pairs is shown,
since many ask for something harmful: a verdict is a letter in the record.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from posttrain.core.judges.local import FirstTokenJudge
from posttrain.core.judges.prompts import ChatMessage
from posttrain.core.judges.rules import RuleJudge
from posttrain.core.judges.verdicts import Judge, Outcome, judge_pairs
from posttrain.dpo.data.hh_rlhf import load_hh_rlhf
from posttrain.dpo.data.pair_formats import PairRow, answer_text
from posttrain.dpo.data.persona import compliance
from posttrain.dpo.judging import judge_pairs as written
from posttrain.dpo.judging.judge_pairs import JudgePair
from posttrain.dpo.judging.preference_judge import train_preference_judge
from posttrain.dpo.judging.word_judge import train_word_judge
from posttrain.sft.chat.template import Message, encode_chat
from posttrain.sft.presets import CPU
from posttrain.sft.training.evaluation import tokenizer_of
from posttrain.sft.training.run import base_model

PAIRS, TRAINED_ON = 500, 1500
LONGEST = 1200  # characters of a question or an answer; longer pairs are left out
HIDDEN, WORDS, RULE, LETTER, PEOPLE = (
    "hidden states", "words", "persona's rules", "asked for a letter", "people's verdicts",
)  # fmt: skip
JUDGES = (HIDDEN, WORDS, RULE, LETTER, PEOPLE)

CONFIG: dict[str, Any] = {
    "pairs": PAIRS, "trained_on": TRAINED_ON, "longest": LONGEST, "judges": JUDGES,
    "set": "hh_rlhf harmless-base test",
}  # fmt: skip


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the judges.

    Args:
        seeds: Seeds of the draw of the pairs.

    Returns:
        One part for each judge and seed.
    """
    return [{"judge": judge, "seed": seed} for judge in JUDGES for seed in seeds]


def drawn_rows(seed: int) -> tuple[list[PairRow], list[PairRow]]:
    """Draw pairs to judge, and others to learn from.

    Args:
        seed: Seed of the draw.

    Returns:
        `PAIRS` rows, and `TRAINED_ON` others.
    """

    def short(row: PairRow) -> bool:
        texts = (question_of(row), answer_text(row, "chosen"), answer_text(row, "rejected"))
        return all(0 < len(text.strip()) <= LONGEST for text in texts)

    rows = [row for row in load_hh_rlhf().rows if short(row)]
    random.Random(f"people {seed}").shuffle(rows)
    return rows[:PAIRS], rows[PAIRS : PAIRS + TRAINED_ON]


def question_of(row: PairRow) -> str:
    """Return the last thing that the user said."""
    return str(row["prompt"][-1]["content"])


def letter_judge() -> FirstTokenJudge:
    """Make a judge of SmolLM2 as it is: which letter would it write first?

    Returns:
        The judge.
    """
    model, tokenizer = base_model(CPU), tokenizer_of(CPU.model)

    @torch.no_grad()
    def logits(messages: list[ChatMessage]) -> Tensor:
        prompt = encode_chat(
            [cast(Message, message) for message in messages], tokenizer, CPU.chat_format,
            add_generation_prompt=True, markers="as_text",
        ).input_ids  # fmt: skip
        found: Tensor = model(torch.tensor([prompt]), logits_to_keep=1)[0, -1]
        return found

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    return FirstTokenJudge(logits, encode)


def make_judge(name: str, others: Sequence[PairRow]) -> Judge:
    """Make one of the judges.

    Args:
        name: One of :data:`JUDGES`.
        others: Pairs of the same set to learn from, for the last judge.

    Returns:
        The judge.
    """
    if name == RULE:
        return RuleJudge(lambda question, answer: compliance(answer).score)
    if name == LETTER:
        return letter_judge()
    pairs = written.judge_pairs("train")
    if name == WORDS:
        words = train_word_judge(pairs)
        return RuleJudge(lambda question, answer: words.scores([question], [answer])[0])
    if name == PEOPLE:
        pairs = [
            JudgePair(
                f"people-{i}", "train", question_of(row), answer_text(row, "chosen"),
                answer_text(row, "rejected"), ("vague",),
            )
            for i, row in enumerate(others)
        ]  # fmt: skip
    model, tokenizer = base_model(CPU), tokenizer_of(CPU.model)
    return train_preference_judge(model, tokenizer, pairs)


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Let one judge compare the answers, in both orders.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: ``chosen_first`` and ``rejected_first``, a letter for each pair and each order:
        ``c`` where the judge prefers the answer that the person chose, ``r`` the other one,
        ``t`` neither.
    """
    rows, others = drawn_rows(part["seed"])
    judge = make_judge(part["judge"], others)
    asked = [
        (question_of(row), answer_text(row, "chosen"), answer_text(row, "rejected"))
        for row in rows
    ]
    ask_ahead: Callable[..., None] | None = getattr(judge, "ask_ahead", None)
    if ask_ahead is not None:
        ask_ahead(asked)
    outcomes = judge_pairs(judge, *map(list, zip(*asked, strict=True)))
    return [{**part, **_letters(outcomes)}]


def _letters(outcomes: Sequence[Outcome]) -> dict[str, str]:
    letters = {"a": "c", "b": "r", "tie": "t", None: "t"}
    votes = [outcome.votes for outcome in outcomes]
    return {
        "chosen_first": "".join(letters[first] for first, _ in votes),
        "rejected_first": "".join(letters[second] for _, second in votes),
    }
