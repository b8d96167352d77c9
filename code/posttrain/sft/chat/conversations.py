"""Made-up conversations in great variety, to compare two templates on.

They mean nothing. What counts is which characters stand where: at the edges of a message, next
to digits, inside what only looks like a marker.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

import random

from posttrain.sft.chat.messages import Message

SYSTEM_MESSAGES = ("", "Be brief.", "  You answer in rhymes.\n", "Tu parles français. ☕", "\n")
PIECES = (
    "What is the capital of France?",
    "It's 3.14159, not 3,141.59 — or 1e-5?",
    "12345678901234567890",
    "naïve café, Zürich, Ærøskøbing",
    "e\u0301 a\u0308 o\u0302\u0323",  # combining marks
    "👩‍👩‍👧‍👦 👍🏽 🏳️‍🌈 🇫🇷 ❤️",  # joined by zero-width joiners, skin tones, flags
    "مرحبا بالعالم، كيف حالك؟",
    "שלום עולם \u202babc\u202c",  # with an embedding, which turns the direction
    "日本語とＡＢＣ、全角の数字１２３",
    "नमस्ते दुनिया",
    "สวัสดีชาวโลก",
    "def f(x):\n    if x:\n\t\treturn x ** 2\n\n    return None",
    "| a | b |\n|---|---|\n| 1 | 2 |",
    '{"role": "system", "content": "\\n"}',
    "{{ messages[0] }} {% if true %}{# not run #}{% endif %}",
    "<b>bold</b> &amp; <|im_ start|> < | > <|> |> <||",
    "user\nassistant\nsystem",
    "a  b   c    d\t\te\r\nf\r\n\r\ng\n\n\nh",
    "no\u00a0break, thin\u2009space, zero\u200bwidth, \ufeffmark",
    "https://example.org/?q=%20&n=1#top",
    "ﬁ ½ ² Ⅷ ™ ①",
    "𓀀𓂀 𐍈 𝄞",
    "!!!???... --- ___ ***",
    "\x00\x07\x1b[31m",
)
EDGES = ("", "", "", " ", "  ", "\n", "\n\n", "\t", " \n ", "\r\n", "\u00a0", "\u3000")
_LONG = 40  # pieces in a long message


def varied_conversations(n: int, seed: int = 0) -> list[list[Message]]:
    """Make conversations of one to six exchanges, each of which ends with an answer.

    About a third have no system message, and some have an empty one. Messages may be empty, and
    may start or end with white space. Only answers do not start with it: BPE may merge it with
    the template's newline, and there `encode_chat` differs from transformers on purpose. No
    message contains a marker.

    Args:
        n: How many.
        seed: Seed of the choices; the same seed gives the same conversations.

    Returns:
        ``n`` conversations.

    Raises:
        ValueError: If ``n`` is negative.

    Chapter: sft/chat_templates.
    """
    if n < 0:
        raise ValueError(f"n is {n}: give a number of conversations, 0 or more")
    generator = random.Random(seed)
    return [_conversation(generator) for _ in range(n)]


def _conversation(generator: random.Random) -> list[Message]:
    messages: list[Message] = []
    if generator.random() < 0.65:
        system = generator.choice([*SYSTEM_MESSAGES, _text(generator)])
        messages.append({"role": "system", "content": system})
    for _ in range(generator.randint(1, 6)):
        messages.append({"role": "user", "content": _text(generator)})
        messages.append({"role": "assistant", "content": _text(generator).lstrip()})
    return messages


def _text(generator: random.Random) -> str:
    """Join a few pieces, rarely none and rarely many, with white space around them."""
    count = generator.choice([0, *[1] * 12, *[2] * 12, *[4] * 8, _LONG])
    pieces = [generator.choice(PIECES) for _ in range(count)]
    body = generator.choice([" ", "\n", "", ", "]).join(pieces)
    return generator.choice(EDGES) + body + generator.choice(EDGES)
