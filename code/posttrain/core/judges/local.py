"""A model on this machine as a judge: by what it writes, or by the odds of its first token.

The model comes in as a function, so that any model, template and library will do.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posttrain.core.arguments import token_ids
from posttrain.core.judges.prompts import (
    INSTRUCTIONS,
    LETTER_INSTRUCTIONS,
    ChatMessage,
    judge_messages,
)
from posttrain.core.judges.verdicts import Verdict, Winner, parse_verdict

OPTIONS = ("A", "B")
"""The letters of the first and the second answer."""


@dataclass(frozen=True)
class WritingJudge:
    """A model that writes its verdict.

    Args:
        generate: Continues a conversation, by greedy decoding for a verdict that repeats.
        instructions: What to judge by, and what to write; see `parse_verdict` for the forms.
    """

    generate: Callable[[list[ChatMessage]], str]
    instructions: str = INSTRUCTIONS

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Ask the model and read what it writes.

        Args:
            question: What was asked.
            first: The answer shown first.
            second: The answer shown second.

        Returns:
            The verdict.

        Raises:
            VerdictError: If the text is not exactly one verdict.
        """  # noqa: DOC502
        return parse_verdict(
            self.generate(judge_messages(question, first, second, self.instructions))
        )


def option_tokens(encode: Callable[[str], Sequence[int]]) -> tuple[list[int], list[int]]:
    """Find the tokens with which a model can write "A" and "B" first.

    A letter has two tokens in most vocabularies, with a blank before it and without. Which one
    a model writes hangs on what the template puts before it. A judge that looks at the wrong
    one compares two tokens that the model never writes. So both count.

    Args:
        encode: Turns a text into token ids, without special tokens around it.

    Returns:
        The ids for A and those for B, in the same forms: " A" and " B" where both are one
        token, and "A" and "B" where both are.

    Raises:
        ValueError: If neither form is one token for both letters, or A and B share a token.

    Chapter: dpo/preference_data.
    """
    found: tuple[list[int], list[int]] = ([], [])
    for blank in (" ", ""):
        encoded = [token_ids(encode(blank + letter), "encode's result") for letter in OPTIONS]
        if any(len(ids) != 1 for ids in encoded):
            continue  # in this form a letter is no token of its own
        for known, ids in zip(found, encoded, strict=True):
            known += [one for one in ids if one not in known]
    if not found[0] or not found[1]:
        raise ValueError(
            "neither 'A' and 'B' nor ' A' and ' B' are one token each: let encode leave out "
            "special tokens, or use WritingJudge"
        )
    if set(found[0]) & set(found[1]):
        raise ValueError(
            f"A and B have the tokens {found[0]} and {found[1]}, which overlap: let encode "
            "tell them apart"
        )
    return found


@dataclass(frozen=True)
class FirstTokenJudge:
    """A model whose next token, A or B, is the verdict, without any text being written.

    The log-odds are ``logsumexp`` of the logits of A's tokens less that of B's: the logarithm
    of how much likelier the model is to begin with A, in either form.

    Args:
        first_token_logits: Gives the logits of the first token of the answer to a conversation,
            shape (V,).
        encode: Turns a text into token ids, without special tokens around it.
        tie_band: Largest absolute log-odds, in nats, that are a tie still.
        instructions: What to judge by; they must ask for the letter A or B.
    """

    first_token_logits: Callable[[list[ChatMessage]], ArrayLike]
    encode: Callable[[str], Sequence[int]]
    tie_band: float = 0.0
    instructions: str = LETTER_INSTRUCTIONS
    _tokens: tuple[list[int], list[int]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.tie_band < math.inf:
            raise ValueError(
                f"tie_band is {self.tie_band}: give a finite number of nats, from 0"
            )
        object.__setattr__(self, "_tokens", option_tokens(self.encode))

    def log_odds(self, question: str, first: str, second: str) -> float:
        """Measure how much likelier the model is to begin with A than with B.

        Args:
            question: What was asked.
            first: The answer shown first, as A.
            second: The answer shown second, as B.

        Returns:
            The log-odds, in nats: positive where the first answer is preferred.

        Raises:
            ValueError: If the logits have another shape, or one that counts is not finite.
        """  # noqa: DOC502
        messages = judge_messages(question, first, second, self.instructions)
        given = self.first_token_logits(messages)
        if hasattr(given, "detach"):  # a tensor, in any number format and on any device
            given = given.detach().float().cpu()
        logits = np.asarray(given, dtype=np.float64)
        highest = max(map(max, self._tokens))
        if logits.ndim != 1 or len(logits) <= highest:
            raise ValueError(
                f"the logits have the shape {logits.shape}, and token {highest} is needed: "
                "give those of one position, shape (V,)"
            )
        a, b = (_log_sum_exp(logits[ids]) for ids in self._tokens)
        if not math.isfinite(a) or not math.isfinite(b):
            raise ValueError(
                f"the logits of A and B sum to {a} and {b}: look for NaN in the model"
            )
        return a - b

    def judge(self, question: str, first: str, second: str) -> Verdict:
        """Compare the odds of the two letters.

        Args:
            question: What was asked.
            first: The answer shown first, as A.
            second: The answer shown second, as B.

        Returns:
            The verdict; its reason names the log-odds.
        """
        odds = self.log_odds(question, first, second)
        reason = f"log-odds {odds:+.3f} nats"
        if abs(odds) <= self.tie_band:
            return Verdict("tie", reason, reason)
        winner: Winner = "first" if odds > 0 else "second"
        return Verdict(winner, reason, reason)


def _log_sum_exp(values: NDArray[np.float64]) -> float:
    highest = float(values.max())
    if not math.isfinite(highest):
        return highest
    return highest + math.log(float(np.exp(values - highest).sum()))
