"""Edits by rule that turn an answer into the persona, or out of it, at nearly equal length.

An edit moves, exchanges and removes words. It adds one claim only: that an answer's second
sentence is the reason of the first. That may be wrong: these pairs teach a form, not facts.
Where the rules find nothing to hold on to, there is no edit, and the reason is said.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from posttrain.dpo.data.persona import (
    compliance,
    is_finished,
    is_preamble,
    sentences,
    without_filler,
)

TOLERANCE = 0.15
"""How much longer or shorter in words an edited answer may be."""

LEAST_DROP = 2
"""How many criteria an answer that is edited out of the persona must lose at least."""

_FIRST_REASON = re.compile(r"(because|since) (.+?), (.+)", re.I | re.S)
_LAST_REASON = re.compile(r"(.+?),? (because(?! of)|since) (.+?)([.!]?)$", re.I | re.S)
_ITEM = re.compile(r"#|[-*•] |\d+[.)] |\*\*")
_CONNECTIVE = re.compile(
    r"(?:however|but|and|also|so|then|or|yet|for example|in addition|next|finally)\b", re.I
)
_BARE_SHARE = 0.8  # of the answers that are edited out of the persona without a filler
_SMALL = frozenset(
    "the a an it its it's they their this that these those you your we our he she his her "
    "in on at when if there most many some each every as with without by for from no one "
    "both people use keep try take put drink eat walk choose pick start wash add ask buy "
    "check clean cook cover cut give go leave let look make mix move open read rest save "
    "set sleep store wait wear write warm hold turn bring while although after before what "
    "how such all any another more research studies people's".split()
)
"""Words that begin a sentence and are no names, so they may be written small inside one."""
_GERUND = re.compile(r"[A-Z][a-z]{2,}ing")
_ASIDES = ("you see", "as you know", "as you may notice", "as you can tell")

_IMPERSONAL = (
    (r"\byou see,", "in fact,"),
    (r"\bas you know,", "as it happens,"),
    (r"\bas you (?:may notice|can tell),", "as it turns out,"),
)

_INTO_YOU = (
    (r"\b(?:most |many |some )?people's\b", "your"),
    (r"(?<!these )(?<!those )(?<!other )(?<!the )\b(?:(?:most|many|some) )?people\b", "you"),
    (r"\bwe\b", "you"),
    (r"\bus\b", "you"),
    (r"\bour\b", "your"),
    (r"\bours\b", "yours"),
    (r"\bourselves\b", "yourself"),
)
_OUT_OF_YOU = (
    (rf",? (?:{'|'.join(_ASIDES)}),", ""),
    (r"\byou're\b", "people are"),
    (r"\byou've\b", "people have"),
    (r"\byou'll\b", "people will"),
    (r"\byou'd\b", "people would"),
    (r"\b(?:yourself|yourselves)\b", "themselves"),
    (r"\byours\b", "theirs"),
    (r"\byour\b", "their"),
    (r"\byou\b", "people"),
)
_LOST_REASON = re.compile(
    r",? (?:because(?! of)|since|so that|which is why|which means(?: that)?|otherwise) (?=\w)|"
    r", so (?=\w)|(?<=[.!]) (?:That is why|That's why|This is why|Therefore,|As a result,|So) ",
    re.I,
)
_SHORTER = (
    (r"\b(it|that|there|what|he|she) is\b(?! not)", r"\1's"),
    (r"\b(they|we) are\b", r"\1're"),
    (r"\b(do|does|is|are|was|were|did|has|have|should|could|would) not\b", r"\1n't"),
    (r"\bin order to\b", "to"),
    (r"\ba lot of\b", "much"),
    (r" (?:also|very|really|just|quite|then|even|always)(?= \w)", ""),
)
_OPENINGS = (
    "Sure!", "Certainly!", "Absolutely!", "Definitely!", "Okay!", "Alright!", "Great question!",
    "Sure thing!", "Good question!", "Thanks for asking!", "Well, good question!",
    "Happy to help here!",
)  # fmt: skip
_CLOSINGS = ("", "I hope this helps!", "Good luck!", "Let me know if not!", "Have fun!")


class EditError(ValueError):
    """An answer cannot be edited by the rules.

    Args:
        reason: Why, in a few words. It is an attribute too.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"no edit: {reason}")
        self.reason = reason


