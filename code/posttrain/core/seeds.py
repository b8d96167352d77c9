"""Seeds of results: one base seed for a whole run, so that it can be repeated with others.

What a page measures depends on its seeds. They come from here wherever a result hangs on them:
initial weights, the order of data, sampled text. So ``POSTTRAIN_SEED=1000`` repeats all of it
with other random numbers. Seeds that belong to a data set, a toy checked by hand or a test stay
as they are written.

Chapter: start/setup.
"""

import os

SPREAD = 1000
"""How many seeds belong to one base seed: base seeds that far apart share none."""

_LARGEST = 2**32 - SPREAD  # NumPy takes seeds below 2^32


def base_seed() -> int:
    """Return the base seed: ``POSTTRAIN_SEED``, or 0 where it is not set.

    Returns:
        A whole number from 0 up.

    Raises:
        ValueError: If ``POSTTRAIN_SEED`` is no such number.
    """
    text = os.environ.get("POSTTRAIN_SEED", "").strip()
    if not text:
        return 0
    if not (text.isascii() and text.isdigit()) or int(text) > _LARGEST:
        raise ValueError(
            f"POSTTRAIN_SEED is {text!r}: set it to a whole number from 0 to {_LARGEST}, such "
            f"as {SPREAD}, or leave it unset for 0"
        )
    return int(text)


def seeds(n: int) -> tuple[int, ...]:
    """Return the seeds of n runs: the base seed and those that follow it.

    Base seeds that are multiples of `SPREAD`, such as 0, 1000 and 2000, never share a seed.

    Args:
        n: How many runs.

    Returns:
        ``n`` different whole numbers.

    Raises:
        ValueError: If n is below 1 or above `SPREAD`.
    """
    if not 1 <= n <= SPREAD:
        raise ValueError(f"{n} seeds are asked for: one base seed has 1 to {SPREAD}")
    first = base_seed()
    return tuple(range(first, first + n))
