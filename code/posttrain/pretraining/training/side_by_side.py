"""Several small runs at once, each on one core.

The products of a model with a million parameters are too small to share: a second thread
shortens a run by a tenth, a second run beside it halves the time of a sweep.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed

import torch
from tqdm.auto import tqdm

from posttrain.pretraining.presets import PretrainPreset
from posttrain.pretraining.training.run import pretrained


def train_side_by_side(
    runs: Iterable[tuple[PretrainPreset, int]], processes: int | None = None
) -> None:
    """Train runs that are not in the store yet; afterwards ``pretrained`` finds all of them.

    Each process gets one thread. An interruption ends all of them; what was finished is kept,
    and what was not goes on from its checkpoint the next time.

    Args:
        runs: Preset and seed of each run.
        processes: How many at once; where it is left out, as many as torch has threads, at
            most four. With one, the runs are trained here, one after the other.

    Raises:
        ValueError: If ``processes`` is below 1.

    Chapter: pretraining/training_dynamics.
    """  # noqa: DOC503
    wanted = list(dict.fromkeys(runs))
    processes = min(torch.get_num_threads(), 4) if processes is None else processes
    if processes < 1:
        raise ValueError(f"processes is {processes}: give at least 1")
    if min(processes, len(wanted)) <= 1:
        for preset, seed in wanted:
            pretrained(preset, seed)
        return
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _one_thread)
    try:
        jobs = [pool.submit(_train, preset, seed) for preset, seed in wanted]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc="runs"):
            job.result()
    except BaseException:
        for process in list(pool._processes.values()):  # else a run would go on to its end
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _train(preset: PretrainPreset, seed: int) -> None:
    with contextlib.redirect_stderr(io.StringIO()):  # bars would write over one another
        pretrained(preset, seed)
