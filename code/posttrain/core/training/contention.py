"""Is the machine busy? Threads that share their cores with another program crawl.

A product that is split over two threads ends when the slower one ends. Where another program
takes a part of one core, each of thousands of small products waits for it: two threads are then
far slower than one. Nothing is changed here, since the number of threads is part of a result's
last digits: a sentence says what helps.

Chapter: sft/your_model.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tqdm.auto import tqdm

_TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100  # per second, in /proc/stat
_SECONDS = 1.0  # a shorter look would see a cron job as a rival
_CORES = 0.3  # of a core: less is what a desktop takes by itself


@dataclass(frozen=True)
class Usage:
    """What was used up to a moment.

    Attributes:
        cores: How many this process may use; a share where a container has a limit.
        all_seconds: Time that those cores were busy, with this process or any other.
        own_seconds: Time that this process computed, all its threads together.
        clock: The moment, in seconds.
    """

    cores: float
    all_seconds: float
    own_seconds: float
    clock: float


def read_usage(stat: Path = Path("/proc/stat"), limit: Path | None = None) -> Usage | None:
    """Read what the system counts.

    Args:
        stat: Linux's count of busy time, by core.
        limit: The container's limit; where it lies usually, if it is left out.

    Returns:
        The usage, or ``None`` where the system does not tell.

    Chapter: sft/your_model.
    """
    try:
        text = stat.read_text(encoding="ascii")
        allowed = {f"cpu{index}" for index in os.sched_getaffinity(0)}
        busy = [
            sum(map(int, counts[:3] + counts[5:8]))  # user, nice, system; interrupts and stolen
            for name, *counts in (line.split() for line in text.splitlines() if line.strip())
            if name in allowed
        ]
    except (OSError, ValueError, AttributeError):  # no Linux, or not told
        return None
    if not busy:
        return None
    cores, all_seconds = float(len(busy)), sum(busy) / _TICK
    own = time.process_time()
    share = _container_cores(limit or Path("/sys/fs/cgroup/cpu.max"))
    if share is not None and share < cores:
        # the counts are the host's, and whose time they are cannot be told apart
        return Usage(share, own, own, time.monotonic())
    return Usage(cores, all_seconds, own, time.monotonic())


def _container_cores(file: Path) -> float | None:
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # no limit, or no such file
        return None


class BusyWatch:
    """Looks whether others use the cores that this process's threads need, and says so once.

    Args:
        threads: Threads that compute together, such as ``torch.get_num_threads()``.
        read: What reads the usage.

    Chapter: sft/your_model.
    """

    def __init__(self, threads: int, read: Callable[[], Usage | None] = read_usage) -> None:
        self._threads, self._read = threads, read
        self._start = read() if threads > 1 else None  # one thread waits for no other

    def sentence(self) -> str | None:
        """Say what keeps the threads waiting, once a second has passed since the beginning.

        Returns:
            One sentence with the remedy, or ``None``: nothing does, it is too early, or it was
            asked before.
        """
        if self._start is None:
            return None
        now = self._read()
        if now is None or now.clock - self._start.clock < _SECONDS:
            return None
        start, self._start = self._start, None
        apart = now.clock - start.clock
        own = now.own_seconds - start.own_seconds
        others = max(0.0, (now.all_seconds - start.all_seconds - own) / apart)
        if self._threads + others <= now.cores + _CORES:
            return None
        also = f", and other programs keep {others:.1f} of them busy" if others > 0.05 else ""
        return (
            f"this run computes with {self._threads} threads on {now.cores:g} cores{also}: "
            "threads that wait for each other can be many times slower than one, so set "
            "OMP_NUM_THREADS=1 before the start, or end the other programs"
        )

    def warn(self) -> None:
        """Print the sentence where there is one, above a progress bar."""
        if (said := self.sentence()) is not None:
            tqdm.write(said, file=sys.stderr)
