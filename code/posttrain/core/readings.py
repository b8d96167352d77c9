"""Readings: words that the measurement chooses, for sentences that may come out either way.

A difference of a few seeds or questions has an interval. Where the interval lies above zero the
sentence gets one word, below zero another, and where it holds zero it says that the data cannot
tell::

    glue("warm-up", reading(cost, above="costs", below="saves"), display=False)

    Without warm-up the end of this run {glue:text}`warm-up` ...

Never assert that a difference is *not* there: that is for the interval to say.

Chapter: start/how_this_book_works.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from posttrain.core.stats import Estimate


def reading(
    found: Estimate,
    *,
    above: str,
    below: str,
    of: str = "seeds",
    unclear: str = "no difference that {n} {of} can show",
    zero: float = 0.0,
) -> str:
    """Choose words by where an interval lies.

    Args:
        found: The estimate of a difference.
        above: What to say where the whole interval lies above `zero`.
        below: What to say where it lies below.
        of: What the n items are: seeds, questions, windows.
        unclear: What to say where the interval holds `zero`, with ``{n}`` and ``{of}``.
        zero: The value that means no difference.

    Returns:
        One of the three.
    """
    if found.low > zero:
        return above
    if found.high < zero:
        return below
    return unclear.format(n=found.n, of=of)


def difference(
    found: Estimate,
    *,
    above: str = "higher",
    below: str = "lower",
    unit: str = "nats",
    of: str = "seeds",
    digits: int = 2,
) -> str:
    """Write a difference with its direction, interval and n, ready for a sentence.

    Args:
        found: The estimate of a difference.
        above: The word for a positive difference.
        below: The word for a negative one; the numbers are then given without their sign.
        unit: The unit of the difference.
        of: What the n items are.
        digits: How many digits after the point.

    Returns:
        Such as ``0.52 nats higher (0.45 to 0.59, 3 seeds)``; where the interval holds zero,
        ``with no difference that 3 seeds can show (-0.02 to 0.11 nats)``.
    """

    def number(value: float) -> str:
        return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")

    ends = [found.low, found.high]
    word = reading(found, above=above, below=below, of=of)
    if word not in (above, below):
        return f"with {word} ({number(ends[0])} to {number(ends[1])} {unit})"
    low, high = sorted(abs(end) for end in ends)
    size = f"{number(abs(found.value))} {unit} {word}"
    return f"{size} ({number(low)} to {number(high)}, {found.n} {of})"


@dataclass(frozen=True)
class Sorted:
    """Names sorted by what their differences show; each field is ready for a sentence.

    Attributes:
        above: Those whose interval lies above zero, largest difference first.
        below: Those whose interval lies below zero, largest difference first.
        unclear: Those whose interval holds zero, in their order.
    """

    above: str
    below: str
    unclear: str


def sort_by_reading(found: Mapping[str, Estimate], zero: float = 0.0) -> Sorted:
    """Sort named differences into those that are positive, negative and unclear.

    Args:
        found: An estimate of a difference for each name.
        zero: The value that means no difference.

    Returns:
        Three lists as text; an empty one reads "none".
    """
    names = sorted(found, key=lambda name: -abs(found[name].value - zero))
    return Sorted(
        listed(name for name in names if found[name].low > zero),
        listed(name for name in names if found[name].high < zero),
        listed(name for name in found if found[name].low <= zero <= found[name].high),
    )


def listed(names: Iterable[str], nothing: str = "none") -> str:
    """Write names as a list inside a sentence.

    Args:
        names: The names, in order.
        nothing: What to write where there are none.

    Returns:
        Such as ``sums, legs and letters``.
    """
    *first, last = [*names] or [nothing]
    return f"{', '.join(first)} and {last}" if first else last
