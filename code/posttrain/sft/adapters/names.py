"""The names that layers have in published files.

PEFT finds a layer by the name that it has in transformers. Our GPT leaves the ``model.`` out,
wrappers of torch add parts of their own, and each family of models names its layers as it
likes: what is written to a file has to undo the first two and must leave the third alone.

Chapter: sft/lora.
"""

from __future__ import annotations

from torch import nn

from posttrain.core.training.wrappers import plain_name, unwrapped
from posttrain.pretraining.model.gpt import GPT


def published_name(model: nn.Module, name: str) -> str:
    """Say how a layer is called in transformers.

    Args:
        model: Our GPT, or any other model, which has its published names already.
        name: A layer's name in it.

    Returns:
        The name, without the parts that wrappers add.

    Chapter: sft/lora.
    """
    name = plain_name(name)
    ours = isinstance(unwrapped(model), GPT) and name and name.split(".")[0] != "lm_head"
    return f"model.{name}" if ours else name


def ends_with(name: str, part: str) -> bool:
    """Compare the last parts of a name, between the dots.

    Args:
        name: A layer's name.
        part: Its last parts, or all of it.

    Returns:
        Whether the name ends so.

    Chapter: sft/lora.
    """
    return f".{name}".endswith(f".{part}")
