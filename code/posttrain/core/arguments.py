"""What arguments must be: whole numbers, token ids, names. Imports nothing heavy.

Python takes much for a number or a sequence that is not meant as one: True for 1, a text for a
list of its letters, a list of lists for the numbers inside. Each check says by name what was
given and what is accepted.

Chapter: sft/your_model.
"""

from collections.abc import Iterable, Mapping
from operator import index
from typing import Any, cast


def whole_number(value: object, name: str, lowest: int = 0) -> int:
    """Read a whole number: Python's, NumPy's, or a tensor without axes.

    Args:
        value: What was given.
        name: Its name, for the message.
        lowest: The smallest number accepted.

    Returns:
        The number as Python's own.

    Raises:
        ValueError: If it is no whole number, or too small; True and False are none.

    Chapter: sft/your_model.
    """
    try:
        number = _index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest:
        raise ValueError(f"{name} is {value!r}: give a whole number from {lowest} up")
    return number


def token_ids(values: object, name: str) -> list[int]:
    """Read token ids: a flat sequence of whole numbers, or a tensor with one axis.

    Args:
        values: What was given.
        name: Its name, for the message.

    Returns:
        The ids as Python's own numbers, in order; whether a vocabulary has them is not asked.

    Raises:
        ValueError: If it is a text, a single number, or holds something that is no whole
            number, such as another list, None or True.

    Chapter: sft/your_model.
    """  # noqa: DOC503
    try:
        if isinstance(values, str | bytes | Mapping):
            raise TypeError
        given = values.tolist() if hasattr(values, "tolist") else values
        found = list(cast(Iterable[Any], given))
        return found if all(type(x) is int for x in found) else [_index(x) for x in found]
    except TypeError:
        raise ValueError(
            f"{name} is {shortened(values)}: give a flat sequence of token ids, such as [2] or "
            "(2, 7); a tokenizer turns a text into ids"
        ) from None


def names(values: object, name: str, what: str = "texts") -> list[str]:
    """Read a sequence of texts; a single text is refused, since it is one of letters too.

    Args:
        values: What was given.
        name: Its name, for the message.
        what: What the texts are, for the message.

    Returns:
        The texts, in order.

    Raises:
        ValueError: If it is a single text, or holds something that is none.

    Chapter: sft/your_model.
    """
    accepted = not isinstance(values, str | bytes | Mapping) and isinstance(values, Iterable)
    given = list(cast(Iterable[object], values)) if accepted else []
    if not accepted or not all(isinstance(value, str) for value in given):
        hint = f"[{values!r}]" if isinstance(values, str) else "a list"
        raise ValueError(
            f"{name} is {shortened(values)}: give a sequence of {what}, such as "
            f"{shortened(hint, quote=False)}"
        )
    return cast(list[str], given)


def shortened(value: object, limit: int = 60, *, quote: bool = True) -> str:
    """Write a value for a message, on one line and not at length.

    Args:
        value: Anything.
        limit: Characters at most.
        quote: Whether to write it as in code.

    Returns:
        The text; its middle is left out where it is too long.

    Chapter: sft/your_model.
    """
    text = " ".join((repr(value) if quote else str(value)).split())
    half = (limit - 3) // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"


def _index(value: Any) -> int:
    """Refuse truth values, and tensors of one element that have an axis."""
    truth = isinstance(value, bool) or "bool" in str(getattr(value, "dtype", ""))
    if truth or getattr(value, "ndim", False):
        raise TypeError
    return index(value)
