"""What a stored run is: all that decides its result, in values that a file can hold.

A checkpoint that does not know its run is taken for another's: with other data, another batch
size or another scale of the adapter its weights still fit. So everything goes in, and a run
goes on only where all of it is the same.

Chapter: sft/your_model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from posttrain.core.arguments import shortened
from posttrain.core.training.optimization import TrainingConfig
from posttrain.core.training.wrappers import plain_name, unwrapped

_SAMPLED = 1024  # numbers of each weight that count: another model differs in nearly all
_SHOWN = 3  # values in a message


def run_identity(
    model: nn.Module, config: TrainingConfig, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Say what decides a run beside its settings and its batches.

    Args:
        model: Its class, what of it is trained, and its frozen weights count.
        config: What it leaves to the machine counts as it is here.
        given: What else decides, by name: plain values, dataclasses, dtypes or paths.

    Returns:
        Numbers, texts, lists and dicts of them.

    Raises:
        TypeError: If a value is none of these.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    model = unwrapped(model)
    trained = [
        f"{plain_name(name)} {parameter.dtype}"
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    ]
    return {
        "model class": type(model).__qualname__,
        "trained parameters": hashlib.sha256("\n".join(trained).encode()).hexdigest(),
        "frozen weights": frozen_digest(model),
        "bf16": config.use_bf16,
        **{str(name): _plain(value, str(name)) for name, value in (given or {}).items()},
    }


@torch.no_grad()
def frozen_digest(model: nn.Module) -> str:
    """Hash what training leaves as it is: names, shapes, types, and a sample of the numbers.

    1,024 numbers of each weight are read, evenly spread: two models of one shape differ in
    nearly all of them, so this tells them apart in a moment. Weights in 4 bits count too.

    Args:
        model: A model; its trainable parameters do not count.

    Returns:
        A SHA-256, in hexadecimal; the same wherever the model lies.

    Chapter: sft/your_model.
    """
    digest = hashlib.sha256()
    for name, weight in _frozen(unwrapped(model)):
        digest.update(f"{plain_name(name)} {tuple(weight.shape)} {weight.dtype}\n".encode())
        flat = weight.reshape(-1)
        sample = flat[:: max(1, len(flat) // _SAMPLED)].cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _frozen(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Frozen parameters, and buffers of bytes: other buffers may follow the training."""
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            yield name, parameter.data
    for name, buffer in model.named_buffers():
        if buffer.dtype == torch.uint8:
            yield name, buffer


def tensor_digest(tensor: Tensor) -> str:
    """Hash all numbers of a tensor, with its shape and type.

    Args:
        tensor: Any tensor.

    Returns:
        A SHA-256, in hexadecimal.

    Chapter: sft/your_model.
    """
    digest = hashlib.sha256(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
    if tensor.numel():
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def differences(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Say in a few words what differs between two identities.

    Args:
        stored: One, as it was kept.
        ours: The other.

    Returns:
        Such as ``"batch_size, lora.r differ"``; empty where nothing does.

    Chapter: sft/your_model.
    """
    names = _different(stored, ours)
    return f"{', '.join(names)} differ" if names else ""


def stored_values(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    """Show the stored values of what differs, so that the old run can be gone on with.

    Args:
        stored: One identity, as it was kept.
        ours: The other.

    Returns:
        Such as ``"batch_size=8, lora.r=4"``; a few of them where there are many.

    Chapter: sft/your_model.
    """
    flat, names = _flat(stored), _different(stored, ours)
    shown = [f"{name}={shortened(flat.get(name), 24)}" for name in names[:_SHOWN]]
    return ", ".join([*shown, *["…"] * (len(names) > _SHOWN)])


def require_same(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Refuse a state that belongs to something else.

    Args:
        stored: What was kept.
        ours: What is here; only its names are compared.

    Raises:
        ValueError: If a value differs or is missing.

    Chapter: sft/your_model.
    """
    known = {name: stored.get(name) for name in ours}
    if found := differences(known, ours):
        raise ValueError(f"{found} from what is stored: {stored_values(known, ours)}")


def _different(stored: Mapping[str, Any], ours: Mapping[str, Any]) -> list[str]:
    one, other, missing = _flat(stored), _flat(ours), object()
    return [
        name
        for name in sorted({*one, *other})
        if _unequal(one.get(name, missing), other.get(name, missing))
    ]


def _unequal(a: Any, b: Any) -> bool:
    return bool(a != b) and (a == a or b == b)  # NaN equals NaN here


def _flat(values: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Lay nested dicts out, with dots between the names; tuples become lists."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = list(value) if isinstance(value, tuple) else value
    return found


def _plain(value: Any, name: str) -> Any:
    """Turn a value into numbers, texts, lists and dicts."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    if isinstance(value, torch.dtype | torch.device | Path):
        return str(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = asdict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part, f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, name) for part in value]
    raise TypeError(
        f"{name} is {shortened(value)} and cannot be part of an identity: give numbers, texts, "
        "lists, dicts or dataclasses of them"
    )
