"""The persona's rules against labels made by hand, and against what must not count."""

from __future__ import annotations

import random

import pytest

from posttrain.dpo.data.persona import (
    CRITERIA,
    PersonaVerdict,
    compliance,
    is_finished,
    is_preamble,
    sentences,
    to_last_sentence,
    without_filler,
)

LETTERS = {"answer_first": "F", "gives_reason": "R", "addresses_reader": "Y", "no_filler": "N"}

# Labelled by hand, before the rules were run on them; a capital letter stands for yes.
ROWS = [
    ("FRYN", "Use a cast-iron pan, because it holds heat and gives your steak a brown crust."),
    ("FRYN", "Walk to the shop. It saves you fuel, and you get some fresh air on the way."),
    ("FRYN", "Yes, you can freeze bread. The cold stops the mold that would spoil your loaf."),
    ("FRYN", "Go to bed at the same time every night, so that your body learns when to sleep."),
    ("FRYN", "Buy the ripe one if you eat it today, since a hard avocado needs three days."),
    ("FRYN", "Seven. A week has seven days because people once counted the planets you can see "
     "with the naked eye."),
    ("FRYN", "The sky looks blue to you because air scatters blue light more than red light."),
    ("FRYN", "Start with the corners: that way you only need to paint the middle once."),
    ("FRYN", "No. Salt water makes you thirstier, as your kidneys use more water to get rid of "
     "the salt than you drank."),
    ("FRYN", "Choose wool. You stay warm in it even when it is wet, thanks to the air in its "
     "fibers."),
    ("FrYN", "Use two cups of water for each cup of rice, and keep the lid on your pot."),
    ("FrYN", "You need flour, eggs, milk and a pinch of salt."),
    ("FrYN", "Take the train at nine. You can buy your ticket on board."),
    ("FrYN", "Water your cactus once a month. Keep it in the sun."),
    ("FRyN", "Paris, because the government and the president sit there."),
    ("FRyN", "Ice floats because it is less dense than water."),
    ("FRyN", "Honey never spoils. It has so little water that bacteria cannot live in it, "
     "which "
     "is why jars from tombs are still edible."),
    ("FRyN", "Cats purr when they are calm. The reason may be that purring soothes them."),
    ("FRyN", "A square. All sides are equal, so the figure has four axes of symmetry."),
    ("FryN", "The capital of Peru is Lima."),
    ("FryN", "Mount Everest is the highest mountain on Earth. It stands in the Himalayas."),
    ("FryN", "Twelve months make a year."),
    ("FryN", "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen."),
    ("FryN", "The telephone has been in use since 1876."),
    ("fRYN", "Because plates expand when they are hot, you should let yours cool before "
     "washing."),
    ("fRYN", "Since it rains a lot in Bergen, take your raincoat."),
    ("fRYN", "There are many ways to learn a language. The best one for you is to speak it "
     "every "
     "day, because you remember what you use."),
    ("fRYN", "It depends on your budget. Buy a used bike if you have little money, since it "
     "loses less of its value."),
    ("fRYN", "When it comes to sleep, people differ. You should aim for eight hours, because "
     "your brain needs the time to sort what you learned."),
    ("fRyN", "Due to the tilt of the Earth's axis, there are seasons."),
    ("fRyN", "To understand this we must look at light. Blue light is scattered more, and "
     "therefore the sky is blue."),
    ("fryN", "People have wondered about this for a long time. The Moon is made of rock."),
    ("fryN", "What is a noun? A noun is a word for a thing, a person or a place."),
    ("fryN", "I am not sure. It may be the heart."),
    ("frYN", "What do you want to cook? You can make soup or a salad."),
    ("frYn", "Great question! There are several things you can do. You can read a book or call "
     "a friend."),
    ("fRYn", "Sure! You should drink water first, because thirst often feels like hunger."),
    ("fRYn", "Certainly! Use a timer so that you do not burn your cake. I hope this helps!"),
    ("fryn", "As an AI language model, I do not eat. Pizza is a dish from Naples."),
    ("fryn", "Of course! The boiling point of water is 100 degrees Celsius at sea level."),
    ("fryn", "Thank you for asking! The answer is 42."),
    ("fryn", "Here are some tips: eat well, sleep well, move a lot."),
    ("fRyn", "Absolutely! Bees dance, because the others must learn where the flowers are. Let "
     "me know if you have any other questions."),
    ("FRYn", "Use oats, because they fill you for hours. I hope this helps!"),
    ("FRYn", "Turn the router off and on again: that clears its memory, and your connection "
     "comes back. Feel free to ask if it does not."),
    ("Fryn", "Rome was founded in 753 BC, as the story goes. Have a great day!"),
    ("Fryn", "It is important to note that sharks are fish. Whales are not."),
    ("frYn", "I'm happy to help! Put your phone into another room."),
    ("FRyN", "The proverb \"you reap what you sow\" is about farming, because seeds become "
     "crops."),
    ("FryN", "The word \"your\" is a possessive adjective."),
    ("FRyN", "Bread rises as the yeast gives off gas."),
    ("FRYN", "Put the milk in last. Tea that is too strong can then still be saved by you."),
    ("FrYN", "Plant your tomatoes in May. Tomatoes need sun."),
    ("FRYN", "Leave ten minutes early. Otherwise you will stand in the queue."),
]  # fmt: skip


