"""reasoning-gym behind two functions: the instances of a kind, and the verdict on an answer.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
import types
from collections.abc import Iterator
from typing import Any

from posttrain.core.errors import AssetError
from posttrain.sft.data.tasks import BY_NAME, KINDS, Kind

REQUIREMENT = "reasoning-gym==0.1.25"
POOL = 1_000_000
"""Instances that a kind may look through, and the distance between two seeds."""


def entries(kind: Kind, seed: int) -> Iterator[dict[str, Any]]:
    """Give the instances of a kind that the data set can use, in a fixed order.

    reasoning-gym seeds instance i with its data set's seed plus i. Seeds that are neighbors
    would therefore share nearly all instances, and kinds with one seed their numbers; here each
    kind and each seed has a stretch of its own.

    Args:
        kind: The kind.
        seed: Seed of the data set, 0 or above.

    Yields:
        reasoning-gym's entries that the kind wants.

    Raises:
        AssetError: If reasoning-gym cannot be imported.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    first = (seed * len(KINDS) + KINDS.index(kind)) * POOL
    made = _reasoning_gym().create_dataset(
        kind.dataset, size=POOL, seed=first, **kind.arguments
    )
    yield from (entry for entry in made if kind.wanted(entry["metadata"]))


def accepts(kind: Kind, answer: str, entry: dict[str, Any]) -> bool:
    """Let reasoning-gym's verifier judge an answer.

    Only its full mark counts: some verifiers give a part of it to an answer that is near.

    Args:
        kind: The kind.
        answer: The answer alone, as people write it.
        entry: The entry that it answers.

    Returns:
        True where the answer is right.

    Raises:
        AssetError: If reasoning-gym cannot be imported.

    Chapter: sft/fine_tuning.
    """  # noqa: DOC502
    written = kind.read(answer.strip(), entry["metadata"])
    if written is None:
        return False
    return float(_verifier(kind.name).score_answer(written, entry)) >= 1.0


@functools.cache
def _verifier(name: str) -> Any:
    kind = BY_NAME[name]
    return _reasoning_gym().create_dataset(kind.dataset, size=1, seed=0, **kind.arguments)


@functools.cache
def _reasoning_gym() -> Any:
    """Import reasoning-gym, with or without pycosat.

    pycosat has no wheel, and only the zebra puzzles call it. Where it is missing, an empty
    module takes its place during the import.
    """
    missing = "pycosat" not in sys.modules and importlib.util.find_spec("pycosat") is None
    if missing:
        sys.modules["pycosat"] = types.ModuleType("pycosat")
    try:
        return importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise AssetError(
            f"reasoning-gym could not be imported ({error}). Run: pip install --no-deps "
            f"{REQUIREMENT}; requirements.lock names what it needs"
        ) from error
    finally:
        if missing:
            del sys.modules["pycosat"]
