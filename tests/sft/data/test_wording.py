import pytest

from posttrain.sft.data import wording


def product(expression: str, index: int = 0) -> dict:
    return {"expression": expression, "source_index": index, "num_digits": 1}


def test_words_are_joined_as_in_a_sentence():
    assert [wording.join(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [wording.some(n, "day") for n in (1, 2)] == ["1 day", "2 days"]


def test_units():
    assert wording.conversion_question(product("7 * 3")) == "How many feet are 7 yards?"
    assert wording.conversion_why(product("7 * 3")) == "1 yard is 3 feet, and 7x3=21."
    assert wording.conversion_question(product("7 * 10", 1)) == "How many years are 7 decades?"
    for factor, pairs in wording.UNITS.items():
        for index, (large, small) in enumerate(pairs):
            assert wording.units(product(f"2 * {factor}", index)) == (large, small)


@pytest.mark.parametrize(
    ("expression", "digits", "why"),
    [
        ("3 + 5", 1, "3+5=8."),
        ("3 - 5", 1, "3-5=-2."),
        ("23 + 45", 2, "20+40=60 and 3+5=8."),
        ("23 - 45", 2, "20-40=-20 and 3-5=-2."),
        ("10 - 99", 2, "10-90=-80 and 0-9=-9."),
        ("3 - 7 - 7", 1, "3-7=-4 and -4-7=-11."),
        ("99 - 45 + 96", 2, "99-45=54 and 54+96=150."),
    ],
)
def test_sums(expression: str, digits: int, why: str):
    facts = {"expression": expression, "num_digits": digits}
    assert wording.sum_question(facts) == f"What is {expression}?"
    assert wording.sum_why(facts) == why


@pytest.mark.parametrize(
    ("year", "why"),
    [
        (1938, "1938 is not a multiple of 4."),
        (1936, "1936 is a multiple of 4 but not of 100."),
        (1900, "1900 is a multiple of 100 but not of 400."),
        (2000, "2000 is a multiple of 100 and of 400."),
    ],
)
def test_leap_years(year: int, why: str):
    assert wording.leap_question({"year": year}) == f"Is {year} a leap year?"
    assert wording.leap_why({"year": year}) == why


def test_lists():
    facts = {"original_numbers": ["52.0", "14.0", "33.0"], "direction": "ascending"}
    assert wording.sort_question(facts) == "Sort these numbers, smallest first: 52, 14, 33"
    assert wording.sort_why(facts) == "14 is the smallest and 52 the largest."
    facts["direction"] = "descending"
    assert wording.sort_question(facts) == "Sort these numbers, largest first: 52, 14, 33"


def test_words_in_reverse():
    facts = {"words": ["into", "must", "day"]}
    question = "Write these words in reverse order: into, must, day"
    assert wording.reverse_question(facts) == question
    assert wording.reverse_why(facts) == "day is the last and into the first."


def test_prices():
    facts = {"candidates": [45.712, 41.026, 50.118], "size": "smallest"}
    assert wording.price_question(facts) == "Which price is the lowest: 45.71, 41.03 or 50.12?"
    assert wording.price_why(facts) == "The next lowest is 45.71."
    facts = {"candidates": [9.5, 10.25], "size": "largest"}  # as numbers, not as text
    assert wording.price_question(facts) == "Which price is the highest: 9.50 or 10.25?"
    assert wording.price_why(facts) == "The next highest is 9.50."


def test_letters():
    facts = {"span": ["These", "old", "names"], "target_letter": "e"}
    assert wording.letters_question(facts) == (
        'How many times is the letter e in "these old names"?'
    )
    assert wording.letters_why(facts) == "these has 2 and names has 1."


def test_legs():
    facts = {"animals": {"cat": 3, "spider": 1}}
    assert wording.legs_question(facts) == "How many legs do 3 cats and 1 spider have?"
    assert wording.legs_why(facts) == "3x4=12, 1x8=8 and 12+8=20."
    facts = {"animals": {"bee": 1}}
    assert wording.legs_question(facts) == "How many legs does 1 bee have?"
    assert wording.legs_why(facts) == "1x6=6."
