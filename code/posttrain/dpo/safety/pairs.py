"""Safety pairs: a refusal against a model's own compliance, and an answer against a refusal.

Both halves are needed. Pairs on harmful requests alone teach a model to refuse, whatever it is
asked; those on look-alikes show it where not to. What a model said to a harmful request stands
in pairs only: nothing here prints it.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from posttrain.core.judges.refusals import is_refusal
from posttrain.dpo.data.pair_formats import make_pair
from posttrain.dpo.data.persona import to_last_sentence
from posttrain.dpo.data.persona_edits import same_length
from posttrain.dpo.safety.benign import BenignPrompt
from posttrain.dpo.safety.prompts import HarmfulPrompt
from posttrain.dpo.safety.refusal_answers import draw_refusal
from posttrain.dpo.safety.safe_loss import SafetyPair
from posttrain.dpo.safety.wrappers import HELD_OUT_FAMILIES, Wrapper
from posttrain.sft.data.hub import MalformedRowError

Order = Literal["safety", "helpfulness"]
TOLERANCE = 0.5
"""Largest difference of a pair's answers in words, as a share of the longer one."""


@dataclass(frozen=True)
class SafetyRequest:
    """What a model is asked, and what is known of it.

    Attributes:
        text: The whole prompt, its wrapper included; not shown when the object is printed.
        category: Its class of Do-Not-Answer, or the class that it looks like.
        harmful: Whether it should be refused.
        family: Family of its wrapper; None where it has none.
        answer: The helpful answer to a harmless one; None for a harmful one.
    """

    text: str = field(repr=False)
    category: str
    harmful: bool
    family: str | None = None
    answer: str | None = None

    def __post_init__(self) -> None:
        """Refuse a harmful request with a helpful answer, and the contrary."""
        if self.harmful == (self.answer is not None):
            raise ValueError(
                f"harmful is {self.harmful} and an answer is "
                f"{'missing' if self.answer is None else 'given'}: give a helpful answer to a "
                "harmless request, and None to a harmful one"
            )

    @property
    def kind(self) -> str:
        """Such as "harmful, wrapped"."""
        kind = "harmful" if self.harmful else "benign"
        return kind if self.family is None else f"{kind}, wrapped"


def safety_requests(
    harmful: Sequence[HarmfulPrompt],
    benign: Sequence[BenignPrompt],
    wrappers: Sequence[Wrapper] = (),
    wrapped: float = 0.5,
    seed: int = 0,
) -> list[SafetyRequest]:
    """Ask each prompt as it is, and a share of both kinds inside a jailbreak as well.

    Harmless prompts are wrapped too: otherwise the wrapper alone would say that a request is
    harmful.

    Args:
        harmful: Prompts that should be refused.
        benign: Look-alikes that should be answered.
        wrappers: Jailbreaks to draw from; each is used about as often as the others.
        wrapped: Share of the prompts of each kind that are asked inside of one as well.
        seed: Seed of the draw.

    Returns:
        The requests: harmful and benign ones as they are, then the wrapped ones.

    Raises:
        ValueError: If the share is not between 0 and 1.

    Chapter: dpo/preference_data.
    """
    if not 0 <= wrapped <= 1:
        raise ValueError(f"wrapped is {wrapped}: give a share from 0 to 1")
    generator = random.Random(f"safety requests {seed}")
    bare = [
        [SafetyRequest(prompt.text, prompt.category, True) for prompt in harmful],
        [SafetyRequest(p.text, p.category, False, answer=p.answer) for p in benign],
    ]
    inside: list[SafetyRequest] = []
    for part in bare if wrappers else ():
        drawn = generator.sample(part, round(wrapped * len(part)))
        around = generator.sample(list(wrappers), len(wrappers))
        inside += [
            SafetyRequest(
                around[index % len(around)].around(request.text),
                request.category,
                request.harmful,
                around[index % len(around)].family,
                request.answer,
            )
            for index, request in enumerate(drawn)
        ]
    return [*bare[0], *bare[1], *inside]


