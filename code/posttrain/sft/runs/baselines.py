"""The base model at its best: told in words, and shown examples, before anything is trained.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence

from posttrain.sft.chat.template import Message


def prompted(
    conversations: Sequence[Sequence[Message]],
    *,
    system: str | None = None,
    shots: Sequence[Sequence[Message]] = (),
) -> list[list[Message]]:
    """Put an instruction and worked examples in front of each conversation.

    Args:
        conversations: Each from a user's message to an answer.
        system: What the model is told; ``None`` leaves the format's own message.
        shots: Conversations that come first, as earlier turns.

    Returns:
        The longer conversations.

    Raises:
        ValueError: If a conversation has a system message of its own and another is given.

    Chapter: sft/your_model.
    """
    head: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    earlier = [message for shot in shots for message in shot]
    for row in (*shots, *conversations):
        if row[0]["role"] == "system" and (system is not None or shots):
            raise ValueError(
                "a conversation has a system message of its own: leave it out, or give no "
                "other and no examples"
            )
    return [[*head, *earlier, *row] for row in conversations]
