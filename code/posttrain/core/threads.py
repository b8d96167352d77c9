"""How threads wait for each other, set before PyTorch is imported. Imports nothing heavy.

Chapter: start/setup.
"""

import os

WAITING = {"OMP_WAIT_POLICY": "PASSIVE"}
"""What OpenMP is told: a thread that waits for another sleeps, instead of asking in a loop.

A thread that asks in a loop keeps its core busy. That saves a little on an idle machine. Where
another program needs the core, the threads wait for each other longer than they compute.
"""


def calm_threads() -> None:
    """Let waiting threads sleep, in this process and in those that it starts.

    Has an effect only before PyTorch is imported, since OpenMP reads its variables once. A
    value that is set already stays, and ``GOMP_SPINCOUNT``, which says the same in more detail,
    goes before it.
    """
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
