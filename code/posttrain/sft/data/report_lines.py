"""The lines of a report on a data file: a label, and behind it what was found.

Chapter: sft/your_model.
"""

import textwrap
from collections.abc import Sequence

_WIDTH, _LABEL = 80, 16


def field_lines(label: str, text: str) -> list[str]:
    """Write one finding of a report.

    Args:
        label: Its name, at most 15 characters.
        text: What was found; what a terminal would act on becomes a sign.

    Returns:
        Lines of at most 80 columns.

    Chapter: sft/your_model.
    """
    shown = "".join(letter if letter.isprintable() else "�" for letter in text)
    indents = f"{label:<{_LABEL}}", " " * _LABEL
    return textwrap.wrap(shown, _WIDTH, initial_indent=indents[0], subsequent_indent=indents[1])


def counted(number: int, noun: str) -> str:
    """Write a number of things.

    Args:
        number: How many.
        noun: What they are, one of them.

    Returns:
        Such as "1 row" or "2,000 rows".

    Chapter: sft/your_model.
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"


def listed(items: Sequence[object], most: int = 5) -> str:
    """Write the first of some things, and how many more there are.

    Args:
        items: The things.
        most: How many to write.

    Returns:
        Such as "1, 2, 3, 4, 5 and 7 more".

    Chapter: sft/your_model.
    """
    text = ", ".join(map(str, items[:most]))
    return text if len(items) <= most else f"{text} and {len(items) - most:,} more"
