"""What running a page costs: wall-clock time and peak memory.

Chapter: start/how_this_book_works.
"""

import sys
import time


class Stopwatch:
    """Measures from its creation on.

    Example:
        ``clock = Stopwatch()`` in a page's first cell, ``clock.seconds`` in its last.
    """

    def __init__(self) -> None:
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Wall-clock seconds since the stopwatch was made."""
        return time.perf_counter() - self._started

    @property
    def peak_gib(self) -> float:
        """Largest resident memory of this process so far, in GiB; NaN on Windows."""
        try:
            import resource
        except ImportError:
            return float("nan")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**30 if sys.platform == "darwin" else 2**20)
