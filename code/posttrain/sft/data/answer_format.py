"""The three lines that a fine-tuned model must answer with: write them, read them.

::

    Answer: 21
    Why: 1 yard is 3 feet, and 7x3=21.
    Confidence: high

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CONFIDENCES = ("high", "medium", "low")
"""What the third line may say, surest first."""

LABELS = ("Answer: ", "Why: ", "Confidence: ")
"""How the three lines begin, in order."""

_LENIENT = re.compile(r"\banswer[*_` ]*:[*_`\s]*([^\n\r]*)", re.IGNORECASE)
_DECORATION = "*_`\"' \t"


@dataclass(frozen=True)
class ParsedAnswer:
    """The contents of an answer in the format.

    Attributes:
        answer: What follows ``Answer:`` and a space.
        why: What follows ``Why:`` and a space.
        confidence: One of `CONFIDENCES`.
    """

    answer: str
    why: str
    confidence: str


def write_answer(answer: str, why: str, confidence: str) -> str:
    """Write an answer in the format.

    Args:
        answer: The answer alone, one line.
        why: One sentence, one line.
        confidence: One of `CONFIDENCES`.

    Returns:
        Three lines without a line break at the end.

    Raises:
        ValueError: If a part is empty, has more than one line or space around it, or the
            confidence is not in the list.

    Chapter: sft/fine_tuning.
    """
    if confidence not in CONFIDENCES:
        raise ValueError(
            f"the confidence is {confidence!r}: give one of {', '.join(CONFIDENCES)}"
        )
    for label, part in zip(LABELS, (answer, why), strict=False):
        if not _is_one_line(part):
            raise ValueError(
                f"what follows {label.strip()!r} is {part!r}: give one line of text with no "
                "space before or after it"
            )
    return "\n".join(
        label + part for label, part in zip(LABELS, (answer, why, confidence), strict=True)
    )


def parse_answer(text: str) -> ParsedAnswer | None:
    """Read an answer that keeps to the format exactly.

    There must be three lines in order, each with one space after its colon and something after
    that, and nothing before or after them. Only space at the very end is forgiven, since it
    changes nothing for a reader: models end a turn with or without a line break.

    Args:
        text: What a model wrote.

    Returns:
        The parts, or None where the text breaks the format anywhere.

    Chapter: sft/fine_tuning.
    """
    lines = text.rstrip().splitlines()
    if len(lines) != len(LABELS):
        return None
    if not all(line.startswith(label) for label, line in zip(LABELS, lines, strict=True)):
        return None
    answer, why, confidence = (
        line.removeprefix(label) for label, line in zip(LABELS, lines, strict=True)
    )
    if not (_is_one_line(answer) and _is_one_line(why) and confidence in CONFIDENCES):
        return None
    return ParsedAnswer(answer, why, confidence)


def complies(text: str) -> bool:
    """Say whether a text keeps to the format exactly; see `parse_answer`.

    Args:
        text: What a model wrote.

    Returns:
        True where it does.

    Chapter: sft/fine_tuning.
    """
    return parse_answer(text) is not None


def find_answer(text: str) -> str | None:
    """Find the answer in a text that need not keep to the format.

    It scores a model that was never trained on the format by what it knows: capitals, bold
    type, quotes, a full stop at the end and text around the line are all forgiven. The first
    ``Answer:`` counts, because a model that does not stop goes on to questions of its own.

    Args:
        text: What a model wrote.

    Returns:
        What follows ``Answer:`` up to the end of its line, or the next line where that line is
        empty; None where there is nothing.

    Chapter: sft/fine_tuning.
    """
    match = _LENIENT.search(text)
    found = (
        match.group(1).strip(_DECORATION).removesuffix(".").strip(_DECORATION) if match else ""
    )
    return found or None


def _is_one_line(part: str) -> bool:
    """Say whether a part has text, on one line, with no space around it."""
    return part.splitlines() == [part] and part == part.strip()
