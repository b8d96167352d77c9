"""What every benchmark shares: alternate runs, ratio with its spread, a JSON record."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from posttrain.core.machine import run_record
from posttrain.core.storage.files import write_json_atomic

RESULTS = Path(__file__).parents[2] / "_build" / "benchmarks"


@dataclass(frozen=True)
class Ratio:
    """How much larger a figure of ours is than the peer's.

    Attributes:
        what: Name and unit of the figure.
        ours: One value per round.
        peers: One value per round, measured in turn with ours.
        ratio: Median over rounds of ours / peer's.
        low: Smallest ratio of a round.
        high: Largest ratio of a round.
    """

    what: str
    ours: list[float]
    peers: list[float]
    ratio: float
    low: float
    high: float


def alternate(
    what: str, ours: Callable[[], float], peer: Callable[[], float], rounds: int
) -> Ratio:
    """Measure in turn, A B A B, so that a slow minute of the machine hits both.

    Args:
        what: Name and unit of the figure.
        ours: Runs once and returns its figure.
        peer: Likewise.
        rounds: How often.

    Returns:
        The ratio and its spread.
    """
    pairs = [(ours(), peer()) for _ in range(rounds)]
    return ratio_of(what, [a for a, _ in pairs], [b for _, b in pairs])


def ratio_of(what: str, ours: list[float], peers: list[float]) -> Ratio:
    """Compare figures that were measured in turn, and print the result.

    Args:
        what: Name and unit of the figure.
        ours: One value per round.
        peers: One value per round.

    Returns:
        The ratio and its spread.
    """
    ratios = [a / b for a, b in zip(ours, peers, strict=True)]
    result = Ratio(what, ours, peers, statistics.median(ratios), min(ratios), max(ratios))
    print(
        f"{what}: ours {statistics.median(ours):.4g}, peer {statistics.median(peers):.4g}, "
        f"ratio {result.ratio:.2f} ({result.low:.2f} to {result.high:.2f}, n = {len(ratios)})",
        flush=True,
    )
    return result


def matmul_ceiling(dtype: torch.dtype, size: int = 2048, repeats: int = 5) -> float:
    """Measure the fastest matrix product, as a yardstick.

    Args:
        dtype: Type of both factors.
        size: Rows and columns.
        repeats: Products; the fastest counts.

    Returns:
        Operations per second.
    """
    import time

    a, b = torch.randn(2, size, size).to(dtype)
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def write_result(name: str, ratios: list[Ratio], **more: Any) -> None:
    """Write ``_build/benchmarks/<name>.json``.

    Args:
        name: The benchmark.
        ratios: What was compared.
        more: Settings and further figures.
    """
    path = RESULTS / f"{name}.json"
    rows = [asdict(ratio) for ratio in ratios]
    write_json_atomic(path, {"ratios": rows, **more, "machine": run_record()})
    print(f"written: {path}")