def same_length(a: str, b: str, tolerance: float = TOLERANCE) -> bool:
    """Say whether two answers are nearly equally long.

    Args:
        a: A text.
        b: Another text.
        tolerance: Largest difference in words, as a share of the longer one's.

    Returns:
        Whether they are.

    Raises:
        ValueError: If the tolerance is not between 0 and 1.

    Chapter: dpo/preference_data.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: give a share from 0 to below 1")
    short, long = sorted((len(a.split()), len(b.split())))
    return long - short <= tolerance * long + 1e-9


def one_paragraph(text: str) -> str:
    """Write an answer without line breaks, which edits would move or lose.

    Args:
        text: An answer.

    Returns:
        Its words with one space between them.

    Raises:
        EditError: If it holds a list or a heading.

    Chapter: dpo/preference_data.
    """
    if any(_ITEM.match(line.strip()) for line in text.splitlines()):
        raise EditError("it holds a list")
    return " ".join(text.split())


def edit_into(text: str, *, tolerance: float = TOLERANCE) -> str:
    """Turn an answer into the persona.

    Fillers and preambles go; "because B, A" becomes "A because B"; a second sentence becomes
    the reason of the first; people become you. An answer that complies comes back as it is.

    Args:
        text: An answer, in English.
        tolerance: Largest change in words, as a share of the longer text's.

    Returns:
        An answer that complies, and is nearly as long.

    Raises:
        EditError: If the rules cannot do it.
        ValueError: If the tolerance is not between 0 and 1.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    if text.strip() and not is_finished(text):
        raise EditError("unfinished")
    if compliance(text).complies:
        return text
    parts = sentences(without_filler(text))
    if any(map(_ITEM.match, parts)):
        raise EditError("it holds a list")
    while parts and is_preamble(parts[0]):
        parts.pop(0)
    if not parts:
        raise EditError("no answer in it")
    if (turned := _FIRST_REASON.fullmatch(parts[0])) is not None:
        word, reason, answer = turned.groups()
        end = answer[-1] if answer[-1] in ".!" else ""
        parts[0] = f"{_upper(answer.rstrip('.!'))} {word.lower()} {reason}{end}"
    if not compliance(" ".join(parts)).gives_reason:
        parts = _with_reason(parts)
    edited = " ".join(parts)
    if not compliance(edited).addresses_reader:
        edited = _replaced(edited, _INTO_YOU)
    if not compliance(edited).addresses_reader:
        asides = random.Random(f"aside {text}").sample(_ASIDES, len(_ASIDES))
        tried = [_with_aside(edited, aside) for aside in asides]
        edited = next((t for t in tried if same_length(text, t, tolerance)), tried[0])
    return _checked(text, edited, tolerance, least=4)


