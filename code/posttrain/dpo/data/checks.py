"""Questions to ask of preference pairs: what length gives away, repeats, leaks, and labels.

A model that is trained on pairs learns whatever tells the chosen answer from the rejected one.
Where length alone does, it learns to be long, whatever the pairs were meant to teach.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from posttrain.core.stats import (
    Estimate,
    PairedDifference,
    paired_bootstrap,
    wilson_interval,
)
from posttrain.dpo.data.pair_formats import PairRow, answer_text
from posttrain.sft.data.duplicates import Leak, find_leaks, in_words, normalize
from posttrain.sft.data.hub import ChatRow
from posttrain.sft.data.own_rows import questions_of

_Z = 1.959963984540054  # 97.5 % of a normal distribution lie below it


def count_words(text: str) -> int:
    """Count what stands between white space.

    Args:
        text: Any text.

    Returns:
        The number of words.

    Chapter: dpo/preference_data.
    """
    return len(text.split())


# --- length ---


@dataclass(frozen=True)
class PairLengths:
    """How long chosen answers are against rejected ones.

    Attributes:
        unit: What is counted, such as "words".
        difference: Mean of chosen minus rejected, in that unit, over all pairs.
        longer: Share of the pairs of which the chosen answer is the longer one; of all pairs.
        same: Number of pairs of which both answers are equally long.
        longer_wins: How often "the longer answer is the chosen one" is right, over the pairs
            that differ in length; None where none does.
        warning: One sentence where length alone predicts the label, else None.
    """

    unit: str
    difference: PairedDifference
    longer: Estimate
    same: int
    longer_wins: Estimate | None
    warning: str | None

    def __repr__(self) -> str:
        text = (
            f"chosen - rejected: {self.difference} {self.unit}; chosen is longer in "
            f"{self.longer}; {self.same:,} equally long"
        )
        return text if self.warning is None else f"{text}; {self.warning}"


def pair_lengths(
    chosen: Sequence[int], rejected: Sequence[int], *, unit: str = "words", seed: int = 0
) -> PairLengths:
    """Compare the lengths of the two answers of each pair.

    Length is said to predict the label where the interval of "the longer wins" excludes one
    half. With few pairs that is a weak test: look at the interval too.

    Args:
        chosen: Length of each chosen answer.
        rejected: Length of each rejected answer, in the same order.
        unit: What is counted.
        seed: Seed of the bootstrap.

    Returns:
        The comparison.

    Raises:
        ValueError: If there are fewer than two pairs, the numbers differ, or a length is
            negative.

    Chapter: dpo/preference_data.
    """
    n = len(chosen)
    if n < 2 or len(rejected) != n or min(*chosen, *rejected) < 0:
        raise ValueError(
            f"there are {n} and {len(rejected)} lengths: give those of both answers for at "
            "least two pairs, each 0 or more"
        )
    longer = sum(c > r for c, r in zip(chosen, rejected, strict=True))
    same = sum(c == r for c, r in zip(chosen, rejected, strict=True))
    wins = wilson_interval(longer, n - same) if same < n else None
    warning = None
    if wins is not None and not wins.low <= 0.5 <= wins.high:
        longer_is = wins.low > 0.5
        which, right = ("longer", wins.value) if longer_is else ("shorter", 1 - wins.value)
        warning = (
            f"length alone predicts the label: the {which} answer is the chosen one in "
            f"{right:.0%} of {wins.n:,} pairs, so training will teach length too"
        )
    return PairLengths(
        unit=unit,
        difference=paired_bootstrap(rejected, chosen, method="percentile", seed=seed),
        longer=wilson_interval(longer, n),
        same=same,
        longer_wins=wins,
        warning=warning,
    )


def answer_lengths(
    pairs: Sequence[PairRow], measure: Callable[[str], int] = count_words
) -> tuple[list[int], list[int]]:
    """Measure both answers of each pair.

    Args:
        pairs: The pairs.
        measure: Returns the length of a text.

    Returns:
        Lengths of the chosen answers and of the rejected ones.

    Chapter: dpo/preference_data.
    """
    return (
        [measure(answer_text(pair, "chosen")) for pair in pairs],
        [measure(answer_text(pair, "rejected")) for pair in pairs],
    )


# --- repeats ---


@dataclass(frozen=True)
class PairRepeats:
    """Pairs that say again, or deny, what another pair says.

    Attributes:
        repeated: Earlier and later index of pairs that are the same but for case, space and
            punctuation.
        contradicted: Indices of two pairs with the same prompt, of which one prefers what the
            other rejects.
        same_prompt: Number of pairs whose prompt an earlier pair has too.
    """

    repeated: list[tuple[int, int]]
    contradicted: list[tuple[int, int]]
    same_prompt: int


def find_repeats(pairs: Sequence[PairRow]) -> PairRepeats:
    """Look for pairs that repeat or contradict an earlier one.

    Args:
        pairs: The pairs.

    Returns:
        What was found.

    Chapter: dpo/preference_data.
    """
    seen: dict[tuple[str, str, str], int] = {}
    prompts: Counter[str] = Counter()
    repeated, contradicted = [], []
    [asked] = prompts_of(pairs)
    for index, (pair, question) in enumerate(zip(pairs, asked, strict=True)):
        prompt = _key(question)
        chosen, rejected = (_key(answer_text(pair, name)) for name in ("chosen", "rejected"))
        prompts[prompt] += 1
        if (same := seen.get((prompt, chosen, rejected))) is not None:
            repeated.append((same, index))
        if (reverse := seen.get((prompt, rejected, chosen))) is not None:
            contradicted.append((reverse, index))
        seen.setdefault((prompt, chosen, rejected), index)
    return PairRepeats(repeated, contradicted, len(pairs) - len(prompts))


def find_prompt_leaks(
    splits: Mapping[str, Sequence[PairRow]], threshold: float = 1.0
) -> list[Leak]:
    """Find prompts that two splits share.

    Args:
        splits: The pairs of each split, training first.
        threshold: As in `find_leaks`, which does the search.

    Returns:
        The prompts that lie in different splits; empty where nothing leaks.

    Raises:
        ValueError: If the threshold is out of its range.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502
    texts = [[in_words(text) for text in part] for part in prompts_of(*splits.values())]
    return find_leaks(dict(zip(splits, texts, strict=True)), threshold)


