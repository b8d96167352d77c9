"""Models inside wrappers: what torch puts around a model must not reach names in files.

``torch.compile``, ``DataParallel`` and ``DistributedDataParallel`` hold the model as a part of
theirs, so that ``layers.0`` becomes ``_orig_mod.layers.0`` or ``module.layers.0``. A file with
such names loads nowhere, or loads as if the weights were missing.

Chapter: sft/your_model.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

Module = TypeVar("Module", bound=nn.Module)
_INSIDE = {"_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"}


def unwrapped(model: Module) -> Module:
    """Return the model inside all wrappers.

    Args:
        model: A model, compiled or wrapped for several devices or not.

    Returns:
        The model with its own names; it shares all weights with the one that was given.

    Chapter: sft/your_model.
    """
    inner: nn.Module = model
    while True:
        if isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif isinstance(inner, torch._dynamo.OptimizedModule):
            inner = inner._orig_mod
        else:
            return inner  # type: ignore[return-value]


def plain_name(name: str) -> str:
    """Drop the parts of a name that wrappers around single layers put in.

    Args:
        name: Of a module or a parameter, as ``named_modules`` gives it.

    Returns:
        The name without them.

    Chapter: sft/your_model.
    """
    return ".".join(part for part in name.split(".") if part not in _INSIDE)
