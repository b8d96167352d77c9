"""Several questions in one conversation: train on all answers, or on the last one alone?

Some recipes cut a conversation at each answer and train the last one only. The earlier answers
are then read, and paid for, without being learned from. Three runs see the same 480 questions:
in conversations of four with all answers trained, in the same conversations with the last
answer trained, and each question by itself.

Each model then answers test questions by themselves, and as the fourth of a conversation.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from posttrain.sft.chat.messages import Message
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.data.dataset import Row, build_dataset
from posttrain.sft.practice.tuning import digits, steps_of, tuned
from posttrain.sft.presets import CPU, SFTPreset
from posttrain.sft.training.evaluation import encode_rows, right_in_first_line, tokenizer_of

QUESTIONS, TURNS = 480, 4
IN_CONVERSATION = 160  # test questions that are asked as the last of a conversation
WAYS = ("all answers", "last answer", "one question each")
MAX_LENGTH = 4 * CPU.max_length

PRESET = replace(CPU, name="turns", max_length=MAX_LENGTH)

CONFIG: dict[str, Any] = {
    "preset": asdict(PRESET),
    "questions": QUESTIONS,
    "turns": TURNS,
    "ways": WAYS,
    "in_conversation": IN_CONVERSATION,
}


def parts(seeds: Sequence[int]) -> list[dict[str, Any]]:
    """List the settings.

    Args:
        seeds: Seeds of the adapter and of the order of the rows.

    Returns:
        One part for each way and seed.
    """
    return [{"way": way, "seed": seed} for way in WAYS for seed in seeds]


def joined(rows: Sequence[Row], *, only_last: bool = False) -> list[Message]:
    """Make one conversation of several.

    Args:
        rows: Rows with a system message, a question and an answer each; the system message is
            that of the first.
        only_last: Give every answer but the last the weight 0.

    Returns:
        The messages.
    """
    messages = [rows[0]["messages"][0]]
    for row in rows:
        question, answer = row["messages"][1:]
        untrained = only_last and row is not rows[-1]
        messages += [question, {**answer, "weight": 0} if untrained else answer]
    return messages


def examples_for(way: str, rows: Sequence[Row]) -> tuple[list[EncodedChat], SFTPreset]:
    """Encode the same questions in one of the ways.

    Args:
        way: One of :data:`WAYS`.
        rows: The questions with their answers.

    Returns:
        Conversations, and the preset that reads 16 questions at a step, each of them once.

    Raises:
        ValueError: If the way is none of these.
    """
    if way not in WAYS:
        raise ValueError(f"there is no way {way!r}: choose one of {', '.join(WAYS)}")
    tokenizer, preset = tokenizer_of(PRESET.model), PRESET
    conversations: list[Any] = list(rows)
    if way != WAYS[2]:
        groups = [rows[i : i + TURNS] for i in range(0, len(rows) - TURNS + 1, TURNS)]
        conversations = [
            {"messages": joined(group, only_last=way == WAYS[1])} for group in groups
        ]
        preset = replace(PRESET, batch_size=PRESET.batch_size // TURNS)
    examples = encode_rows(conversations, tokenizer, MAX_LENGTH, PRESET.chat_format)
    return examples, steps_of(preset, len(examples))


def run(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Train in one way, and ask the test questions in both.

    Args:
        part: One of :func:`parts`.

    Returns:
        One row: ``alone`` and ``fourth``, a digit for each test question; ``read`` and
        ``trained``, tokens of one pass; ``steps``, ``diverged``, ``seconds``.
    """
    data, tokenizer = build_dataset(), tokenizer_of(PRESET.model)
    examples, preset = examples_for(part["way"], data["train"][:QUESTIONS])
    model, history, diverged = tuned(preset, examples, part["seed"])
    test, before = data["test"], data["validation"]
    some = test[:IN_CONVERSATION]
    asked = [
        joined([*(before[(3 * i + k) % len(before)] for k in range(TURNS - 1)), row])[:-1]
        for i, row in enumerate(some)
    ]
    form = PRESET.chat_format
    return [
        {
            **part,
            "alone": digits(right_in_first_line(model, tokenizer, test, form)),
            "fourth": digits(right_in_first_line(model, tokenizer, some, form, asked=asked)),
            "read": sum(len(example.input_ids) for example in examples),
            "trained": sum(sum(example.assistant_mask) for example in examples),
            "steps": len(history.loss),
            "diverged": diverged,
            "seconds": round(history.seconds, 1),
        }
    ]
