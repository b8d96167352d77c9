"""What fine-tuning makes worse: text and conversations that have nothing to do with its data.

Chapter: sft/fine_tuning.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from posttrain.core.assets import load_text
from posttrain.core.errors import AssetError
from posttrain.core.storage.paths import package_folder
from posttrain.sft.chat.template import EncodedChat, encode_chat

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_CHATS = "tasks/mmlu/flan_cot_fewshot"


def play_windows(
    tokenizer: PreTrainedTokenizerBase, count: int, tokens: int = 160
) -> list[EncodedChat]:
    """Cut windows, spread evenly, out of the plays that Stage 0 holds out.

    Args:
        tokenizer: The model's tokenizer.
        count: Number of windows.
        tokens: Length of a window.

    Returns:
        Plain text, every token but the first to be predicted.

    Raises:
        ValueError: If the plays are too short for so many windows.

    Chapter: sft/fine_tuning.
    """
    ids = tokenizer.encode(load_text("shakespeare", "validation"), add_special_tokens=False)
    if count < 1 or count * tokens > len(ids):
        raise ValueError(
            f"{count} windows of {tokens} tokens do not fit into {len(ids)} tokens: ask for "
            "fewer or shorter ones"
        )
    stride = (len(ids) - tokens) // count
    mask = [0] + [1] * (tokens - 1)
    return [EncodedChat(ids[i * stride :][:tokens], mask) for i in range(count)]


def general_chats(
    tokenizer: PreTrainedTokenizerBase,
    count: int | None = None,
    *,
    max_length: int = 320,
    seed: int = 0,
) -> list[EncodedChat]:
    """Take questions of 57 school and university subjects, with answers that explain.

    They are the worked examples that lm-eval brings for MMLU (Hendrycks et al., 2021), with the
    chains of thought of Chung et al. (2022), in another style than the one that is trained
    here.

    Args:
        tokenizer: The model's tokenizer.
        count: Number of conversations; all of them where it is left out.
        max_length: Longer ones are left out, in tokens.
        seed: Seed of the choice.

    Returns:
        Conversations of one question and one answer.

    Raises:
        AssetError: If lm-eval is not installed, or its files are not where they were.
        ValueError: If there are not so many conversations.

    Chapter: sft/fine_tuning.
    """
    import yaml

    package = package_folder("lm_eval")
    files = sorted((package / _CHATS).glob("mmlu_*.yaml")) if package else []
    if not files:
        raise AssetError(
            "lm-eval's MMLU examples are not here. Run: pip install --no-deps lm-eval==0.4.13"
        )
    samples = [
        sample
        for file in files
        for sample in yaml.safe_load(file.read_text("utf-8"))["fewshot_config"]["samples"]
    ]
    random.Random(seed).shuffle(samples)
    chats = []
    for sample in samples:
        chat = encode_chat(
            [
                {"role": "user", "content": sample["question"].strip()},
                {"role": "assistant", "content": sample["target"].strip()},
            ],
            tokenizer,
        )
        if len(chat.input_ids) <= max_length:
            chats.append(chat)
    if count is not None and not 1 <= count <= len(chats):
        raise ValueError(f"count is {count}: give 1 to {len(chats)}, which is all there are")
    return chats[:count]
