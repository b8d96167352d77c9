import json
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


def test_without_a_start_the_seconds_are_those_of_the_process():
    first = machine.run_record()["seconds"]
    assert first > 0
    assert machine.run_record()["seconds"] >= first


@pytest.mark.parametrize(
    ("capabilities", "dtype"),
    [
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_bf16_only_where_the_processor_has_it(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert machine.preferred_dtype() == dtype


def test_linux_lists_the_flags_that_torch_reports():
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        pytest.skip("no /proc/cpuinfo on this system")
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
