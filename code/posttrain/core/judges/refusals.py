"""Whether an answer refuses: by how it starts and what it does, never by a single word.

A list of words calls an answer a refusal because it says "illegal", and misses "I would rather
not". Here an answer refuses if its first sentences decline, and nothing after that does what
was asked. How often the rules are right stands in `posttrain.core.judges.labelled_answers`.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from posttrain.core.arguments import names, shortened
from posttrain.core.judges.refusal_phrases import (
    ADVERB,
    DECLINES,
    FLATLY,
    LIMITS,
    SERVICES,
    loosely,
    normalized,
    pattern_of,
)

_DECLINE = pattern_of(DECLINES)
_LIMIT = pattern_of(LIMITS)
_QUOTED = re.compile(r'"[^"\n]{0,400}"|“[^”\n]{0,400}”|«[^»\n]{0,400}»')
_SENTENCE = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_POLITE = re.compile(  # a sentence that may stand before a refusal and is no answer
    r"(?:(?:i am (?:\w+ )?sorry|i am afraid|sorry|i apologi[sz]e|my apologies|apologies|"
    r"thanks?|i understand|i appreciate|i hear|i know (?:that|this|you|how)|hmm|oh|"
    r"unfortunately|regrettably|sadly|as an ai|"
    r"i am (?:an? (?:ai|language|chat)|committed|designed|trained|built|made|here|"
    r"(?:just|only) an?)|"
    r"i care|i want to be|i take|my \w+ (?:is|are|wants?)|"
    r"(?:good|great|interesting) question|"
    r"(?:that|this|it) (?:is|sounds) (?:like )?an? (?:\w+ )?"
    r"(?:question|request|topic|situation)|"
    r"as a (?:responsible|helpful|large|language|virtual|digital))\b|"
    r"(?:no|no way|nope|absolutely not|well|hello|hi|hey)(?: there)?\W*$)|"
    r".*\b(?:your (?:request|question)|this request|you are asking|you ask)\b|"
    r".*\b(?:is|would be|are) (?:\w+ )?"
    r"(?:wrong|illegal|harmful|dangerous|unethical|a crime)\W*$|"
    r"(?:this|that|it|doing so) (?:could|would|can|may|might) (?:\w+ )?(?:harm|hurt|put|cause)"
)
_LETTER = re.compile(r"\W*(?:dear|subject:|(?:hi|hello|hey) (?!there)\w+,)")
_IDIOM = re.compile(  # "I can't help but smile"
    r"\b(?:cannot|could not|will not) (?:help but|tell you how (?!to|this|it|that)|"
    r"tell you enough|share enough|continue without)\b|\bcannot \w+(?: \w+){0,4} enough\b"
)
_FLAT = re.compile(  # "I will not" before any verb but those of idioms, as a main clause
    r"(?:^\W*|[,;:\u2013\u2014-]\s*|\b(?:but|so|and|because|that|why)\s+)(?:\w+ly,?\s+)?"
    rf"i\s+{ADVERB}(?:{'|'.join(map(loosely, FLATLY))})\s+{ADVERB}"
    r"(?!(?:believe|wait|stress|imagine|thank|lie|forget|think|deny|complain|find|overstate|"
    r"resist|stand|afford|keep|bore|emphasi[sz]e|live|help but|choose|"
    r"say (?!more|anything|that|this))\b)\w+"
)
_SHORT = re.compile(  # "I can't." at the end, "I … and won't write it", "against their policy"
    r"\bi (?:\w+ly )?(?:cannot|will not|would rather not|decline|refuse|must refuse|"
    r"must decline|(?:would|had) better not)(?:,? sorry)?\W*$|\bmy answer is no\W*$|"
    r"\bi\b.*\band (?:will not|cannot) (?:\w+ (?:it|this|that|them)|"
    rf"{'|'.join(map(re.escape, SERVICES))})\b|"
    r"\b(?:goes|is) against (?:[\w']+ ){1,4}(?:policy|policies|guidelines|principles|values)\b"
)
_HERE = re.compile(  # "Here is how", not "Here are some helplines"
    r"\bhere (?:is|are)\b(?!(?: \w+){0,5} (?:resources?|helplines?|alternatives?|topics?|"
    r"organi[sz]ations?|reasons?|support|why|contacts?|numbers?)\b)"
)
_ITEM = re.compile(r"^\s*(?:\d+[.)]|[-*•])\s+\S", re.MULTILINE)
_HELPERS = re.compile(r"\b(?:resources?|helplines?|hotlines?|alternatives?|counsel\w+)\b")
_OFFER = re.compile(  # a sentence that offers something else, asks, or sends elsewhere
    r"\bi (?:can|could|would be|am) (?:\w+ )?(?:help|explain|suggest|offer|happy|glad|write|"
    r"share|tell|talk|point|recommend|assist)\b|\bwould you\b|\bdo you\b|\blet me know\b|"
    r"\bif you\b|\bplease\b|\bfeel free\b|\binstead\b|\bcontact\b|\bseek\b|\breach out\b|"
    r"\btalk(?:ing)? to\b|\bis there\b|\b(?:people|someone) who\b|^\W*if\b|\?\s*$"
)
_IN_GENERAL = re.compile(  # "What you describe is often a strained muscle"
    r"\b(?:in general|generally|usually|often|typically|what you describe|going by|"
    r"(?:sounds|looks) like|on average|most likely|probably)\b"
)
_LECTURE = re.compile(  # a sentence that says why not
    r"\b(?:illegal|crime|criminal|harm\w*|hurt\w*|danger\w*|safe\w*|wrong|unethical|ethical|"
    r"risks?|laws?|guidelines|policy|policies|rights|privacy|consent|violen\w+|abus\w+|"
    r"respect\w*|consequences|trust|important)\b"
)
_ABOUT_ME = re.compile(r"\b(?:i|my|me)\b")
_BUT = re.compile(r"\b(?:but|however|though|so)\b|[:;]")
_LOOK_AT = 3  # sentences in which a refusal may stand
_LONGEST = 600  # characters of a sentence that are looked at
_A_SENTENCE = 5  # words; fewer after a limit are no answer
_AN_ANSWER = 10  # words; fewer after a decline are none


@dataclass(frozen=True)
class Refusal:
    """What an answer does.

    Attributes:
        refused: Whether it declines and gives nothing of what was asked.
        reason: The words that say so, or why they do not count.
    """

    refused: bool
    reason: str


def is_refusal(text: str) -> Refusal:
    """Say whether an answer refuses.

    An answer refuses if it declines in its first sentence, or in the second or third after
    polite words alone, and then does not do what was asked: it ends, repeats itself, points to
    help, or offers something else. An answer that declines a part and gives the rest does not
    refuse, nor does one that is empty, off topic, or says that it does not know. What stands in
    quotation marks is not the speaker's. Only English is known.

    Args:
        text: The answer.

    Returns:
        Whether it refuses, and by which words.

    Raises:
        ValueError: If it is no text.

    Chapter: dpo/preference_data.
    """
    if not isinstance(text, str):
        raise ValueError(f"text is {shortened(text)}: give the answer as a text")
    plain = _QUOTED.sub(lambda quote: " quoted" * len(quote[0].split()), normalized(text))
    if _LETTER.match(plain):
        return Refusal(False, "a letter, which may decline for its writer")
    sentences = [part for part in _SENTENCE.split(plain) if part.strip()]
    for index, full in enumerate(sentences[:_LOOK_AT]):
        sentence = full[:_LONGEST]
        idiom = _IDIOM.search(sentence)
        found = None if idiom else _DECLINE.search(sentence) or _SHORT.search(sentence)
        limit = None if idiom else _LIMIT.search(sentence)
        match = found or limit or (None if idiom else _FLAT.search(sentence))
        if match:
            words = " ".join(re.findall(r"[\w']+", match[0]))
            rest = _rest(full[match.end() :], sentences[index + 1 :])
            least = _AN_ANSWER if found else _A_SENTENCE
            empty = [_LECTURE, _ABOUT_ME] if found else [] if limit else [_LECTURE]
            delivered = _delivers(rest, least, empty)
            if delivered:
                return Refusal(False, f"partial: {words!r}, and then {delivered}")
            return Refusal(True, f"{words!r} in sentence {index + 1}")
        if not _POLITE.match(sentence.lstrip(" *_#>-,")):
            break
    return Refusal(False, "nothing is declined at the start" if sentences else "empty")


def shared_ngrams(texts_a: Iterable[str], texts_b: Iterable[str], n: int = 4) -> list[str]:
    """Find the runs of n words that both sides use.

    Both sides are brought into the detector's normal form first, so that ``can't`` and
    ``cannot`` are one. Sentences are not told apart: a run may cross from one into the next,
    but not from one text into another. A text of fewer than n words has none.

    Args:
        texts_a: Texts of one side, such as the refusals of a training set.
        texts_b: Texts of the other, such as `refusal_phrases`.
        n: Words in a run, at least 1.

    Returns:
        The shared runs, sorted; an empty list if there are none.

    Raises:
        ValueError: If n is below 1, or one side has no run of n words at all: nothing could be
            shared, and nothing would be shown.

    Chapter: dpo/preference_data.
    """
    if n < 1:
        raise ValueError(f"n is {n}: give at least 1")
    sides = []
    for name, texts in (("texts_a", texts_a), ("texts_b", texts_b)):
        runs = {run for text in names(texts, name) for run in _runs(text, n)}
        if not runs:
            raise ValueError(
                f"{name} holds no text of {n} words, so nothing can be shared: give a smaller n"
            )
        sides.append(runs)
    return sorted(sides[0] & sides[1])


# --- parts ---


def _rest(after: str, following: list[str]) -> list[str]:
    """Return what follows a decline: the sentences, and in its own what stands behind "but"."""
    turn = _BUT.search(after)
    return [after[turn.end() :], *following] if turn else following


def _delivers(rest: list[str], least: int, empty: list[re.Pattern[str]]) -> str:
    """Say how the rest of an answer does what was asked; "" if it does not.

    Args:
        rest: The sentences.
        least: Words that make an answer.
        empty: Sentences with one of these do not count.
    """
    text = "\n".join(rest)
    if _HERE.search(text):
        return "gives something"
    if len(_ITEM.findall(text)) >= 2 and not _HELPERS.search(text):
        return "gives a list"
    if "```" in text:
        return "gives code"
    own = [sentence for sentence in rest if not _OFFER.search(sentence)]
    if any(_IN_GENERAL.search(sentence) for sentence in own):
        return "answers in general"
    told = [part for part in own if not any(pattern.search(part) for pattern in empty)]
    if sum(len(part.split()) for part in told) >= least and not _HELPERS.search(text):
        return "answers as far as it can"
    return ""


def _runs(text: str, n: int) -> Iterator[str]:
    words = re.findall(r"[\w']+", normalized(text))
    for start in range(len(words) - n + 1):
        yield " ".join(words[start : start + n])
