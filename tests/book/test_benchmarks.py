"""The benchmarks' own arithmetic; no timing here."""

import importlib.util
import json
import math
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "code" / "benchmarks"


def load(name, monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    return module


def test_alternate_runs_in_turn_and_takes_the_median_of_each_rounds_ratio(monkeypatch):
    common = load("_common", monkeypatch)
    order = []
    ours = iter([10.0, 30.0, 20.0])
    peers = iter([5.0, 10.0, 20.0])
    result = common.alternate(
        "x",
        lambda: order.append("a") or next(ours),
        lambda: order.append("b") or next(peers),
        rounds=3,
    )
    assert order == list("ababab")
    assert (result.ratio, result.low, result.high) == (2.0, 1.0, 3.0)


def test_a_result_is_written_with_the_machine_it_was_measured_on(monkeypatch, tmp_path):
    common = load("_common", monkeypatch)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    common.write_result("some", [common.ratio_of("x", [2.0], [1.0])], rounds=1)
    record = json.loads((tmp_path / "some.json").read_text())
    assert record["ratios"][0]["ratio"] == 2.0
    assert record["rounds"] == 1
    assert record["machine"]


LOG = """\
step 0: train loss 4.1, val loss 4.2
iter 0: loss 4.2, time 900.00ms, mfu -1
iter 1: loss 4.1, time 10.00ms, mfu 0
iter 2: loss 4.1, time 30.00ms, mfu 0
step 125: train loss 2.1, val loss 1.98
iter 125: loss 2.1, time 900.00ms, mfu 0
step 250: train loss 1.9, val loss 1.78
"""


def test_nanogpts_log_gives_times_without_evaluation_and_the_crossing(monkeypatch):
    peer = load("pretraining_vs_nanogpt", monkeypatch)
    run = peer.read_log(LOG)
    assert run.curve == [(0, 4.2), (125, 1.98), (250, 1.78)]
    assert run.seconds_per_step == pytest.approx(0.020)
    # 1.88 lies half way between 1.98 and 1.78, so half way between steps 125 and 250
    assert run.seconds_to_target == pytest.approx(187.5 * 0.020)
    assert run.final_loss == 1.78


def test_a_curve_that_stays_above_the_target_never_crosses(monkeypatch):
    peer = load("pretraining_vs_nanogpt", monkeypatch)
    assert math.isnan(peer.first_below([(0, 4.0), (10, 2.0)], 1.88))