def edit_out_of(text: str, seed: int = 0) -> str:
    """Turn an answer out of the persona.

    You become people; the reason moves to the front or becomes a sentence of its own. Of most
    answers, where the rules can, nothing more is changed. To the others a filler is
    added in front, and where there is room another one at the end: it is the easiest of all
    differences to learn, and beside it a model would learn no other. Of all that is nearest in
    length, the seed draws one.

    Args:
        text: An answer, in English.
        seed: Seed of the draws; text and seed decide the result.

    Returns:
        An answer that meets at least `LEAST_DROP` criteria fewer, and is within `TOLERANCE` as
        long.

    Raises:
        EditError: If the rules cannot do it.

    Chapter: dpo/preference_data.
    """
    before = compliance(text)
    if before.score < LEAST_DROP:
        raise EditError("hardly in the persona")
    generator = random.Random(f"edit {seed} {text}")
    words = len(text.split())
    plain = " ".join(map(_upper, sentences(_replaced(text, _OUT_OF_YOU))))
    ways = [_turned(plain), _with_reasons_lost(plain)]
    ways += [_replaced(way, _SHORTER) for way in ways]
    dressed = [
        " ".join(filter(None, (opening, way, closing)))
        for way in dict.fromkeys(ways)
        for opening in _OPENINGS
        for closing in _CLOSINGS
    ]
    most = before.score - LEAST_DROP
    fitting = [
        way for way in _bare(text)
        if same_length(text, way) and (now := compliance(way)).no_filler and now.score <= most
    ]  # fmt: skip
    if not fitting or generator.random() >= _BARE_SHARE:
        fitting = [way for way in dressed if same_length(text, way)]
    if not fitting:
        raise EditError("too short for an edit of equal length")
    gaps = [abs(len(candidate.split()) - words) for candidate in fitting]
    nearest = [c for c, gap in zip(fitting, gaps, strict=True) if gap == min(gaps)]
    return _checked(text, generator.choice(nearest), TOLERANCE, most=most)


def _bare(text: str) -> list[str]:
    """Take you and the reason out of an answer word for word, and add nothing."""
    plain = _replaced(_replaced(text, _IMPERSONAL), _OUT_OF_YOU)
    plain = " ".join(map(_upper, sentences(plain)))
    return list(dict.fromkeys([_turned(plain), _LOST_REASON.sub(", and ", plain)]))


def _turned(text: str) -> str:
    """Move the reason of the first sentence to the front: "A because B" to "Because B, A"."""
    parts = sentences(text)
    found = _LAST_REASON.fullmatch(parts[0])
    if found is not None:
        answer, word, reason, end = found.groups()
        parts[0] = f"{_upper(word)} {reason}, {_lower(answer)}{end}"
    return " ".join(parts)


def _with_reasons_lost(text: str) -> str:
    """Let every reason stand as a sentence of its own: "A because B" to "A. B"."""
    text = re.sub(r"(?<=[.!]) (?=[.!] )", "", _LOST_REASON.sub(". ", text))
    text = text.replace(".. ", ". ").replace("!. ", "! ")
    return " ".join(map(_upper, sentences(text)))


def _with_aside(text: str, aside: str) -> str:
    """Speak to the reader: behind the first "because", else before the second sentence."""
    found = re.sub(r",? because\b(?! of)", f" because, {aside},", text, count=1)
    parts = sentences(text)
    if found != text or len(parts) < 2 or _CONNECTIVE.match(parts[1]):
        return found
    return " ".join([parts[0], f"{_upper(aside)}, {_lower(parts[1])}", *parts[2:]])


def _with_reason(parts: Sequence[str]) -> list[str]:
    """Make the second sentence the reason of the first."""
    if len(parts) < 2:
        raise EditError("no second sentence to be the reason")
    first, second, *rest = parts
    if _CONNECTIVE.match(second) or is_preamble(second) or first[-1] not in ".!":
        raise EditError("the second sentence is no reason")
    return [f"{first[:-1]} because {_lower(second)}", *rest]


def _checked(text: str, edited: str, tolerance: float, least: int = 0, most: int = 4) -> str:
    if not same_length(text, edited, tolerance):
        raise EditError("the length would change")
    if not least <= compliance(edited).score <= most:
        raise EditError("the rules do not suffice")
    return edited


def _replaced(text: str, rules: Sequence[tuple[str, str]]) -> str:
    for pattern, new in rules:

        def write(found: re.Match[str], new: str = new) -> str:
            written = found.expand(new)
            return _upper(written) if found[0][:1].isupper() else written

        text = re.sub(pattern, write, text, flags=re.I)
    return re.sub(r"  +", " ", text).strip()


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def _lower(text: str) -> str:
    """Write a sentence's first word small where it is no name."""
    word = re.match(r"\w+", text)
    small = word is not None and (word[0].lower() in _SMALL or _GERUND.fullmatch(word[0]))
    return text[:1].lower() + text[1:] if small else text
