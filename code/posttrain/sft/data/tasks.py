"""Eight kinds of everyday reckoning, each a small specification on top of a reasoning-gym task.

reasoning-gym makes the instances and judges the answers; `posttrain.sft.data.wording` words
them in few tokens. `KINDS`, at the end, is the table.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from posttrain.sft.data import wording
from posttrain.sft.data.answer_format import CONFIDENCES
from posttrain.sft.data.wording import Facts


@dataclass(frozen=True)
class Kind:
    """One kind of question.

    Attributes:
        name: Its name in our data.
        dataset: The reasoning-gym task that makes the instances and judges the answers.
        arguments: The configuration of that task.
        question: Words the question.
        why: Words the reason: one true sentence.
        size: How large or long an instance is.
        limits: Confidence is high up to the first size, medium up to the second, else low.
        read: Puts a written answer into the form that the verifier reads; returns None where
            the answer cannot be right.
        write: Writes reasoning-gym's answer as people would.
        wanted: Says which instances are used.
    """

    name: str
    dataset: str
    arguments: Mapping[str, Any]
    question: Callable[[Facts], str]
    why: Callable[[Facts], str]
    size: Callable[[Facts], float]
    limits: tuple[float, float]
    read: Callable[[str, Facts], str | None]
    write: Callable[[str], str] = str
    wanted: Callable[[Facts], bool] = bool

    def confidence(self, facts: Facts) -> str:
        """Rate an instance by its size alone.

        Args:
            facts: Its metadata.

        Returns:
            One of `CONFIDENCES`.
        """
        return CONFIDENCES[sum(self.size(facts) > limit for limit in self.limits)]


# --- how a written answer is read: the verifiers alone are too generous or too narrow ---


def _first_word(answer: str, facts: Facts) -> str | None:
    """Read "No." and "Yes, it is." as their first word."""
    word = re.match(r"[A-Za-z]+\b", answer)
    return word.group().capitalize() if word else None


def _number(*units: str) -> Callable[[str, Facts], str | None]:
    """Make a reader of a number that may be followed by one of some units."""
    pattern = re.compile(rf"([+-]?\d+)(?: (?:{'|'.join(units)}))?" if units else r"([+-]?\d+)")

    def read(answer: str, facts: Facts) -> str | None:
        match = pattern.fullmatch(answer)
        return match.group(1) if match else None

    return read


def _in_small_units(answer: str, facts: Facts) -> str | None:
    return _number(wording.units(facts)[1])(answer, facts)


def _price(answer: str, facts: Facts) -> str | None:
    """Refuse what was not asked about: the verifier takes a price that is a cent off."""
    price = answer.removeprefix("$")
    return price if price in wording.prices(facts) else None


def _list(answer: str, facts: Facts) -> str | None:
    """Refuse numbers that were not given: the verifier of sorting lets each be off by 1."""
    parts = [part.strip(" '\"") for part in answer.strip(" []").split(",")]
    given = set(map(str, wording.numbers(facts)))
    return str(parts) if len(set(parts)) == len(parts) and given.issuperset(parts) else None


def _words(answer: str, facts: Facts) -> str | None:
    """Read words in any case, with or without spaces after the commas."""
    return ", ".join(word.strip(" '\"").lower() for word in answer.strip(" []").split(","))


def _write_list(answer: str) -> str:
    return ", ".join(re.findall(r"'(\d+)", answer))


# --- which instances are used ---


def _known_units(facts: Facts) -> bool:
    count, factor = wording.conversion(facts)
    return factor in wording.UNITS and 1 < count <= 60


def _even_year(facts: Facts) -> bool:
    """Leave out odd years, which are no question."""
    return facts["year"] % 2 == 0


def _all_different(facts: Facts) -> bool:
    return len(set(wording.numbers(facts))) == len(wording.numbers(facts))


def _prices_apart(facts: Facts) -> bool:
    cents = sorted(round(float(price) * 100) for price in wording.prices(facts))
    return cents[0] > 0 and all(b - a > 2 for a, b in pairwise(cents))


def _plain_words(facts: Facts) -> bool:
    """Take plain words, each once, and only a third of the instances where the answer is 1."""
    words = [word.lower() for word in facts["span"]]
    plain = all(word.isascii() and word.isalpha() for word in words)
    often = sum(wording.letters_in(facts).values()) > 1 or facts["source_index"] % 3 == 0
    return plain and len(set(words)) == len(words) and often


def _lower_words(facts: Facts) -> bool:
    """Take plain words in lower case, each once."""
    words = facts["words"]
    plain = all(word.isascii() and word.isalpha() and word.islower() for word in words)
    return plain and len(set(words)) == len(words)


def _known_animals(facts: Facts) -> bool:
    return wording.LEGS.keys() >= facts["animals"].keys()


# --- the table ---

_TWO_DIGITS = {"min_decimals": 0, "max_decimals": 0, "min_value": 0, "max_value": 99}

KINDS = (
    Kind(
        name="unit_conversion",
        dataset="products",
        arguments={"min_digits": 1, "max_digits": 2},
        question=wording.conversion_question,
        why=wording.conversion_why,
        size=lambda facts: wording.conversion(facts)[0],
        limits=(15, 35),  # large units
        read=_in_small_units,
        wanted=_known_units,
    ),
    Kind(
        name="sum",
        dataset="chain_sum",
        arguments={"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 2},
        question=wording.sum_question,
        why=wording.sum_why,
        size=lambda facts: sum(map(int, re.findall(r"\d+", facts["expression"]))),
        limits=(18, 90),  # sum of both numbers
        read=_number(),
    ),
    Kind(
        name="leap_year",
        dataset="calendar_arithmetic",
        arguments={"tasks": ["is_leap_year"], "year": 2000, "leap_year_range": 800},
        question=wording.leap_question,
        why=wording.leap_why,
        size=lambda facts: abs(facts["year"] - 2000),
        limits=(100, 250),  # years away from 2000
        read=_first_word,
        wanted=_even_year,
    ),
    Kind(
        name="sorting",
        dataset="number_sorting",
        arguments={"min_numbers": 2, "max_numbers": 4, **_TWO_DIGITS},
        question=wording.sort_question,
        why=wording.sort_why,
        size=lambda facts: facts["numbers"],
        limits=(2, 3),  # numbers
        read=_list,
        write=_write_list,
        wanted=_all_different,
    ),
    Kind(
        name="word_order",
        dataset="word_sequence_reversal",
        arguments={"min_words": 2, "max_words": 4},
        question=wording.reverse_question,
        why=wording.reverse_why,
        size=lambda facts: len(facts["words"]),
        limits=(2, 3),  # words
        read=_words,
        write=str.lower,
        wanted=_lower_words,
    ),
    Kind(
        name="price",
        dataset="number_format",
        arguments={
            "min_num_candidates": 2,
            "max_num_candidates": 4,
            "min_n": 10,
            "max_n": 90,
            "max_delta": 9,
        },
        question=wording.price_question,
        why=wording.price_why,
        size=lambda facts: facts["num_candidates"],
        limits=(2, 3),  # prices
        read=_price,
        write=lambda answer: f"{float(answer):.2f}",
        wanted=_prices_apart,
    ),
    Kind(
        name="letters",
        dataset="letter_counting",
        arguments={"min_words": 1, "max_words": 3},
        question=wording.letters_question,
        why=wording.letters_why,
        size=lambda facts: len("".join(facts["span"])),
        limits=(7, 12),  # letters in the text
        read=_number("times?"),
        wanted=_plain_words,
    ),
    Kind(
        name="legs",
        dataset="leg_counting",
        arguments={"min_animals": 1, "max_animals": 2, "min_instances": 1, "max_instances": 3},
        question=wording.legs_question,
        why=wording.legs_why,
        size=lambda facts: facts["total_legs"],
        limits=(8, 16),  # legs
        read=_number("legs?"),
        wanted=_known_animals,
    ),
)
"""The kinds of the data set, in the order in which its rows are numbered."""

BY_NAME = {kind.name: kind for kind in KINDS}