def prompts_of(*parts: Sequence[PairRow]) -> list[list[str]]:
    """Write what each pair asks as one text, as `questions_of` does.

    Args:
        *parts: Pairs, such as those of training and of validation.

    Returns:
        One list of texts for each part.

    Chapter: dpo/preference_data.
    """
    asked: list[list[ChatRow]] = [
        [{"messages": pair["prompt"]} for pair in part] for part in parts
    ]
    return questions_of(*asked)


def _key(text: str) -> str:
    return normalize(in_words(text)) or text.strip()


# --- labels ---


@dataclass(frozen=True)
class Agreement:
    """How often two builders give the same label.

    Attributes:
        share: Share of the items with the same label, with Wilson's interval.
        kappa: Cohen's kappa with its interval: 0 where the two agree as often as their own
            shares of labels would by chance, 1 where they always agree. None where chance
            alone gives full agreement, since each always gives one and the same label.
        table: How often each pair of labels was given.
    """

    share: Estimate
    kappa: Estimate | None
    table: Counter[tuple[Hashable, Hashable]]

    def __repr__(self) -> str:
        kappa = (
            "undefined, since both give one label only" if self.kappa is None else self.kappa
        )
        return f"same label: {self.share}; kappa: {kappa}"


def agreement(a: Sequence[Hashable], b: Sequence[Hashable]) -> Agreement:
    """Compare two builders' labels of the same items.

    Kappa is (p_o - p_e) / (1 - p_e), of the share of equal labels and the share that chance
    gives (Cohen, 1960, Eq. 1). Its interval is made of the large-sample variance (Fleiss et
    al., 1969): with fewer than about 50 items it is too narrow.

    Args:
        a: One builder's label of each item, such as "first", "second" or "tie".
        b: The other builder's labels, in the same order.

    Returns:
        The agreement.

    Raises:
        ValueError: If there are no items, or the numbers differ.

    Chapter: dpo/preference_data.
    """
    n = len(a)
    if not n or len(b) != n:
        raise ValueError(f"there are {n} and {len(b)} labels: give one of each for every item")
    table = Counter(zip(a, b, strict=True))
    share = wilson_interval(sum(x == y for x, y in zip(a, b, strict=True)), n)
    p_a, p_b = ({k: c / n for k, c in Counter(given).items()} for given in (a, b))
    labels = p_a.keys() | p_b.keys()
    observed = sum(table[k, k] for k in labels) / n
    expected = sum(p_a.get(k, 0.0) * p_b.get(k, 0.0) for k in labels)
    if math.isclose(expected, 1.0):
        return Agreement(share, None, table)
    kappa = (observed - expected) / (1 - expected)
    variance = -((kappa - expected * (1 - kappa)) ** 2)
    for (x, y), count in table.items():
        weight = p_b.get(x, 0.0) + p_a.get(y, 0.0)
        if x == y:
            variance += count / n * (1 - weight * (1 - kappa)) ** 2
        else:
            variance += count / n * (weight * (1 - kappa)) ** 2
    half = _Z * math.sqrt(max(variance, 0.0) / n) / (1 - expected)
    return Agreement(share, Estimate(kappa, kappa - half, kappa + half, n), table)


@dataclass(frozen=True)
class FlippedPairs:
    """Pairs of which some had their answers swapped on purpose.

    Attributes:
        pairs: The pairs, in their order.
        flipped: Whether each was swapped.
    """

    pairs: list[PairRow]
    flipped: tuple[bool, ...]


def flip_labels(pairs: Sequence[PairRow], share: float, seed: int = 0) -> FlippedPairs:
    """Swap chosen and rejected in an exact number of pairs: label noise of a known size.

    Args:
        pairs: The pairs; they are left as they are.
        share: Share to swap, from 0 to 1; ``round(share * n)`` pairs are.
        seed: Seed of the draw. With one seed, the pairs swapped at a small share are among
            those of a larger one.

    Returns:
        The pairs and which of them were swapped.

    Raises:
        ValueError: If the share is not between 0 and 1.

    Chapter: dpo/preference_data.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}: give a number from 0 to 1")
    order = list(range(len(pairs)))
    random.Random(f"flip {seed}").shuffle(order)
    chosen = set(order[: round(share * len(pairs))])
    swapped: list[PairRow] = [
        {"prompt": p["prompt"], "chosen": p["rejected"], "rejected": p["chosen"]}
        if index in chosen
        else p
        for index, p in enumerate(pairs)
    ]
    return FlippedPairs(swapped, tuple(index in chosen for index in range(len(pairs))))
