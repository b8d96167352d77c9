"""How each kind of question is worded: its question and its reason, from an instance's facts.

Every reason is one true sentence, and short: the model pays for each token.
`posttrain.sft.data.tasks` puts these functions into a table.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

Facts = Mapping[str, Any]
"""The metadata of one instance, as reasoning-gym gives it."""

UNITS = {
    2: [("pint", "cups"), ("quart", "pints")],
    3: [("yard", "feet"), ("tablespoon", "teaspoons")],
    4: [("gallon", "quarts"), ("dollar", "quarters")],
    5: [("nickel", "cents")],
    7: [("week", "days")],
    10: [("centimeter", "millimeters"), ("decade", "years"), ("dime", "cents")],
}
"""How many small units are in one large unit: 2 cups in a pint."""

LEGS = {
    **dict.fromkeys(("bird", "chicken", "duck"), 2),
    **dict.fromkeys(("cat", "cow", "dog", "elephant", "giraffe", "horse", "lion", "tiger"), 4),
    **dict.fromkeys(("ant", "bee", "beetle", "cricket", "wasp"), 6),
    **dict.fromkeys(("scorpion", "spider"), 8),
    **dict.fromkeys(("crab", "lobster"), 10),
}
"""Legs of the animals that we ask about: those whose plural ends in s."""


def join(parts: list[str]) -> str:
    """Join words as in a sentence: a, b and c."""
    return " and ".join(part for part in (", ".join(parts[:-1]), parts[-1]) if part)


def some(count: int, thing: str) -> str:
    """Write a number of things: 1 day, 2 days."""
    return f"{count} {thing}{'s' * (count != 1)}"


# --- unit conversion ---


def conversion(facts: Facts) -> tuple[int, int]:
    """Read a product: the number of large units, and of small units in one of them."""
    count, factor = map(int, facts["expression"].split(" * "))
    return count, factor


def units(facts: Facts) -> tuple[str, str]:
    """Choose a large and a small unit; where several have the factor, by the instance."""
    pairs = UNITS[conversion(facts)[1]]
    return pairs[facts["source_index"] % len(pairs)]


def conversion_question(facts: Facts) -> str:
    """Ask: How many feet are 7 yards?"""
    (count, _), (large, small) = conversion(facts), units(facts)
    return f"How many {small} are {some(count, large)}?"


def conversion_why(facts: Facts) -> str:
    """Say: 1 yard is 3 feet, and 7x3=21."""
    (count, factor), (large, small) = conversion(facts), units(facts)
    return f"1 {large} is {factor} {small}, and {count}x{factor}={count * factor}."


# --- sums ---


def sum_question(facts: Facts) -> str:
    """Ask: What is 23 + 45?"""
    return f"What is {facts['expression']}?"


def sum_why(facts: Facts) -> str:
    """Add tens and ones apart where there are two terms of two digits, else term by term."""
    first, *rest = re.findall(r"[+-]?\d+", facts["expression"].replace(" ", ""))
    if len(rest) == 1 and facts["num_digits"] == 2:
        sign, tens, ones = rest[0]
        steps = [(int(first[0]) * 10, f"{sign}{tens}0"), (int(first[1]), f"{sign}{ones}")]
        return join([f"{a}{b}={a + int(b)}" for a, b in steps]) + "."
    total, equations = int(first), []
    for term in rest:
        equations.append(f"{total}{term}={total + int(term)}")
        total += int(term)
    return join(equations) + "."


# --- dates ---


def leap_question(facts: Facts) -> str:
    """Ask: Is 1936 a leap year?"""
    return f"Is {facts['year']} a leap year?"


def leap_why(facts: Facts) -> str:
    """Say: 1936 is a multiple of 4 but not of 100."""
    year = facts["year"]
    if year % 4:
        return f"{year} is not a multiple of 4."
    if year % 100:
        return f"{year} is a multiple of 4 but not of 100."
    return f"{year} is a multiple of 100 {'but not' if year % 400 else 'and'} of 400."


# --- lists of numbers ---


def numbers(facts: Facts) -> list[int]:
    """Read the numbers of a list; reasoning-gym writes some as 14.0."""
    return [round(float(number)) for number in facts["original_numbers"]]


def sort_question(facts: Facts) -> str:
    """Ask: Sort these numbers, smallest first: 52, 14, 33"""
    order = {"ascending": "smallest", "descending": "largest"}[facts["direction"]]
    return f"Sort these numbers, {order} first: {', '.join(map(str, numbers(facts)))}"


def sort_why(facts: Facts) -> str:
    """Say: 14 is the smallest and 52 the largest."""
    given = numbers(facts)
    return f"{min(given)} is the smallest and {max(given)} the largest."


# --- lists of words ---


def reverse_question(facts: Facts) -> str:
    """Ask: Write these words in reverse order: into, must, day"""
    return f"Write these words in reverse order: {', '.join(facts['words'])}"


def reverse_why(facts: Facts) -> str:
    """Say: day is the last and into the first."""
    return f"{facts['words'][-1]} is the last and {facts['words'][0]} the first."


# --- prices: reasoning-gym's numbers rounded to cents, within its verifier's tolerance ---


def prices(facts: Facts) -> list[str]:
    """Write the numbers to choose from with two decimals."""
    return [f"{candidate:.2f}" for candidate in facts["candidates"]]


def price_question(facts: Facts) -> str:
    """Ask: Which price is the lowest: 45.71, 41.03 or 50.12?"""
    which = {"largest": "highest", "smallest": "lowest"}[facts["size"]]
    *others, last = prices(facts)
    return f"Which price is the {which}: {', '.join(others)} or {last}?"


def price_why(facts: Facts) -> str:
    """Say: The next lowest is 45.71."""
    largest = facts["size"] == "largest"
    ordered = sorted(prices(facts), key=float, reverse=largest)
    return f"The next {'highest' if largest else 'lowest'} is {ordered[1]}."


# --- letters and legs ---


def letters_in(facts: Facts) -> dict[str, int]:
    """Count the letter in each word that has it, in lower case."""
    words = [word.lower() for word in facts["span"]]
    return {word: n for word in words if (n := word.count(facts["target_letter"]))}


def letters_question(facts: Facts) -> str:
    """Ask: How many times is the letter e in "these names"?"""
    text = " ".join(facts["span"]).lower()
    return f'How many times is the letter {facts["target_letter"]} in "{text}"?'


def letters_why(facts: Facts) -> str:
    """Say: these has 2 and names has 1."""
    return join([f"{word} has {count}" for word, count in letters_in(facts).items()]) + "."


def legs_question(facts: Facts) -> str:
    """Ask: How many legs do 3 cats and 2 spiders have?"""
    animals = [some(count, animal) for animal, count in facts["animals"].items()]
    verb = "does" if list(facts["animals"].values()) == [1] else "do"
    return f"How many legs {verb} {join(animals)} have?"


def legs_why(facts: Facts) -> str:
    """Say: 3x4=12, 2x8=16 and 12+16=28."""
    legs = [(count, LEGS[animal]) for animal, count in facts["animals"].items()]
    equations = [f"{count}x{number}={count * number}" for count, number in legs]
    if len(legs) > 1:
        parts = "+".join(str(count * number) for count, number in legs)
        equations.append(f"{parts}={sum(count * number for count, number in legs)}")
    return join(equations) + "."
