"""The persona of the stage, decided by rule: four criteria, and length is none of them.

An answer in the persona says the answer first and then why, speaks to the reader as "you", and
wastes no words. Each criterion is a pattern over the text. A pattern errs: how often, a table
of answers labelled by hand says.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

LONGEST_FIRST = 30
"""Words of a first sentence beyond which the answer is taken to be buried in it."""

_ABBREVIATION = re.compile(
    r"\b(?:e\.g|i\.e|etc|vs|approx|mr|mrs|ms|dr|st|no|[a-z])\.$|^\d+\.$", re.I
)
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_FINISH = re.compile(r"[.!?\u2026][\"'*)\]\u201d]*(?=\s|$)")
_QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d|`[^`\n]*`")
_YOU = re.compile(r"\b(?:you|your|yours|yourself|yourselves)\b", re.I)

_OPENING = re.compile(
    r"\s*(?:(?:sure(?: thing)?|certainly|absolutely|definitely|of course|ok(?:ay)?|alright|"
    r"all right|great|wonderful|awesome|no problem|hello(?: there)?|hi(?: there)?|hey|well|"
    r"thanks|thank you)\b\s*(?:[!.,:;–—]+|-+(?=\s))\s*)+",
    re.I,
)
"""Words before an answer that say nothing; some are fillers only where they open it."""

_FILLERS = re.compile(
    r"\b(?:"
    r"(?:great|good|excellent|interesting|wonderful|fantastic) (?:question|choice)|"
    r"(?:i )?hope (?:this|that|it|these)(?: \w+)? helps?|"
    r"as an? (?:\w+ )?(?:ai|artificial intelligence|language model|assistant|chatbot)|"
    r"i(?:'m| am) (?:just )?an? (?:ai|artificial|language model|assistant)|"
    r"(?:please )?let me know (?:if|what|how)|(?:please )?(?:feel free|don't hesitate) to|"
    r"if you have any (?:\w+ )?(?:questions?|concerns?)|"
    r"(?:i(?:'m| am|'d be| would be) )?(?:happy|glad|here|delighted) to (?:help|assist)|"
    r"(?:i(?:'m| am) )?glad (?:that )?you asked|"
    r"thank(?:s| you)(?: so much| very much)? for (?:asking|your|the|reaching)|"
    r"let me (?:explain|tell|help|break|show|think|see)|allow me to|"
    r"let(?:'|\u2019)?s (?:dive|explore|take a (?:closer )?look|break|get started|see|begin)|"
    r"here(?:'s| is| are) (?:\w+ ){0,3}(?:answer|explanation|tips|steps|ways|list|overview|"
    r"things|information|reasons|suggestions|ideas)|"
    r"it(?:'s| is) (?:\w+ )?(?:important|worth|interesting|essential|crucial) to (?:note|"
    r"remember|mention|understand|know|keep in mind)|it (?:should|must) be noted|"
    r"needless to say|at the end of the day|in conclusion|to sum up|in summary|to summarize|"
    r"good luck|best of luck|have (?:fun|a (?:great|nice|good) day)|"
    r"any (?:other|more|further) questions"
    r")\b",
    re.I,
)

_REASON_FIRST = re.compile(
    r"(?:because|since|due to|given that|as a result of|owing to)\b", re.I
)
_PREAMBLE = re.compile(
    r"(?:"
    r"there (?:are|is|'s) (?:\w+ ){0,2}(?:many|several|various|numerous|lots|few|number|"
    r"some|no (?:single|one)|different|multiple|plenty)\b|"
    r"(?:it|that|this|the answer)(?: really| all)? (?:depends|varies)|when it comes to|"
    r"(?:in order )?to (?:answer|understand|explain|decide)\b|"
    r"let(?:'|\u2019)?s\b|let me\b|before (?:we|i|you|answering)\b|first of all|"
    r"you (?:asked|are asking|want to know|may be wondering|might wonder)|"
    r"(?:the|this|your|that) (?:question|topic|subject|answer to)\b|what an? \w+ question|"
    r"(?:the|your) (?:\w+ )?(?:decision|choice|answer)\b.{0,80}\bdepends\b|"
    r"(?:many|some|most|a lot of|lots of) people (?:ask|wonder|think|believe|say|want|find)|"
    r"people (?:often |have )?(?:ask|wonder|debate)|for (?:centuries|thousands of years)|"
    r"(?:in|throughout) (?:today's|the modern|our modern|history)|"
    r"i(?:'m| am) (?:not sure|sorry|afraid|unable)|i (?:don't|do not|cannot|can't) |sorry\b|"
    r"(?:choosing|determining|deciding) (?:\w+ )?(?:between|on|the|whether)\b|imagine\b|"
    r"have you ever"
    r")",
    re.I,
)
_REASON = re.compile(
    r"\bbecause\b|\bsince\b(?! (?:\d|then\b|the (?:\d|early|late|start|beginning)|ancient|"
    r"early|last|childhood|birth|\w+ \d{4}))|"
    r"\bso that\b|[,;] so (?:you|your|it|its|the|they|that|there|this|each|a|no|people)\b|"
    r"(?:^|[.;] )so (?:you|your|it|the|they)\b|"
    r"\b(?:that|this|which)(?:'s| is) why\b|\bthe (?:main |simple |real )?reasons?\b|"
    r"\b(?:due|thanks|owing) to\b|\bas a result\b|\btherefore\b|\botherwise\b|\bthat way\b|"
    r"\b(?:it|this|that|they|these|which|doing so)(?: also| then| will| can| just){0,2} "
    r"(?:makes?|means?|keeps?|helps?|lets?|allows?|prevents?|saves?|protects?|stops?|avoids?|"
    r"reduces?|gives? (?:you|your)|leaves? (?:you|your)|making|meaning|keeping|letting)\b|"
    r", (?:making|meaning|keeping|letting|helping|which (?:makes?|means?)) ",
    re.I,
)


@dataclass(frozen=True)
class PersonaVerdict:
    """What the rules say of one answer.

    Attributes:
        answer_first: The first sentence answers: it is no greeting, no preamble, no reason, no
            question and no heading.
        gives_reason: Somewhere the answer says why.
        addresses_reader: It speaks to the reader, as "you", outside of quotations and fillers.
        no_filler: It has no phrase such as "Great question!" or "I hope this helps".
    """

    answer_first: bool
    gives_reason: bool
    addresses_reader: bool
    no_filler: bool

    @property
    def score(self) -> int:
        """How many of the criteria are met, 0 to 4."""
        return sum(getattr(self, name) for name in CRITERIA)

    @property
    def complies(self) -> bool:
        """Whether all of them are met."""
        return self.score == len(CRITERIA)

    def __repr__(self) -> str:
        missed = [name for name in CRITERIA if not getattr(self, name)]
        return f"{self.score} of 4" + (f" (not {', '.join(missed)})" if missed else "")


CRITERIA = tuple(field.name for field in fields(PersonaVerdict))


def compliance(text: str) -> PersonaVerdict:
    """Judge an answer by the persona's rules. Its length plays no part.

    Args:
        text: An answer, in English.

    Returns:
        The verdict; an empty answer meets no criterion.

    Chapter: dpo/preference_data.
    """
    parts = sentences(text)
    if not parts:
        return PersonaVerdict(False, False, False, False)
    return PersonaVerdict(
        answer_first=_answers(parts[0]),
        gives_reason=_REASON.search(without_filler(text)) is not None,
        addresses_reader=_YOU.search(without_filler(_QUOTED.sub(" ", text))) is not None,
        no_filler=_OPENING.match(text) is None and _FILLERS.search(text) is None,
    )


def sentences(text: str) -> list[str]:
    """Split a text into sentences and lines.

    Args:
        text: Any text.

    Returns:
        The sentences, with their punctuation, without white space around them.

    Chapter: dpo/preference_data.
    """
    found: list[str] = []
    start = 0
    for gap in _END.finditer(text):
        if "\n" not in gap[0] and _ABBREVIATION.search(text[start : gap.start()]):
            continue
        found.append(text[start : gap.end()].strip())
        start = gap.end()
    return [part for part in (*found, text[start:].strip()) if part]


def without_filler(text: str) -> str:
    """Leave out the words that open an answer, and sentences that hold a filler.

    Args:
        text: Any text.

    Returns:
        What is left, its sentences joined by a space; empty where all was filler.

    Chapter: dpo/preference_data.
    """
    kept = []
    for part in sentences(text):
        part = _OPENING.sub("", part, count=1) if _OPENING.match(part) else part
        if part and _FILLERS.search(part) is None:
            kept.append(part[0].upper() + part[1:])
    return " ".join(kept)


def is_finished(text: str) -> bool:
    """Say whether an answer was written to its end.

    An answer that was cut off at the largest number of tokens is followed by a stop token as
    soon as it stands in a pair: the model would learn to stop in the middle of a sentence.

    Args:
        text: An answer.

    Returns:
        Whether it ends as a sentence does.

    Chapter: dpo/preference_data.
    """
    return text.rstrip(" \n\t\"'*`)]\u201d").endswith((".", "!", "?", "\u2026"))


def to_last_sentence(text: str) -> str:
    """Cut an answer back to the end of its last finished sentence.

    Args:
        text: An answer, such as one that was cut off at the largest number of tokens.

    Returns:
        What is left; empty where no sentence is finished.

    Chapter: dpo/preference_data.
    """
    ends = [
        found.end()
        for found in _FINISH.finditer(text)
        if not _ABBREVIATION.search(text[: found.end()].splitlines()[-1])
    ]
    return text[: ends[-1]] if ends else ""


def is_preamble(sentence: str) -> bool:
    """Say whether a sentence only leads up to an answer.

    Args:
        sentence: One sentence.

    Returns:
        True for "There are many ways to do it.", for questions, and for what ends in a colon.

    Chapter: dpo/preference_data.
    """
    return _PREAMBLE.match(sentence) is not None or sentence.rstrip("\"'\u201d)").endswith(
        ("?", ":")
    )


def _answers(sentence: str) -> bool:
    return (
        len(sentence.split()) <= LONGEST_FIRST
        and not is_preamble(sentence)
        and _OPENING.match(sentence) is None
        and _FILLERS.search(sentence) is None
        and _REASON_FIRST.match(sentence) is None
        and re.match(r"#|\*\*|[-*•] |\d+[.)] ", sentence) is None
    )
