import pytest

from posttrain.sft import wording


def product(expression: str, index: int = 0) -> dict:
    return {"expression": expression, "source_index": index, "num_digits": 1}


def test_words_are_joined_as_in_a_sentence():
    assert [wording.join(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert [wording.some(n, "day") for n in (1, 2)] == ["1 day", "2 days"]


def test_units():
    assert wording.conversion_question(product("7 * 12")) == "How many inches are 7 feet?"
    assert wording.conversion_why(product("7 * 12")) == "1 foot is 12 inches, and 7x12=84."
    assert wording.conversion_question(product("7 * 12", 1)) == "How many months are 7 years?"
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
    ("offset", "target", "question", "why"),
    [
        (10, "2025-05-16", "it in 10 days?", "Friday is 3 days after Tuesday."),
        (1, "2025-05-07", "it in 1 day?", "Wednesday is 1 day after Tuesday."),
        (-6, "2025-04-30", "it 6 days ago?", "Wednesday is 6 days before Tuesday."),
        (14, "2025-05-20", "it in 14 days?", "2 weeks after Tuesday it is Tuesday again."),
        (-7, "2025-04-29", "it 7 days ago?", "1 week before Tuesday it is Tuesday again."),
    ],
)
def test_weekdays(offset: int, target: str, question: str, why: str):
    facts = {"start_date": "2025-05-06", "offset_days": offset, "target_date": target}
    verb = "is" if offset > 0 else "was"
    assert wording.weekday_question(facts) == f"Today is Tuesday. Which day {verb} {question}"
    assert wording.weekday_why(facts) == why


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


@pytest.mark.parametrize(
    ("start", "end", "why"),
    [
        ("2025-05-03", "2025-05-20", "20-3=17."),
        ("2025-05-20", "2025-06-05", "May has 31 days, and 31-20+5=16."),
        ("2025-12-31", "2026-01-01", "December has 31 days, and 31-31+1=1."),
    ],
)
def test_days_between(start: str, end: str, why: str):
    facts = {"start_time": f"{start} 00:00:00", "end_time": f"{end} 00:00:00"}
    assert wording.days_question(facts).startswith("How many days is it from ")
    assert wording.days_why(facts) == why


def test_lists():
    facts = {"original_numbers": ["52.0", "14.0", "33.0"], "direction": "ascending"}
    assert wording.sort_question(facts) == "Sort these numbers, smallest first: 52, 14, 33"
    assert wording.sort_why(facts) == "14 is the smallest and 52 the largest."
    facts["direction"] = "descending"
    assert wording.sort_question(facts) == "Sort these numbers, largest first: 52, 14, 33"


@pytest.mark.parametrize(
    ("operation", "result", "question", "why"),
    [
        (
            "keep_larger",
            ["45"],
            "Keep only the numbers above 30",
            "14 and 30 are not above 30.",
        ),
        (
            "keep_smaller",
            ["14"],
            "Keep only the numbers below 30",
            "45 and 30 are not below 30.",
        ),
        ("remove_larger", ["14", "30"], "Remove the numbers above 30", "45 is above 30."),
        ("remove_smaller", ["45", "30"], "Remove the numbers below 30", "14 is below 30."),
    ],
)
def test_filters(operation: str, result: list[str], question: str, why: str):
    numbers = sorted(["14", "45", "30"], key=["14", "45", "30"].index)
    facts = {
        "original_numbers": numbers,
        "operation": operation,
        "filter_value": "30",
        "result": result,
    }
    assert wording.filter_question(facts) == f"{question}: 14, 45, 30"
    assert wording.filter_why(facts) == why


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
