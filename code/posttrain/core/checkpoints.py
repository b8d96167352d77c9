"""Checkpoints that hold all that the next step depends on.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import nn

from posttrain.core.errors import ArtifactError
from posttrain.core.files import atomic_path
from posttrain.core.optimization import TrainingConfig

BatchT_co = TypeVar("BatchT_co", covariant=True)
CHECKPOINT_NAME = "checkpoint.pt"


class BatchSource(Protocol[BatchT_co]):
    """Endless batches that know where they are, so that a resumed run sees what follows."""

    def __next__(self) -> BatchT_co:
        """Return the next micro-batch."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the position, as tensors and plain values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position."""
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


def save_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: BatchSource[Any],
    config: TrainingConfig,
    history: History,
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

    Chapter: pretraining/training_dynamics.
    """
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    numpy_state["state"]["key"] = torch.from_numpy(numpy_state["state"]["key"].astype(np.int64))
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "batches": batches.state_dict(),
        "rng": {"torch": torch.get_rng_state(), "python": random.getstate(), "numpy": numpy_state},
        "config": asdict(config),
        "history": asdict(history),
    }
    with atomic_path(folder / CHECKPOINT_NAME) as temporary:
        torch.save(state, temporary)


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: BatchSource[Any],
    config: TrainingConfig,
) -> History | None:
    """Put everything back as :func:`save_checkpoint` found it.

    Args:
        folder: Where ``checkpoint.pt`` is looked for.
        model: Gets the weights and buffers.
        optimizer: Gets the moments.
        batches: Gets the position in the data.
        config: Must equal the stored one.

    Returns:
        The steps so far, or ``None`` where the folder has no checkpoint.

    Raises:
        ArtifactError: If the checkpoint was made with another configuration.

    Chapter: pretraining/training_dynamics.
    """
    path = folder / CHECKPOINT_NAME
    if not path.is_file():
        return None
    state = torch.load(path, weights_only=True)
    if state["config"] != asdict(config):
        changed = sorted(k for k, v in asdict(config).items() if state["config"].get(k) != v)
        raise ArtifactError(
            f"{path} was made with another configuration ({', '.join(changed)} differ): "
            "remove it to start anew, or go on with the old one"
        )
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    batches.load_state_dict(state["batches"])
    torch.set_rng_state(state["rng"]["torch"])
    random.setstate(state["rng"]["python"])
    numpy_state = state["rng"]["numpy"]
    numpy_state["state"]["key"] = numpy_state["state"]["key"].numpy().astype(np.uint32)
    np.random.set_state(numpy_state)
    return History(**state["history"])
