"""What padding costs, and what sorting and packing save of it.

The same conversations, short ones of the task among long general ones, go through the same
model in the same batches' sizes, laid out in three ways: padded in an order by chance, padded
and sorted by length, packed without padding. The three sum up the same losses, so what differs
is time alone.

A padded batch is made here as a packed one whose documents carry their padding with them:
every product then sees the padding, as in a table.

Chapter: sft/your_model.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.adapters.injection import inject_lora
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.data.dataset import build_dataset
from posttrain.sft.data.forgetting import general_chats
from posttrain.sft.presets import CPU
from posttrain.sft.training.evaluation import encode_rows, tokenizer_of
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packing import by_length, pack
from posttrain.sft.training.run import base_model

SHORT, LONG = 48, 16
BATCH = 8
LAYOUTS = ("padded", "sorted", "packed")

CONFIG: dict[str, Any] = {
    "preset": asdict(CPU), "short": SHORT, "long": LONG, "batch": BATCH, "layouts": LAYOUTS,
}  # fmt: skip


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the choice of conversations and of their order.

    Returns:
        One part for each seed; it runs all layouts, one after the other.
    """
    return [{"seed": seed} for seed in seeds]


def padded(examples: Sequence[EncodedChat], pad_token_id: int) -> list[EncodedChat]:
    """Fill a batch with padding on the right, to its longest row.

    Args:
        examples: The conversations of one batch.
        pad_token_id: Fills the rows; it is never trained.

    Returns:
        Conversations of one length.
    """
    longest = max(len(example.input_ids) for example in examples)
    filled = []
    for example in examples:
        gap = longest - len(example.input_ids)
        filled.append(
            EncodedChat(
                [*example.input_ids, *[pad_token_id] * gap],
                [*example.assistant_mask, *[0] * gap],
            )
        )
    return filled


def batches_of(
    layout: str, examples: Sequence[EncodedChat], batch_size: int, pad_token_id: int, seed: int
) -> list[list[EncodedChat]]:
    """Lay conversations out in one of three ways.

    Args:
        layout: One of :data:`LAYOUTS`.
        examples: The conversations.
        batch_size: Conversations of a batch.
        pad_token_id: Fills the rows.
        seed: Seed of the order.

    Returns:
        The batches; packed ones are those of the order by chance.

    Raises:
        ValueError: If the layout is none of these.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"there is no layout {layout!r}: choose one of {', '.join(LAYOUTS)}")
    order = random.Random(seed).sample(list(examples), len(examples))
    if layout == "sorted":
        order = by_length(order, batch_size, seed)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    return batches if layout == "packed" else [padded(b, pad_token_id) for b in batches]


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Take the gradients of all batches in each layout, and time it.

    Args:
        part: One of :func:`parts`.

    Returns:
        A row for each layout: ``positions`` computed, ``tokens`` that are no padding,
        ``loss``, the sum in nats, ``seconds``, and ``seconds_cpu``, which other programs on
        the machine hardly change.
    """
    tokenizer, seed = tokenizer_of(CPU.model), part["seed"]
    task = random.Random(seed).sample(build_dataset()["train"], SHORT)
    general = random.Random(seed).sample(general_chats(tokenizer), LONG)
    examples = encode_rows(task, tokenizer, CPU.max_length, CPU.chat_format) + general
    tokens = sum(len(example.input_ids) for example in examples)
    model = base_model(CPU)
    inject_lora(model, CPU.lora, seed)
    _pass(model, [examples[:2]])  # the first products of a process are slower
    rows = []
    for layout in LAYOUTS:
        batches = batches_of(layout, examples, BATCH, 0, seed)
        started, cpu = time.perf_counter(), time.process_time()
        loss = _pass(model, batches)
        rows.append(
            {
                **part,
                "layout": layout,
                "positions": sum(len(x.input_ids) for batch in batches for x in batch),
                "tokens": tokens,
                "loss": float(f"{loss:.6g}"),
                "seconds": round(time.perf_counter() - started, 2),
                "seconds_cpu": round(time.process_time() - cpu, 2),
            }
        )
    return rows


def _pass(model: GPT, batches: Sequence[Sequence[EncodedChat]]) -> float:
    total = 0.0
    for batch in batches:
        model.zero_grad()
        loss, _ = sft_loss(model, pack(batch))
        loss.backward()
        total += float(loss.detach())
    return total
