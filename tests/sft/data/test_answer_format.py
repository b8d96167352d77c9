import pytest

from posttrain.sft.data.answer_format import (
    CONFIDENCES,
    ParsedAnswer,
    complies,
    find_answer,
    parse_answer,
    write_answer,
)

GOOD = "Answer: 42\nWhy: 6x7=42.\nConfidence: high"


@pytest.mark.parametrize("confidence", CONFIDENCES)
def test_what_is_written_is_read_back(confidence: str):
    for answer, why in [("42", "6x7=42."), ("3, 5", "a: b: c"), ("No", "Why: not"), ("é", "☃")]:
        text = write_answer(answer, why, confidence)
        assert text == f"Answer: {answer}\nWhy: {why}\nConfidence: {confidence}"
        assert parse_answer(text) == ParsedAnswer(answer, why, confidence)


@pytest.mark.parametrize("end", ["", "\n", "\n\n", " ", " \r\n\t"])
def test_space_at_the_very_end_is_forgiven(end: str):
    assert complies(GOOD + end)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "42",
        " " + GOOD,
        "\n" + GOOD,
        "Sure!\n" + GOOD,
        GOOD + "\nI hope this helps.",
        GOOD + ".",
        GOOD.upper(),
        GOOD.replace("\n", "\n\n", 1),
        GOOD.replace("\n", " ", 1),
        GOOD.replace("\n", " \n", 1),
        GOOD.replace("Answer: ", "Answer:"),
        GOOD.replace("Answer: ", "Answer:  "),
        GOOD.replace("Answer: ", "answer: "),
        GOOD.replace("Answer: ", "**Answer:** "),
        GOOD.replace("42\n", "\n"),
        GOOD.replace("42\n", " \n"),
        GOOD.replace("6x7=42.", ""),
        GOOD.replace("6x7=42.", "6x7\u2028=42."),
        GOOD.replace("high", "High"),
        GOOD.replace("high", "certain"),
        GOOD.replace("high", "high medium"),
        GOOD.replace("high", ""),
        "Why: 6x7=42.\nAnswer: 42\nConfidence: high",
        "Answer: 42\nConfidence: high",
        "Answer: 42\nConfidence: high\nWhy: 6x7=42.",
        GOOD + "\n" + GOOD,
    ],
)
def test_any_other_text_breaks_the_format(text: str):
    assert parse_answer(text) is None and not complies(text)


@pytest.mark.parametrize("part", ["", " ", " 42", "42 ", "4\n2", "4\r2", "4\u20282", "42\n"])
def test_parts_that_would_not_be_read_back_are_refused(part: str):
    with pytest.raises(
        ValueError, match=r"^what follows 'Answer:' is .*: give one line of tex"
    ):
        write_answer(part, "6x7=42.", "high")
    with pytest.raises(ValueError, match=r"^what follows 'Why:' is "):
        write_answer("42", part, "high")


def test_another_confidence_is_refused():
    with pytest.raises(
        ValueError, match=r"confidence is 'sure': give one of high, medium, low$"
    ):
        write_answer("42", "6x7=42.", "sure")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD, "42"),
        ("Let me think. Answer: 42", "42"),
        ("**Answer:** 42", "42"),
        ("**Answer**: `42`.", "42"),
        ("ANSWER :42.\nDone", "42"),
        ('answer: "Friday"', "Friday"),
        ("Answer: 41.03", "41.03"),
        ("Answer:\n42\nWhy: x", "42"),
        ("Answer: 1, 2\r\nAnswer: 3", "1, 2"),
        ("The answer is 42", None),
        ("Answer:", None),
        ("Answer: **", None),
        ("", None),
        ("Reanswer: 3", None),
    ],
)
def test_answers_are_found_outside_the_format_too(text: str, found: str | None):
    assert find_answer(text) == found


def test_the_two_readers_agree_on_texts_that_comply():
    for answer in ("42", "3, 5, 8", "Wednesday", "-7", "41.03"):
        text = write_answer(answer, "It is so.", "low")
        parsed = parse_answer(text)
        assert parsed is not None and find_answer(text) == parsed.answer == answer
