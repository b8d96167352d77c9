"""Machines that a run may be planned for: what they have, and what is assumed of them.

Peaks and bandwidths are their makers'. How much of a peak training reaches, and what an hour
costs, are assumptions, and a plan says so beside each number that rests on them.

Chapter: sft/your_model.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Literal

import torch

from posttrain.core.machine import describe_gpu, memory_gib, preferred_dtype

PRICES_AS_OF = "list prices per hour of a large cloud, 2025; look them up before you rent"
_SHARE_HERE = 1 / 3  # of a timed product: the run by hand, bfloat16, two cores
_PROCESS = {"cpu": 700 * 10**6, "cuda": 500 * 10**6}
# Bytes before there is a model. On a CPU, the libraries: 0.4 GB by hand, 0.7 with TRL or
# Unsloth (the record sft/true_shape). On a GPU, the CUDA context: 0.3 to 0.6 are common.
_REST_OF_THE_SYSTEM = 10**9  # bytes of main memory that other programs keep
_CPU_UNPACKING = 3e8  # 4-bit weights a second, two cores; see the record sft/true_shape
_BYTES_TO_UNPACK = 2.5  # read half a byte, write two: a GPU does it as fast as its memory is


@dataclass(frozen=True)
class Hardware:
    """A machine.

    Attributes:
        name: What a plan calls it.
        device: ``cpu`` or ``cuda``.
        usable: Bytes that a run can have, the process with its libraries included.
        peak: Floating-point operations a second in 16 bits; in the run's type where it was
            timed.
        utilization: Share of the peak that training reaches; assumed.
        unpacking: 4-bit weights that it turns into numbers a second.
        bf16: Whether it multiplies bfloat16 natively.
        measured: Whether ``peak`` was timed here; else it is the maker's.
        price: US dollars an hour, assumed; ``None`` where nobody bills.

    Chapter: sft/your_model.
    """

    name: str
    device: Literal["cpu", "cuda"]
    usable: int
    peak: float
    utilization: float
    unpacking: float
    bf16: bool = True
    measured: bool = False
    price: float | None = None

    @property
    def process(self) -> int:
        """Bytes that are taken before there is a model; assumed."""
        return _PROCESS[self.device]


HARDWARE = {
    # 16 GB, of which 14.6 GiB can be had. Turing, NVIDIA's T4 datasheet (2019): 65 TFLOP/s in
    # float16, 320 GB/s; no bfloat16 units. At 70 W it holds its peak for moments only:
    # a seventh is assumed.
    "t4": Hardware(
        "T4 16 GB", "cuda", 15 * 10**9, 65e12, 0.15, 320e9 / _BYTES_TO_UNPACK, bf16=False,
        price=0.35,
    ),
    # The 24 GB card that clouds rent most often, an L4, is the slowest of them. NVIDIA's L4
    # datasheet (2023): 121 TFLOP/s in bfloat16 without sparsity, 300 GB/s, 22.5 GiB to be had.
    # It has 72 W. An RTX 3090 or 4090 reads memory three times as fast.
    "gpu24": Hardware(
        "L4 24 GB", "cuda", 23 * 10**9, 121e12, 0.2, 300e9 / _BYTES_TO_UNPACK, price=0.70
    ),
    # Ampere, NVIDIA's A100 datasheet (2020): 312 TFLOP/s in bfloat16, 1,555 GB/s (40 GB model).
    # A third to a half of the peak is common for long rows in large batches.
    "a100": Hardware(
        "A100 40 GB", "cuda", 40 * 10**9, 312e12, 0.3, 1555e9 / _BYTES_TO_UNPACK, price=3.70
    ),
}  # fmt: skip
"""Cards by the preset that is made for them; ``t4-qwen`` is made for the first, too."""

PRESET_HARDWARE = {"t4": "t4", "t4-qwen": "t4", "gpu24": "gpu24", "a100": "a100"}
"""Which of :data:`HARDWARE` a preset is made for."""


def this_machine(device: str = "cpu", dtype: torch.dtype | None = None) -> Hardware:
    """Describe the machine that this runs on; a product of two matrices is timed once.

    Args:
        device: ``cuda`` asks for the GPU, and gets the processor where there is none.
        dtype: What the processor computes in; ``preferred_dtype`` where it is left out.

    Returns:
        The machine.

    Chapter: sft/your_model.
    """
    if device == "cuda" and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        bf16 = card.major >= 8
        dtype = torch.bfloat16 if bf16 else torch.float16
        return Hardware(
            f"here: {describe_gpu()}", "cuda", card.total_memory, time_products(dtype, "cuda"),
            _SHARE_HERE, _bandwidth(card) / _BYTES_TO_UNPACK, bf16, measured=True,
        )  # fmt: skip
    usable = max(0, int(memory_gib() * 2**30) - _REST_OF_THE_SYSTEM)
    peak = time_products(dtype or preferred_dtype(), "cpu")
    return Hardware(
        "here: CPU", "cpu", usable, peak, _SHARE_HERE, _CPU_UNPACKING, measured=True
    )


def _bandwidth(card: object) -> float:
    """Bytes a second of a GPU's memory; an ordinary card's where the driver does not tell."""
    clock, width = (
        getattr(card, name, 0) for name in ("memory_clock_rate", "memory_bus_width")
    )
    return 2e3 * clock * width / 8 or 300e9  # kHz, twice a beat; bits


@functools.cache
def time_products(dtype: torch.dtype, device: str, seconds: float = 0.3) -> float:
    """Time the product of two large matrices.

    Args:
        dtype: Their type.
        device: Where they lie.
        seconds: For how long products are repeated.

    Returns:
        Floating-point operations a second, of the fastest product.

    Chapter: sft/your_model.
    """
    n = 1024 if device == "cpu" else 4096
    x = torch.ones(n, n, dtype=dtype, device=device)
    fastest, end = float("inf"), time.perf_counter() + seconds
    x @ x  # the first loads code
    while time.perf_counter() < end or fastest == float("inf"):
        started = time.perf_counter()
        x @ x
        if device != "cpu":
            torch.cuda.synchronize()
        fastest = min(fastest, time.perf_counter() - started)
    return 2 * n**3 / fastest
