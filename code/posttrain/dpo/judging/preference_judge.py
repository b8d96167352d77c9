"""A judge out of hidden states: a reward model on a frozen SmolLM2, from written verdicts.

It shares no rule with the builder of Stage 2's pairs: it sees states of a language model, and
verdicts on other questions that no rule made. What it has learned from them is measured on
pairs that it never saw, by `posttrain.dpo.judging.judge_report`.

Layer, pooling and format were chosen on the training pairs alone, by cross-validation.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from posttrain.core.judges.verdicts import Verdict
from posttrain.dpo.data.checks import count_words
from posttrain.dpo.judging.answer_features import PLAIN_FORMAT, Pooling, answer_features
from posttrain.dpo.judging.judge_pairs import JudgePair, training_rows
from posttrain.dpo.judging.preference_head import (
    L2,
    PreferenceHead,
    check_tie_band,
    fit_head,
)
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.chat.template import ChatFormat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LAYER = 12
"""Blocks of SmolLM2's 30 that run. After 11 to 20 of them, held-out training pairs are right in
92 to 94 of 100 cases, which is within one standard error, and each block costs time."""


@dataclass(frozen=True, eq=False)
class PreferenceJudge:
    """A frozen language model with a linear reward on its hidden states.

    Attributes:
        model: The language model; it must stay as it was.
        tokenizer: Its tokenizer.
        head: The reward, and what cross-validation found.
        length_slope: How much the reward of held-out training answers grows with a word more,
            in nats; None where all pairs have two answers of the same length.
        layer: See `answer_features`.
        pooling: See there.
        chat_format: See there.
        batch_size: See there.
        tie_band: Largest difference of two rewards that is a tie still, in nats.
    """

    model: GPT = field(repr=False)
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    head: PreferenceHead = field(repr=False)
    length_slope: float | None
    layer: int
    pooling: Pooling
    chat_format: str | ChatFormat = field(default=PLAIN_FORMAT, repr=False)
    batch_size: int = 16
    tie_band: float = 0.0
    _weights_sum: float = field(init=False, repr=False)
    _known: dict[tuple[str, str], float] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        check_tie_band(self.tie_band)
        object.__setattr__(self, "_weights_sum", _weights_sum(self.model, self.layer))

    def score(self, question: str, answer: str) -> float:
        """Return the reward of an answer.

        Args:
            question: What was asked.
            answer: An answer.

        Returns:
            The reward in nats. Only the difference of two answers to one question means
            something: its logistic function is the probability that the first is preferred.
        """
        return self.scores([question], [answer])[0]

    def scores(self, questions: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Return the rewards of many answers.

        Args:
            questions: What was asked, n texts.
            answers: An answer to each.

        Returns:
            n rewards, in order.

        Raises:
            ValueError: If the model's weights have changed, a reward is not finite, or see
                `answer_features`.
        """  # noqa: DOC502
        if _weights_sum(self.model, self.layer) != self._weights_sum:
            raise ValueError(
                "the model's weights are not those that the judge was trained on: give the "
                "judge a model of its own, which nothing trains"
            )
        features = answer_features(
            self.model, self.tokenizer, questions, answers, layer=self.layer,
            pooling=self.pooling, chat_format=self.chat_format, batch_size=self.batch_size,
        )  # fmt: skip
        return _finite(self.head.rewards(features))

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Say which answer has the higher reward. The order of the two plays no part.

        Args:
            question: What was asked.
            first: The answer shown first.
            second: The answer shown second.

        Returns:
            The verdict.

        Raises:
            ValueError: See :meth:`scores`.
        """  # noqa: DOC502
        self.ask_ahead([(question, first, second)])
        margin = self._known[question, first] - self._known[question, second]
        reason = f"the rewards differ by {margin:+.2f} nats"
        if abs(margin) <= self.tie_band:
            return Verdict("tie", reason)
        return Verdict("first" if margin > 0 else "second", reason)

    def ask_ahead(self, rows: Iterable[tuple[str, str, str]]) -> None:
        """Score many answers together and keep the rewards for `judge`.

        Args:
            rows: Question, first and second answer.

        Raises:
            ValueError: See :meth:`scores`.
        """  # noqa: DOC502
        asked = [(q, answer) for q, *both in rows for answer in both]
        new = [row for row in dict.fromkeys(asked) if row not in self._known]
        if new:
            found = self.scores(
                [question for question, _ in new], [answer for _, answer in new]
            )
            self._known.update(zip(new, found, strict=True))


def train_preference_judge(
    model: GPT,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[JudgePair],
    *,
    layer: int = LAYER,
    pooling: Pooling = "mean",
    l2: float | Sequence[float] = L2,
    folds: int = 5,
    chat_format: str | ChatFormat = PLAIN_FORMAT,
    batch_size: int = 16,
    tie_band: float = 0.0,
) -> PreferenceJudge:
    """Train a judge on pairs.

    Only the head is trained. The order of the pairs plays no part: they are sorted by their
    ids, which say too in which part of cross-validation a pair lies.

    Args:
        model: A Llama-style model, which stays as it is. Not the one that you align. In
            bfloat16 SmolLM2 gives the same verdicts on the pairs of the book, in half the time
            where the processor multiplies in it.
        tokenizer: Its tokenizer.
        pairs: Pairs of the part "train", such as ``judge_pairs("train")``.
        layer: Blocks to run, from 1.
        pooling: "mean" over the answer's tokens, or the state of the stop token, the "last".
        l2: Strengths of the penalty to choose from; see `fit_head`.
        folds: Parts of cross-validation.
        chat_format: How the conversations are written.
        batch_size: Answers at once.
        tie_band: Largest difference of two rewards that is a tie still, in nats.

    Returns:
        The judge.

    Raises:
        ValueError: If there are no pairs, two have the same id, one is of the part "test", a
            hidden state is not finite, or an option is out of range.

    Chapter: dpo/alignment.
    """  # noqa: DOC502
    check_tie_band(tie_band)
    rows = training_rows(pairs)
    n = len(rows)
    features = answer_features(
        model, tokenizer, [row.question for row in rows] * 2,
        [row.better for row in rows] + [row.worse for row in rows],
        layer=layer, pooling=pooling, chat_format=chat_format, batch_size=batch_size,
    )  # fmt: skip
    head = fit_head(features[:n], features[n:], l2, folds)
    longer = torch.tensor([count_words(row.better) - count_words(row.worse) for row in rows])
    return PreferenceJudge(
        model, tokenizer, head, _slope(longer.double(), head.chosen.margins), layer, pooling,
        chat_format, batch_size, tie_band,
    )  # fmt: skip


def _slope(longer: Tensor, margins: Tensor) -> float | None:
    """Fit margins by differences in length, without a constant: a pair has no order."""
    squares = float(longer @ longer)
    return float(longer @ margins) / squares if squares else None


def _finite(rewards: Tensor) -> list[float]:
    if not rewards.isfinite().all():
        row = int((~rewards.isfinite()).nonzero()[0])
        raise ValueError(
            f"the reward of answer {row} is {float(rewards[row])}: look whether the model's "
            "weights are whole"
        )
    found: list[float] = rewards.tolist()
    return found


def _weights_sum(model: GPT, layer: int) -> float:
    """Add up the size of all weights that the features depend on."""
    parts = [model.embed_tokens, *model.layers[:layer]]
    total = sum(
        float(weight.detach().abs().sum(dtype=torch.float64))
        for part in parts
        for weight in part.parameters()
    )
    return total if math.isfinite(total) else math.inf  # NaN would never equal itself
