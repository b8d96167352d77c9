"""What a check of the site finds, and how it is shown."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from posttrain.core.storage.files import write_json_atomic, write_text_atomic

SHOWN_ALIKE = 3  # faults of one rule on one page that are shown in full


class ToolMissing(Exception):
    """A program that a check needs is not installed; the message says what to install."""


class CheckFailed(Exception):
    """A check could not be carried through though its programs are there."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong on one page; as text, one sentence.

    Attributes:
        check: The check that found it, such as ``offline`` or ``axe``.
        page: The page's path below the site's folder, such as ``book/index.html``.
        rule: A short name for faults of this kind, such as ``outside request``.
        what: What is wrong, in a few words.
        element: The element that is concerned: a CSS selector or its first characters.
        where: The theme and width at which it shows, where that matters.
    """

    check: str
    page: str
    rule: str
    what: str
    element: str = ""
    where: str = ""

    def __str__(self) -> str:
        at = f", at {self.element}" if self.element else ""
        where = f" ({self.where})" if self.where else ""
        return f"{self.page}: {self.rule}: {self.what}{at}{where}."


def merged(faults: Iterable[Fault]) -> list[Fault]:
    """Return the faults, those that differ only in theme and width as one.

    Args:
        faults: Faults of any checks.

    Returns:
        Each fault once, in the order of the first; ``where`` lists all the places.
    """
    places: dict[Fault, list[str]] = {}
    for fault in faults:
        seen = places.setdefault(replace(fault, where=""), [])
        if fault.where and fault.where not in seen:
            seen.append(fault.where)
    return [replace(fault, where="; ".join(seen)) for fault, seen in places.items()]


def short(text: str, width: int = 160) -> str:
    """Return a text on one line, cut to a width."""
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= width else text[: width - 1] + "…"


def report(faults: Sequence[Fault], shown_alike: int | None = SHOWN_ALIKE) -> str:
    """Return the faults as text, one sentence a line.

    Args:
        faults: Faults of any checks.
        shown_alike: How many of one kind on one page are shown, the others being counted; all
            if None.

    Returns:
        The lines, by check and page.
    """
    groups: dict[tuple[str, str, str], list[Fault]] = {}
    for fault in sorted(faults, key=lambda fault: (fault.check, fault.page)):
        groups.setdefault((fault.check, fault.page, fault.rule), []).append(fault)
    lines: list[str] = []
    for (check, page, rule), alike in groups.items():
        shown = alike[:shown_alike]
        lines += [f"{check}: {fault}" for fault in shown]
        if len(shown) < len(alike):
            lines.append(f"{check}: {page}: {rule}: {len(alike) - len(shown)} more.")
    return "\n".join(lines)


def write_faults(faults: Sequence[Fault], folder: Path) -> Path:
    """List all faults in ``faults.txt``, a sentence a line, and in ``faults.json``.

    Args:
        faults: Faults of any checks.
        folder: Where the two files go; what they held is replaced.

    Returns:
        The file of sentences.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, lines = folder / "faults.txt", report(faults, None)
    write_text_atomic(file, lines + "\n" if lines else "")
    write_json_atomic(folder / "faults.json", [asdict(fault) for fault in faults])
    return file


def needed(program: str, *names: str) -> str:
    """Return the path of a program that is installed under one of several names.

    Args:
        program: What to say that is missing, with how to install it.
        names: The names that it goes by.

    Returns:
        Its path.

    Raises:
        ToolMissing: If none of the names is found.
    """
    for name in names:
        path = shutil.which(name) if name else None
        if path:
            return path
    raise ToolMissing(program)