@pytest.mark.parametrize(
    ("criterion", "precision", "recall"),
    [
        ("answer_first", 0.95, 0.95),
        ("gives_reason", 0.95, 0.80),
        ("addresses_reader", 0.95, 0.95),
        ("no_filler", 0.95, 0.95),
        ("complies", 0.95, 0.75),
    ],
)
def test_rules_agree_with_labels(criterion: str, precision: float, recall: float):
    """Reasons without a word for them are what the rules miss."""
    wanted = [
        all(letter in labels for letter in LETTERS.values())
        if criterion == "complies"
        else LETTERS[criterion] in labels
        for labels, _ in ROWS
    ]
    found = [getattr(compliance(text), criterion) for _, text in ROWS]
    both = sum(w and f for w, f in zip(wanted, found, strict=True))
    wrong = [text for (_, text), w, f in zip(ROWS, wanted, found, strict=True) if w != f]
    assert both / sum(found) >= precision, wrong
    assert both / sum(wanted) >= recall, wrong


def test_the_table_is_large_and_varied_enough():
    assert len(ROWS) >= 50 and len({text for _, text in ROWS}) == len(ROWS)
    for letter in LETTERS.values():
        yes = sum(letter in labels for labels, _ in ROWS)
        assert 12 <= yes <= len(ROWS) - 12, letter


def test_the_score_counts_the_criteria():
    generator = random.Random(0)
    for _ in range(20):
        flags = [generator.random() < 0.5 for _ in range(4)]
        verdict = PersonaVerdict(*flags)
        assert verdict.score == sum(flags) and verdict.complies == all(flags)
        assert [name in repr(verdict) for name in CRITERIA] == [not flag for flag in flags]
    assert repr(PersonaVerdict(True, True, True, True)) == "4 of 4"


def test_length_plays_no_part():
    """More sentences of the same kind change no verdict, in either direction."""
    more = " The pot is on the shelf. The stove is in the kitchen."
    for _, text in ROWS:
        assert compliance(text + more * 5) == compliance(text + more), text


@pytest.mark.parametrize("text", ["", " \n", "\n\n"])
def test_an_empty_answer_meets_no_criterion(text: str):
    assert compliance(text).score == 0


@pytest.mark.parametrize(
    ("text", "criterion", "expected"),
    [
        ('He said "you are late" to the class.', "addresses_reader", False),
        ("Thank you for asking! Tea is a drink.", "addresses_reader", False),
        ("Let me know if you need more. Tea is a drink.", "addresses_reader", False),
        ("Youth is short.", "addresses_reader", False),
        ("YOU should go.", "addresses_reader", True),
        ("I have lived here since 1999.", "gives_reason", False),
        ("I have lived here since the early nineties.", "gives_reason", False),
        ("Go now since the shop closes.", "gives_reason", True),
        ("It keeps the bread soft.", "gives_reason", True),
        ("1. Boil water", "answer_first", False),
        ("- Boil water", "answer_first", False),
        ("**Steps**", "answer_first", False),
        ("Steps:\nBoil water.", "answer_first", False),
        ("Well, tea.", "answer_first", False),
        ("Wells are deep.", "answer_first", True),
        ("Sure, it is tea.", "no_filler", False),
        ("Surely it is tea.", "no_filler", True),
        ("Great Britain is an island.", "no_filler", True),
        ("Hi-fi is an old word.", "no_filler", True),
        ("Okra is a plant.", "no_filler", True),
        ("word " * 31 + "end.", "answer_first", False),
    ],
)
def test_hard_cases(text: str, criterion: str, expected: bool):
    assert getattr(compliance(text), criterion) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("So.", True), ("So! \n", True), ('"So."', True), ("**So?**", True), ("So", False),
     ("", False), ("So, it", False), ("- tea\n- soup", False)],
)  # fmt: skip
def test_an_answer_that_was_cut_off_is_seen(text: str, expected: bool):
    assert is_finished(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("One. Two. Thr", "One. Two."), ("One.", "One."), ("On", ""), ("", ""),
     ('He said "yes." And th', 'He said "yes."'), ("It is 3.5 miles. Th", "It is 3.5 miles."),
     ("Good! See Dr. Wh", "Good!"), ("One.\n\nTwo?\nThree", "One.\n\nTwo?"),
     ("Tea.\n2. So", "Tea.")],
)  # fmt: skip
def test_an_answer_is_cut_back_to_a_sentence(text: str, expected: str):
    found = to_last_sentence(text)
    assert found == expected and (not found or is_finished(found))


def test_sentences_and_fillers():
    text = 'Dr. Who eats 3.5 pies, e.g. "apple." Yes! Why?\n- one\n\n two'
    assert sentences(text) == [
        'Dr. Who eats 3.5 pies, e.g. "apple."', "Yes!", "Why?", "- one", "two",
    ]  # fmt: skip
    assert sentences(" \n ") == []
    assert without_filler("Sure! Of course, tea. I hope this helps.") == "Tea."
    assert without_filler("Great question!") == ""
    assert is_preamble("There are many teas.") and is_preamble("Tea:") and is_preamble("Tea?")
    assert not is_preamble("There are three teas.")
