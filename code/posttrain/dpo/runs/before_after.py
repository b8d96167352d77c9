"""What a run on pairs has changed: the same held-out pairs and prompts before and after.

The implicit reward compares the trained model with the one that it started from. Before the
first step the two are one and every pair is a tie, so that reward has no "before". What can be
compared is whether a model by itself finds the chosen answer likelier.

Chapter: dpo/alignment.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from posttrain.core.stats import Estimate, mcnemar_exact, mean_interval, wilson_interval
from posttrain.core.storage.files import write_text_atomic
from posttrain.dpo.data.pair_formats import PairRow
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.sft.chat.messages import Message
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.runs.before_after import MOST_ANSWERS, answer_all
from posttrain.sft.runs.speaker import Speaker

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS_NAME = "answers.jsonl"


@dataclass(frozen=True)
class MeasuredPairs:
    """One model on held-out pairs.

    Attributes:
        chosen: Log-probability of each chosen answer, in nats.
        rejected: Log-probability of each rejected answer.
        answers: Greedy answer to each of the first prompts.
    """

    chosen: list[float]
    rejected: list[float]
    answers: list[str]


def held_out_prompts(rows: Sequence[PairRow]) -> list[list[Message]]:
    """List the prompts that both models answer.

    Args:
        rows: The held-out pairs.

    Returns:
        The first 100 that differ.

    Chapter: dpo/alignment.
    """
    found: dict[str, list[Message]] = {}
    for row in rows:
        found.setdefault(json.dumps(row["prompt"], ensure_ascii=False), row["prompt"])
    return list(found.values())[:MOST_ANSWERS]


def measure_speaker(
    speaker: Speaker,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[EncodedPair],
    prompts: Sequence[Sequence[Message]],
    chat_format: str,
    max_new_tokens: int = 128,
) -> MeasuredPairs:
    """Measure a model on held-out pairs.

    Args:
        speaker: The model.
        tokenizer: Its tokenizer.
        pairs: The encoded pairs.
        prompts: What it answers, each ending with a user's message.
        chat_format: The model's format.
        max_new_tokens: Longest answer, in tokens.

    Returns:
        Log-probabilities of all pairs, answers to the prompts.

    Raises:
        ValueError: If there is no pair.

    Chapter: dpo/alignment.
    """
    if not pairs:
        raise ValueError("there is nothing to measure: give at least one held-out pair")
    logps: list[list[float]] = []
    for name in ("chosen_ids", "rejected_ids"):
        answers = [getattr(pair, name) for pair in pairs]
        examples = [
            EncodedChat(
                [*pair.prompt_ids, *answer], [0] * len(pair.prompt_ids) + [1] * len(answer)
            )
            for pair, answer in zip(pairs, answers, strict=True)
        ]
        means = speaker.losses(examples)
        logps.append([-m * len(a) for m, a in zip(means, answers, strict=True)])
    unseen: Message = {"role": "assistant", "content": ""}
    asked = [[*prompt, unseen] for prompt in prompts]
    answers_given = answer_all(speaker, tokenizer, asked, chat_format, max_new_tokens)
    return MeasuredPairs(logps[0], logps[1], answers_given)


def compare_pairs(
    before: MeasuredPairs,
    after: MeasuredPairs,
    lengths: Sequence[tuple[int, int]],
    config: PreferenceLossConfig,
) -> dict[str, Any]:
    """Compare two models on the same pairs.

    Args:
        before: The reference: the model as it was before the first step.
        after: The model with the trained adapter.
        lengths: Tokens of the chosen and of the rejected answer of each pair.
        config: The loss; it says what the implicit reward is.

    Returns:
        Plain values: of the implicit reward its accuracy (a tie is half) with a Wilson interval
        and the mean margin; both log-probabilities before and after; and in how many pairs a
        model by itself finds the chosen answer likelier, with McNemar's exact p-value.

    Chapter: dpo/alignment.
    """
    n = len(after.chosen)
    rewards = [_rewards(before, after, i, lengths[i], config) for i in range(n)]
    margins = [good - bad for good, bad in rewards]
    right = sum((margin > 0) + 0.5 * (margin == 0) for margin in margins)
    accuracy = wilson_interval(round(right), n)
    likelier = [
        [c > r for c, r in zip(model.chosen, model.rejected, strict=True)]
        for model in (before, after)
    ]
    test = mcnemar_exact(*likelier)
    return {
        "pairs": n,
        "reward_accuracy": {**asdict(accuracy), "value": right / n},
        "margin": _mean(margins),
        "chosen_logps": {"before": _mean(before.chosen), "after": _mean(after.chosen)},
        "rejected_logps": {"before": _mean(before.rejected), "after": _mean(after.rejected)},
        "chosen_likelier": {
            "before": asdict(wilson_interval(sum(likelier[0]), n)),
            "after": asdict(wilson_interval(sum(likelier[1]), n)),
            "gained": test.only_b,
            "lost": test.only_a,
            "p_value": test.p_value,
        },
    }


def _rewards(
    before: MeasuredPairs,
    after: MeasuredPairs,
    index: int,
    lengths: tuple[int, int],
    config: PreferenceLossConfig,
) -> tuple[float, float]:
    """Implicit rewards of one pair; see ``posttrain.dpo.losses.rewards.implicit_rewards``."""
    ours = (after.chosen[index], after.rejected[index])
    theirs = (before.chosen[index], before.rejected[index])
    if not config.needs.reference:
        theirs = (0.0, 0.0)
    divide = lengths if config.needs_lengths else (1, 1)
    good, bad = (
        config.beta * (a - b) / tokens
        for a, b, tokens in zip(ours, theirs, divide, strict=True)
    )
    return good, bad


def _mean(values: Sequence[float]) -> dict[str, Any]:
    """A mean with its interval; of one value there is none."""
    value = sum(values) / len(values)
    if len(values) < 2:
        return asdict(Estimate(value, value, value, len(values)))
    return asdict(mean_interval(values))


def pair_comparison_lines(found: dict[str, Any]) -> list[str]:
    """Write a comparison for people.

    Args:
        found: What :func:`compare_pairs` gave.

    Returns:
        Lines of text.

    Chapter: dpo/alignment.
    """
    n, likelier = found["pairs"], found["chosen_likelier"]
    chosen, rejected = found["chosen_logps"], found["rejected_logps"]
    return [
        f"held-out pairs: {n}",
        f"reward accuracy: {_share(found['reward_accuracy'])} against the start, where every "
        f"pair is a tie; mean margin {found['margin']['value']:+.3f}",
        f"chosen answer likelier: {_share(likelier['before'])} before, "
        f"{_share(likelier['after'])} after; {likelier['gained']} gained, {likelier['lost']} "
        f"lost, p = {likelier['p_value']:.2g}",
        f"log-probability: chosen {chosen['before']['value']:.1f} before, "
        f"{chosen['after']['value']:.1f} after; rejected {rejected['before']['value']:.1f} "
        f"before, {rejected['after']['value']:.1f} after",
    ]


def _share(estimate: dict[str, Any]) -> str:
    value, low, high = (100 * estimate[name] for name in ("value", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def write_answers(
    folder: Path,
    prompts: Sequence[Sequence[Message]],
    before: MeasuredPairs,
    after: MeasuredPairs,
) -> Path:
    """Write the answers of both models side by side, for a reader or a judge.

    Args:
        folder: Gets ``answers.jsonl``, a line for each prompt: ``prompt``, as text where it is
            one question and as messages where it is more, ``before`` and ``after``.
        prompts: The prompts.
        before: The model before the first step.
        after: The model with the trained adapter.

    Returns:
        The file.

    Chapter: dpo/alignment.
    """
    rows = [
        {
            "prompt": prompt[0]["content"] if len(prompt) == 1 else list(prompt),
            "before": old,
            "after": new,
        }
        for prompt, old, new in zip(prompts, before.answers, after.answers, strict=True)
    ]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    write_text_atomic(folder / ANSWERS_NAME, "".join(lines))
    return folder / ANSWERS_NAME
