import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from posttrain.core import machine


def test_a_run_record_is_plain_json_and_says_what_ran():
    record = json.loads(json.dumps(machine.run_record(since=time.perf_counter() - 2)))
    assert 2 <= record["seconds"] < 60
    assert torch.__version__.startswith(record["versions"]["torch"])  # and +cu130, say
    assert record["threads"] == torch.get_num_threads()
    assert record["dtype"] in ("bfloat16", "float32")
    assert record["cpu"] == machine.describe_cpu() and "core" in record["cpu"]
    assert record["instruction_set"] == machine.instruction_set()
    assert record["base_seed"] == 0


def test_without_a_start_the_seconds_are_those_of_the_process():
    first = machine.run_record()["seconds"]
    assert first > 0
    assert machine.run_record()["seconds"] >= first


LIMITS = ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "POSTTRAIN_DTYPE")
OLD = {"avx2": True, "avx512_f": False}
SKYLAKE = {"avx2": True, "avx512_f": True, "avx512_bf16": False}
ZEN4 = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}
SAPPHIRE = {"avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": True}


@pytest.fixture
def processor(monkeypatch):
    """Make this process believe in another processor, and in limits on it."""
    for name in LIMITS:
        monkeypatch.delenv(name, raising=False)

    def pretend(capabilities, aten="AVX512", **variables):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: aten)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return pretend


@pytest.mark.parametrize(
    ("capabilities", "name", "dtype"),
    [
        (SAPPHIRE, "AMX", torch.bfloat16),
        (ZEN4, "AVX-512 BF16", torch.bfloat16),
        (SKYLAKE, "AVX-512", torch.float32),
        (OLD, "AVX2", torch.float32),
        ({}, platform.machine(), torch.float32),
    ],
)
def test_the_set_in_use_decides_the_format(processor, capabilities, name, dtype):
    processor(capabilities, aten="AVX2" if capabilities == OLD else "AVX512")
    assert machine.instruction_set() == name
    assert machine.preferred_dtype() == dtype
    assert machine.has_native_bf16() == (dtype == torch.bfloat16)
    assert machine.describe_cpu().endswith(f", {name}")


@pytest.mark.parametrize(
    ("limit", "name"),
    [
        ("AVX512_CORE_AMX", "AMX"),
        ("ALL", "AMX"),
        ("no such set", "AMX"),  # oneDNN passes over it
        ("AVX512_CORE_BF16", "AVX-512 BF16"),
        ("avx512_core_bf16", "AVX-512 BF16"),
        ("AVX512_CORE", "AVX-512"),
        ("AVX2", "AVX2"),
        ("AVX2_VNNI_2", "AVX2"),
        ("SSE41", platform.machine()),
    ],
)
def test_limits_on_products_are_heeded(processor, limit, name):
    processor(SAPPHIRE, ONEDNN_MAX_CPU_ISA=limit)
    assert machine.instruction_set() == name
    assert machine.has_native_bf16() == (name in ("AMX", "AVX-512 BF16"))


def test_limits_on_the_rest_are_heeded_and_none_adds_what_is_missing(processor):
    processor(SAPPHIRE, aten="AVX2")
    assert machine.instruction_set() == "AVX2" and not machine.has_native_bf16()
    processor(OLD, aten="AVX2", ONEDNN_MAX_CPU_ISA="AVX512_CORE_BF16")
    assert machine.instruction_set() == "AVX2"


def test_the_format_can_be_forced(processor, monkeypatch):
    processor(ZEN4, POSTTRAIN_DTYPE="float32")
    assert machine.preferred_dtype() == torch.float32
    assert machine.has_native_bf16()  # which is about the processor
    assert machine.run_record()["dtype"] == "float32"
    processor(OLD, POSTTRAIN_DTYPE="bfloat16")
    assert machine.preferred_dtype() == torch.bfloat16
    monkeypatch.setenv("POSTTRAIN_DTYPE", "half")
    with pytest.raises(ValueError, match="POSTTRAIN_DTYPE is 'half': set it to float32 or bf"):
        machine.preferred_dtype()


def test_the_limits_reach_torch():
    code = (
        "import torch; from posttrain.core.machine import instruction_set, preferred_dtype; "
        "print(instruction_set(), preferred_dtype(), torch.backends.cpu.get_cpu_capability())"
    )
    limits = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **limits}, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    if not torch.cpu.get_capabilities().get("avx2"):
        pytest.skip("this processor has no AVX2")
    assert done.stdout.split() == ["AVX2", "torch.float32", "AVX2"]


def test_linux_lists_the_flags_that_torch_reports(monkeypatch):
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        pytest.skip("no /proc/cpuinfo on this system")
    if any(name in os.environ for name in LIMITS):
        pytest.skip("this process is limited to fewer instructions")
    flags = cpuinfo.read_text().split()
    expected = "avx512_bf16" in flags or "amx_bf16" in flags
    assert machine.has_native_bf16() == expected


def test_memory_is_that_of_the_machine_or_of_its_container():
    import psutil

    total = psutil.virtual_memory().total / 2**30
    assert 0 < machine.memory_gib() <= total


def test_versions_are_found_without_importing():
    assert machine.package_version("pytest") == pytest.__version__
    assert machine.package_version("no-such-distribution") is None
