"""Checkpoints that hold all that the next step depends on.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import io
import pickle
import random
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from posttrain.core.errors import ArtifactError
from posttrain.core.storage.files import atomic_path
from posttrain.core.training.identity import differences, stored_values
from posttrain.core.training.optimization import TrainingConfig
from posttrain.core.training.wrappers import unwrapped

BatchT_co = TypeVar("BatchT_co", covariant=True)
CHECKPOINT_NAME = "checkpoint.pt"


class BatchSource(Protocol[BatchT_co]):
    """Endless batches that know where they are, so that a resumed run sees what follows."""

    def __next__(self) -> BatchT_co:
        """Return the next micro-batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position and whose it is, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; raise a ValueError where it belongs to other batches."""
        ...


@dataclass
class History:
    """What happened, step by step.

    Attributes:
        loss: Mean loss of each step's batch, before the step, in nats.
        grad_norm: Norm of each step's gradient before clipping.
        learning_rate: Rate of each step.
        evaluations: One row per evaluation: ``step`` and what ``evaluate`` returned.
        seconds: Time in training steps alone, over all sittings.
        resumed_at: The step at which this sitting took over, 0 for a run from the start.
    """

    loss: list[float] = field(default_factory=list)
    grad_norm: list[float] = field(default_factory=list)
    learning_rate: list[float] = field(default_factory=list)
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0
    resumed_at: int = 0


def random_state() -> dict[str, Any]:
    """Read every random number generator that training may draw from.

    Returns:
        The states of torch (each device in use), NumPy and Python, as tensors and plain values.

    Chapter: pretraining/training_dynamics.
    """
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if _uses_cuda() else [],
        "python": random.getstate(),
        "numpy": numpy_state,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put every generator back as :func:`random_state` found it.

    Args:
        state: What :func:`random_state` returned.

    Chapter: pretraining/training_dynamics.
    """
    torch.set_rng_state(state["torch"])
    if _uses_cuda():
        for device, generator in enumerate(state["cuda"][: torch.cuda.device_count()]):
            torch.cuda.set_rng_state(generator, device)
    random.setstate(state["python"])
    inner = {**state["numpy"]["state"], "key": state["numpy"]["state"]["key"].numpy()}
    inner["key"] = inner["key"].astype(np.uint32)
    np.random.set_state({**state["numpy"], "state": inner})


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: BatchSource[Any],
    config: TrainingConfig,
    history: History,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Write all that the next step depends on, under a temporary name, then rename.

    The schedule needs no state of its own: the step decides the rate.

    Args:
        folder: Where ``checkpoint.pt`` goes.
        model: Its weights and buffers.
        optimizer: Its moments.
        batches: Its position in the data.
        config: Stored, so that another configuration is not resumed by mistake.
        history: The steps so far; their number is the step.
        identity: What else decides the result, in plain values; see
            :func:`posttrain.core.training.identity.run_identity`. Stored likewise.

    Raises:
        TypeError: If the position, the history or the identity holds more than tensors and
            plain values.

    Chapter: pretraining/training_dynamics.
    """
    state = {
        "model": unwrapped(model).state_dict(),
        "optimizer": optimizer.state_dict(),
        "batches": batches.state_dict(),
        "rng": random_state(),
        "config": asdict(config),
        "identity": dict(identity or {}),
        "history": asdict(history),
    }
    told = {name: state[name] for name in ("batches", "identity", "history")}
    if not _can_be_read_back(told):
        raise TypeError(
            "the batches' state_dict, the identity or what evaluate returned cannot be kept in "
            "a checkpoint: use tensors, numbers, strings, lists, tuples and dicts only"
        )
    with atomic_path(folder / CHECKPOINT_NAME) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: BatchSource[Any],
    config: TrainingConfig,
    identity: Mapping[str, Any] | None = None,
) -> History | None:
    """Put everything back as :func:`save_checkpoint` found it.

    Args:
        folder: Where ``checkpoint.pt`` is looked for.
        model: Gets the weights and buffers.
        optimizer: Gets the moments.
        batches: Gets the position in the data.
        config: Must equal the stored one.
        identity: Likewise.

    Returns:
        The steps so far, or ``None`` where the folder has no checkpoint.

    Raises:
        ArtifactError: If the checkpoint is damaged, or was made with another configuration,
            identity or model, or of other batches.

    Chapter: pretraining/training_dynamics.
    """
    path = folder / CHECKPOINT_NAME
    for left in folder.glob(f".{path.stem}.*.tmp{path.suffix}"):  # by a kill during a write
        left.unlink(missing_ok=True)
    if not path.is_file():
        return None
    state = _read(path)
    stored, ours = state["config"] | state["identity"], asdict(config) | dict(identity or {})
    if found := differences(stored, ours):
        raise ArtifactError(
            f"{path} was made with another configuration ({found}): remove it to start anew, "
            f"or go on with the old one ({stored_values(stored, ours)})"
        )
    try:
        batches.load_state_dict(state["batches"])  # first: it refuses what is another run's
        unwrapped(model).load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        set_random_state(state["rng"])
        return History(**state["history"])
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path} does not fit this model and these batches ({_first_line(error)}): "
            "remove it to start anew, or go on with what it was made of"
        ) from error


def _read(path: Path) -> dict[str, Any]:
    """Read a checkpoint; torch checks its structure, and the zip's sums are its content's."""
    parts = {"model", "optimizer", "batches", "rng", "config", "identity", "history"}
    try:
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise zipfile.BadZipFile(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict) or set(state) != parts:
            raise ValueError("it is no checkpoint of this version of the package")
    except (PermissionError, MemoryError):
        raise
    except Exception as error:
        raise ArtifactError(
            f"{path} cannot be read: remove it to start anew ({_first_line(error)})"
        ) from error
    return state


def _can_be_read_back(part: dict[str, Any]) -> bool:
    """Say now whether ``torch.load(..., weights_only=True)`` would refuse it at resumption."""
    buffer = io.BytesIO()
    torch.save(part, buffer)
    buffer.seek(0)
    try:
        torch.load(buffer, weights_only=True)
    except pickle.UnpicklingError:
        return False
    return True


def _uses_cuda() -> bool:
    return bool(torch.cuda.is_initialized())


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
