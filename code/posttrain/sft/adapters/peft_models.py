"""PEFT's own models: an adapter of theirs or ours on a transformers model, all of it or none.

Where a file's names do not fit, PEFT warns and goes on, with layers whose update is zero. A
model that has lost a part of its adapter answers nearly as the base model does.

Chapter: sft/your_model.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.sft.adapters.files import WEIGHTS_NAME, read_adapter_config, read_adapter_weights
from posttrain.sft.adapters.lora import LoRAConfig

if TYPE_CHECKING:
    from peft import PeftModel


def load_peft_adapter(model: Any, folder: str | Path, *, trainable: bool = False) -> PeftModel:
    """Put the adapter of a folder on a transformers model.

    Args:
        model: A transformers model without adapters.
        folder: What PEFT or ``save_adapter`` wrote.
        trainable: Whether it is to be trained further.

    Returns:
        PEFT's model.

    Raises:
        AssetError: If a file is missing or damaged.
        ValueError: If a weight of the file has no place in the model, or the other way round.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    from peft import PeftModel

    folder = Path(folder)
    names = set(read_adapter_weights(folder))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Found missing adapter keys")
        tuned = PeftModel.from_pretrained(model, str(folder), is_trainable=trainable)
    check_peft_names(tuned, names, folder)
    return tuned


def check_peft_names(model: Any, names: set[str], folder: Path) -> None:
    """Compare the weights of PEFT's adapter with those of a file, both ways.

    Args:
        model: PEFT's model.
        names: Names of the weights in the file.
        folder: Where the file lies, for the message.

    Raises:
        ValueError: If they differ.

    Chapter: sft/your_model.
    """
    from peft import get_peft_model_state_dict

    own = set(get_peft_model_state_dict(model, save_embedding_layers=False))
    strange = names - own - set(model.state_dict())  # embeddings may be saved beside an adapter
    for kind, differing in (("lacks", own - names), ("holds what fits nothing:", strange)):
        if differing:
            raise ValueError(
                f"{folder / WEIGHTS_NAME} {kind} {min(differing)}, of {len(differing)} weights "
                "in all: the adapter belongs to another model, or to other layers of it"
            )


def check_same_adapter(folder: Path, config: LoRAConfig) -> None:
    """Refuse to start from an adapter that is not what the settings say.

    Args:
        folder: The adapter to start from.
        config: What is to be trained.

    Raises:
        AssetError: If the folder holds no adapter.
        ValueError: If rank, scale, dropout, kind, layers or blocks differ: one of the two would
            be ignored.

    Chapter: sft/your_model.
    """  # noqa: DOC502, DOC503
    given = read_adapter_config(folder)
    for name, value in given.items():
        wanted = getattr(config, name)
        if name == "target_modules":
            if isinstance(value, str):
                continue  # a pattern: the layers are compared by name when it is loaded
            value, wanted = sorted(value), sorted(wanted)
        elif isinstance(value, list):
            value = tuple(value)
        if value != wanted:
            raise ValueError(
                f"{name} is {value!r} in the adapter of {folder} and {wanted!r} in the "
                "settings: give the same, or start without that adapter"
            )
