"""posttrain.core.training.contention: a busy machine is noticed, said once, and left alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from posttrain.core.training import contention, loop
from posttrain.core.training.contention import BusyWatch, Usage, read_usage
from posttrain.core.training.loop import train
from posttrain.core.training.optimization import TrainingConfig


class Readings:
    """A machine on which others take a share of each second; this process computes on one."""

    def __init__(self, others: float, *, cores: float = 2.0, pace: float = 0.4) -> None:
        self.others, self.cores, self.pace, self.calls = others, cores, pace, 0

    def __call__(self) -> Usage:
        clock = self.pace * self.calls
        self.calls += 1
        own = 1.0 * clock
        return Usage(self.cores, 100 + own + self.others * clock, own, 50 + clock)


def said(watch: BusyWatch, looks: int = 20) -> list[str]:
    return [text for _ in range(looks) if (text := watch.sentence()) is not None]


@pytest.mark.parametrize(
    ("threads", "cores", "others", "busy"),
    [
        (2, 2, 1.0, True), (2, 2, 0.5, True), (2, 2, 0.1, False), (2, 2, 0.0, False),
        (2, 4, 1.0, False), (2, 4, 2.5, True), (4, 4, 0.4, True), (8, 2, 0.0, True),
        (2, 1.5, 0.0, True), (1, 2, 2.0, False), (1, 0.5, 0.0, False),
    ],
)  # fmt: skip
def test_threads_that_have_no_core_of_their_own_are_noticed(
    threads: int, cores: float, others: float, busy: bool
) -> None:
    found = said(BusyWatch(threads, Readings(others, cores=cores)))
    assert len(found) == busy  # once
    if busy:
        assert f"{threads} threads on {cores:g} cores" in found[0] and "\n" not in found[0]
        assert "set OMP_NUM_THREADS=1 before the start" in found[0]
        assert (f"other programs keep {others:.1f} of them busy" in found[0]) is (others > 0.05)


def test_it_waits_a_second_and_then_looks_no_more() -> None:
    readings = Readings(1.0, pace=0.4)
    watch = BusyWatch(2, readings)
    assert watch.sentence() is None and watch.sentence() is None  # 0.4 s, 0.8 s
    assert watch.sentence() is not None
    calls = readings.calls
    assert watch.sentence() is None and readings.calls == calls


def test_one_thread_never_looks() -> None:
    readings = Readings(2.0)
    assert said(BusyWatch(1, readings)) == [] and readings.calls == 0


def test_where_the_system_does_not_tell_nothing_is_said() -> None:
    assert said(BusyWatch(2, lambda: None)) == []
    readings: Iterator[Usage | None] = iter([Readings(1.0)(), *[None] * 20])
    assert said(BusyWatch(2, lambda: next(readings))) == []


# --- what the system counts ---


@pytest.fixture
def stat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {1, 3}, raising=False)
    monkeypatch.setattr(contention, "_TICK", 100)
    file = tmp_path / "stat"
    file.write_text(
        "cpu  9 9 9 9 9 9 9 9 9 9\n"
        "cpu0 9999 0 0 0 0 0 0 0 0 0\n"  # not ours
        "cpu1 100 20 30 5000 700 4 6 40 11 13\n"  # idle, waiting for a disk, guests: no rivals
        "cpu3 200 0 0 5000 0 0 0 0 0 0\n"
        "intr 1 2 3\nctxt 5\n"
    )
    return file


def test_busy_time_is_that_of_the_cores_that_this_process_may_use(
    stat: Path, tmp_path: Path
) -> None:
    usage = read_usage(stat, tmp_path / "missing")
    assert usage is not None and usage.cores == 2
    assert usage.all_seconds == pytest.approx((100 + 20 + 30 + 4 + 6 + 40 + 200) / 100)
    assert usage.own_seconds > 0


@pytest.mark.parametrize(("text", "cores"), [("max 100000", 2), ("400000 100000", 2), ("", 2),
                                             ("150000 100000\n", 1.5)])  # fmt: skip
def test_the_limit_of_a_container_counts(
    stat: Path, tmp_path: Path, text: str, cores: float
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    usage = read_usage(stat, tmp_path / "cpu.max")
    assert usage is not None and usage.cores == cores
    assert (usage.all_seconds == usage.own_seconds) is (cores == 1.5)  # others cannot be told


@pytest.mark.parametrize("text", [None, "", "nothing here", "cpu1 a b c d e f g h"])
def test_another_system_does_not_tell(stat: Path, text: str | None) -> None:
    stat.unlink() if text is None else stat.write_text(text)
    assert read_usage(stat) is None


def test_this_system_can_be_read() -> None:
    usage = read_usage()
    assert usage is None or (usage.cores > 0 and usage.all_seconds >= 0)


# --- in a training ---


class Same:
    """The same batch for ever."""

    def __next__(self) -> Tensor:
        return torch.ones(4, 3)

    def state_dict(self) -> dict[str, object]:
        return {}

    def load_state_dict(self, state: dict[str, object]) -> None:
        pass


@pytest.mark.parametrize("others", [1.0, 0.0])
def test_a_training_says_it_once_and_goes_on_alike(
    others: float, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = TrainingConfig(max_steps=8, learning_rate=0.1, bf16=False)

    def losses() -> list[float]:
        torch.manual_seed(0)
        return train(
            nn.Linear(3, 1), lambda model, x: (model(x).square().sum(), len(x)), Same(), config
        ).loss

    expected = losses()  # with one thread, which never looks
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    watch = BusyWatch
    monkeypatch.setattr(loop, "BusyWatch", lambda n: watch(n, Readings(others)))
    capsys.readouterr()
    found = losses()
    assert torch.get_num_threads() == 2  # nothing was changed
    torch.set_num_threads(threads)
    assert found == expected
    printed = capsys.readouterr()
    assert printed.err.count("set OMP_NUM_THREADS=1") == (1 if others else 0)
    assert printed.out == ""
