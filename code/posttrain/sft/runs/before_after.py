"""What a run has changed: the same held-out rows before and after, compared row by row.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from posttrain.core.stats import (
    Estimate,
    mcnemar_exact,
    mean_interval,
    paired_bootstrap,
    wilson_interval,
)
from posttrain.sft.chat.formats import format_named
from posttrain.sft.chat.template import EncodedChat, Message, encode_chat, special_tokens
from posttrain.sft.runs.speaker import Speaker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MOST_ANSWERS = 100  # held-out rows that are answered; losses are measured on all


@dataclass(frozen=True)
class Measured:
    """One model on held-out rows.

    Attributes:
        losses: Mean loss per trained token of each row, in nats.
        answers: Greedy answer to each of the first rows.
        expected: What stands in those rows.
    """

    losses: list[float]
    answers: list[str]
    expected: list[str]

    @property
    def exact(self) -> list[bool]:
        """Whether each answer is the row's, white space aside."""
        return same_answers(self.answers, self.expected)


def measure(
    speaker: Speaker,
    tokenizer: PreTrainedTokenizerBase,
    examples: Sequence[EncodedChat],
    conversations: Sequence[Sequence[Message]],
    chat_format: str,
    max_new_tokens: int = 128,
) -> Measured:
    """Measure a model on held-out rows.

    Args:
        speaker: The model.
        tokenizer: Its tokenizer.
        examples: The rows, encoded for training.
        conversations: The same rows as messages; the last answer is what is asked for.
        chat_format: The model's format.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        Losses of all rows, answers to the first 100.

    Raises:
        ValueError: If there is no row.

    Chapter: sft/your_model.
    """
    if not examples:
        raise ValueError("there is no held-out row to measure: hold some out")
    asked = conversations[:MOST_ANSWERS]
    answers = answer_all(speaker, tokenizer, asked, chat_format, max_new_tokens)
    expected = [row[-1]["content"] for row in asked]
    return Measured(speaker.losses(examples), answers, expected)


def answer_all(
    speaker: Speaker,
    tokenizer: PreTrainedTokenizerBase,
    conversations: Sequence[Sequence[Message]],
    chat_format: str,
    max_new_tokens: int = 128,
) -> list[str]:
    """Let a model give the last answer of each conversation, greedily.

    Args:
        speaker: The model.
        tokenizer: Its tokenizer.
        conversations: Each ends with an answer, which the model does not see.
        chat_format: The model's format.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        One text for each conversation.

    Chapter: sft/your_model.
    """
    stop = special_tokens(tokenizer, chat_format)[format_named(chat_format).stop_token]
    prompts = [
        encode_chat(row[:-1], tokenizer, chat_format, add_generation_prompt=True).input_ids
        for row in conversations
    ]
    found = speaker.answers(prompts, stop, max_new_tokens)
    return tokenizer.batch_decode(found, skip_special_tokens=True)


def same_answers(answers: Sequence[str], expected: Sequence[str]) -> list[bool]:
    """Say which answers are the expected ones, white space aside.

    Args:
        answers: What a model wrote.
        expected: What was wanted, in the same order.

    Returns:
        True where the two are the same.

    Chapter: sft/your_model.
    """
    return [a.split() == b.split() for a, b in zip(answers, expected, strict=True)]


def compare(before: Measured, after: Measured) -> dict[str, Any]:
    """Compare two models on the same rows.

    Args:
        before: The model without the adapter.
        after: The model with it.

    Returns:
        Plain values: of the loss both means with their 95 % intervals over the rows, the mean
        change and its interval, and the p-value of a paired bootstrap; of exact answers both
        rates with Wilson intervals, and McNemar's exact p-value. With one row, no interval.

    Chapter: sft/your_model.
    """
    n = len(before.losses)
    loss: dict[str, Any] = {"before": sum(before.losses) / n, "after": sum(after.losses) / n}
    if n > 1:
        change = paired_bootstrap(before.losses, after.losses)
        loss |= {
            "before": _estimate(mean_interval(before.losses)),
            "after": _estimate(mean_interval(after.losses)),
            "change": asdict(change),
        }
    rates = [wilson_interval(sum(m.exact), len(m.exact)) for m in (before, after)]
    test = mcnemar_exact(before.exact, after.exact)
    exact = {
        "before": _estimate(rates[0]),
        "after": _estimate(rates[1]),
        "gained": test.only_b,
        "lost": test.only_a,
        "p_value": test.p_value,
    }
    return {"rows": n, "loss": loss, "exact": exact}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return asdict(estimate)


def comparison_lines(found: dict[str, Any]) -> list[str]:
    """Write a comparison for people.

    Args:
        found: What :func:`compare` gave.

    Returns:
        Lines of text.

    Chapter: sft/your_model.
    """
    n, loss, exact = found["rows"], found["loss"], found["exact"]
    lines = [f"held-out rows: {n} ({exact['before']['n']} answered)"]
    if "change" in loss:
        change = loss["change"]
        lines.append(
            f"loss per token: {_shown(loss['before'])} before, {_shown(loss['after'])} after; "
            f"change {change['value']:+.3f} [{change['low']:+.3f}, {change['high']:+.3f}], "
            f"p = {change['p_value']:.2g}"
        )
    else:
        lines.append(f"loss per token: {loss['before']:.3f} before, {loss['after']:.3f} after")
    lines.append(
        f"exact answers: {_shown(exact['before'], share=True)} before, "
        f"{_shown(exact['after'], share=True)} after; {exact['gained']} gained, "
        f"{exact['lost']} lost, p = {exact['p_value']:.2g}"
    )
    return lines


def _shown(estimate: dict[str, Any], *, share: bool = False) -> str:
    scale, digits, unit = (100, 0, " %") if share else (1, 3, "")
    value, low, high = (scale * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"
