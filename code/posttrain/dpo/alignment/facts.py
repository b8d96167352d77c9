"""Questions with one right answer: does a model still know what it knew?

A win-rate can rise while answers get worse. So the same models are asked what anybody can
check: capitals, opposites, numbers, young animals. None of these questions is trained on.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CAPITALS = (
    "Italy Rome", "France Paris", "Spain Madrid", "Germany Berlin", "Portugal Lisbon",
    "Greece Athens", "Austria Vienna", "Poland Warsaw", "Hungary Budapest", "Ireland Dublin",
    "Norway Oslo", "Sweden Stockholm", "Finland Helsinki", "Denmark Copenhagen",
    "Belgium Brussels", "Russia Moscow", "Turkey Ankara", "Egypt Cairo", "Kenya Nairobi",
    "Japan Tokyo", "China Beijing", "India Delhi", "Thailand Bangkok", "Vietnam Hanoi",
    "Iran Tehran", "Iraq Baghdad", "Cuba Havana", "Peru Lima", "Chile Santiago",
    "Canada Ottawa", "Australia Canberra", "Argentina Buenos|Aires", "Romania Bucharest",
    "Bulgaria Sofia", "Ukraine Kyiv|Kiev", "Switzerland Bern|Berne", "England London",
    "Scotland Edinburgh", "Nepal Kathmandu", "Syria Damascus",
)  # fmt: skip
_OPPOSITES = (
    "hot cold", "big small|little|tiny", "tall short|small", "fast slow", "old young|new",
    "happy sad|unhappy", "light dark|heavy|darkness", "early late", "rich poor", "wet dry",
    "hard soft|easy", "loud quiet|silent|soft", "full empty", "open closed|close|shut",
    "strong weak", "high low", "near far|distant", "thick thin", "clean dirty|unclean",
    "day night", "up down", "left right", "winter summer", "inside outside",
    "true false", "first last", "begin end|finish|stop", "give take|receive", "love hate",
    "win lose|loss", "buy sell", "push pull", "noisy quiet|silent", "wide narrow",
    "smooth rough", "sweet sour|bitter", "brave cowardly|afraid|coward|fearful|timid",
    "always never", "before after", "above below|beneath|under",
)  # fmt: skip
_YOUNG = (
    "dog puppy|pup", "cat kitten", "cow calf", "horse foal|colt", "sheep lamb", "goat kid",
    "pig piglet", "hen chick", "duck duckling", "goose gosling", "swan cygnet", "frog tadpole",
    "kangaroo joey", "lion cub", "bear cub", "elephant calf", "deer fawn", "owl owlet",
    "eagle eaglet", "whale calf",
)  # fmt: skip
_NUMBERS = (
    ("How many days are in a week?", "7|seven"),
    ("How many months are in a year?", "12|twelve"),
    ("How many minutes are in an hour?", "60|sixty"),
    ("How many seconds are in a minute?", "60|sixty"),
    ("How many hours are in a day?", "24|twenty-four|twenty four"),
    ("How many legs does a dog have?", "4|four"),
    ("How many legs does an insect have?", "6|six"),
    ("How many wheels does a bicycle have?", "2|two"),
    ("How many wheels does a car have?", "4|four"),
    ("How many sides does a triangle have?", "3|three"),
    ("How many sides does a square have?", "4|four"),
    ("How many fingers are on one hand?", "5|five"),
    ("How many eyes does a cat have?", "2|two"),
    ("How many cents are in a dollar?", "100|hundred"),
    ("How many centimeters are in a meter?", "100|hundred"),
    ("How many years are in a decade?", "10|ten"),
    ("How many legs does a chicken have?", "2|two"),
    ("How many halves make a whole?", "2|two"),
    ("How many items are in a pair?", "2|two"),
    ("How many quarters are in a whole?", "4|four"),
)


@dataclass(frozen=True)
class Fact:
    """A question and how its answer is recognized.

    Attributes:
        question: The question.
        answer: Accepted words, with ``|`` between them.
    """

    question: str
    answer: str


FACTS = (
    *(
        Fact(f"What is the capital of {place}?", city)
        for place, city in (row.split(" ", 1) for row in _CAPITALS)
    ),
    *(
        Fact(f"What is the opposite of {word}?", other)
        for word, other in (row.split(" ", 1) for row in _OPPOSITES)
    ),
    *(
        Fact(f"What is a young {animal} called?", name)
        for animal, name in (row.split(" ", 1) for row in _YOUNG)
    ),
    *(Fact(*row) for row in _NUMBERS),
)
"""120 questions that none of the pairs asks."""

_BY_QUESTION = {fact.question: fact for fact in FACTS}


def is_right(question: str, answer: str) -> bool:
    """Say whether the first sentence of an answer holds an accepted word.

    A word that the question names does not count against an answer, and a second, wrong word
    beside the right one goes unseen: this measures what a model knows, not how it says it.

    Args:
        question: One of :data:`FACTS`.
        answer: An answer.

    Returns:
        Whether it is right.

    Raises:
        ValueError: If the question is none of these.

    Chapter: dpo/alignment.
    """
    if question not in _BY_QUESTION:
        raise ValueError(f"{question!r} has no known answer here: ask one of FACTS")
    first = re.split(r"(?<=[.!?])\s|\n", answer.strip(), maxsplit=1)[0]
    accepted = _BY_QUESTION[question].answer
    return re.search(rf"\b(?:{accepted})\b", first, re.IGNORECASE) is not None