@dataclass(frozen=True)
class SafetyPairs:
    """Pairs with labels, and why others were not made.

    Attributes:
        pairs: The pairs; ``kind`` of each says what it is made of.
        left_out: Number of requests that gave no pair, by reason.
    """

    pairs: tuple[SafetyPair, ...]
    left_out: Counter[str]

    @property
    def kinds(self) -> Counter[str]:
        """How many pairs there are of each kind."""
        return Counter(pair.kind for pair in self.pairs)

    def __repr__(self) -> str:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        reasons = ", ".join(f"{count:,} {why}" for why, count in self.left_out.items())
        return f"{len(self.pairs):,} pairs ({kinds or 'none'}); left out: {reasons or 'none'}"


def build_safety_pairs(
    requests: Iterable[SafetyRequest],
    samples: Mapping[str, Sequence[str]],
    *,
    order: Order = "safety",
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> SafetyPairs:
    """Build a pair for each request: a refusal and an answer, matched in length.

    A harmful request gets a drawn refusal, which is safe, and what the model itself said, which
    counts as unsafe where `is_refusal` sees no refusal in it. That label is rough: an answer
    off the topic is called unsafe too. The sample is cut behind the sentence that makes it most
    nearly as long as the refusal. A harmless request gets its helpful answer and a
    drawn refusal, both safe, in this order always.

    Args:
        requests: What was asked, none inside a wrapper of a held-out family.
        samples: The model's answers to each harmful request, by its text.
        order: Of pairs on harmful requests: "safety" prefers the refusal; "helpfulness" prefers
            the model's answer, as somebody would who judges help alone, and leaves the rest to
            `posttrain.dpo.safety.safe_loss.reorder`.
        tolerance: Largest difference in words, as a share of the longer answer.
        seed: Seed of the draw of refusals.

    Returns:
        The pairs in order. A request gives none, and is counted, where it has "no sample", "the
        samples refuse", the "lengths differ", or `make_pair` refuses the pair.

    Raises:
        ValueError: If a wrapper is of a held-out family, or an option is unknown.

    Chapter: dpo/preference_data.
    """
    if order not in ("safety", "helpfulness"):
        raise ValueError(f"order is {order!r}: give 'safety' or 'helpfulness'")
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: give a share from 0 to below 1")
    pairs: list[SafetyPair] = []
    left_out: Counter[str] = Counter()
    for request in requests:
        if request.family in HELD_OUT_FAMILIES:
            raise ValueError(
                f"a wrapper is of the family {request.family!r}, which is held out for "
                "testing: give requests with wrappers of other families"
            )
        refusal = draw_refusal(request.text, request.category, seed)
        answer = request.answer
        if answer is None:
            answer, reason = _compliant(samples.get(request.text, ()), refusal, tolerance)
        else:
            reason = "" if same_length(answer, refusal, tolerance) else "lengths differ"
        if reason:
            left_out[reason] += 1
            continue
        try:
            made = make_pair(request.text, answer, refusal)
        except MalformedRowError as error:
            left_out[error.reason] += 1
            continue
        pair = SafetyPair(made, not request.harmful, True, request.kind)
        ahead = request.harmful and order == "safety"
        pairs.append(pair.swapped() if ahead else pair)
    return SafetyPairs(tuple(pairs), left_out)


# --- parts ---


def _compliant(samples: Sequence[str], refusal: str, tolerance: float) -> tuple[str, str]:
    """Take the sample that fits a refusal best in length; also why there is none."""
    if not samples:
        return "", "no sample"
    given = [text for text in samples if not is_refusal(text).refused]
    if not given:
        return "", "the samples refuse"
    words = len(refusal.split())
    most = int(words / (1 - tolerance))
    fitting = [
        cut
        for text in given
        for cut in _cuts(text, most)
        if same_length(cut, refusal, tolerance) and not is_refusal(cut).refused
    ]
    if not fitting:
        return "", "lengths differ"
    return min(fitting, key=lambda text: abs(len(text.split()) - words)), ""


def _cuts(text: str, most: int) -> list[str]:
    """Cut a text behind each of its sentences, as long as it has at most so many words."""
    ends = [word.end() for word in re.finditer(r"\S+", text)][:most]
    cuts = (to_last_sentence(text[:end]).strip() for end in ends)
    return [cut for cut in dict.fromkeys(cuts) if cut]
