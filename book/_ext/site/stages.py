"""The stages of the book: the list ``book/stages.yml``, and the pages of each stage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

BOOK = "book/"
STAGES = Path(__file__).resolve().parents[2] / "stages.yml"
# Folders with chapters that belong to no stage, and so to no week.
BESIDE = {"infra": "Infrastructure"}
NO_BREAK = "\u00a0"
KEYS = {"folder", "title", "weeks", "outcome", "compute"}


@dataclass(frozen=True)
class Stage:
    """One stage of the book.

    Attributes:
        number: Its place in the list, counted from 0.
        folder: Its folder's name, below ``book/`` and in the package.
        title: Its name.
        weeks: First and last week.
        outcome: What the reader has at the end.
        compute: The hardware that its presets are made for.
    """

    number: int
    folder: str
    title: str
    weeks: tuple[int, int]
    outcome: str
    compute: tuple[str, ...]

    @property
    def heading(self) -> str:
        """Such as ``Stage 0 · Pre-training``."""
        return f"Stage {self.number} · {self.title}"

    @property
    def weeks_text(self) -> str:
        """Such as ``Week 1`` or ``Weeks 2–3``."""
        first, last = self.weeks
        return f"Week {first}" if first == last else f"Weeks {first}–{last}"

    @property
    def duration_text(self) -> str:
        """Such as ``1 week`` or ``3 weeks``."""
        weeks = self.weeks[1] - self.weeks[0] + 1
        return f"{weeks} week{'s' * (weeks > 1)}"

    @property
    def compute_text(self) -> str:
        """Such as ``CPU · free T4``, with spaces that do not break inside an item."""
        return " · ".join(item.replace(" ", NO_BREAK) for item in self.compute)


def read_stages(path: Path) -> list[Stage]:
    """Read the list of stages.

    Args:
        path: The file ``stages.yml``.

    Returns:
        The stages in order. Their weeks follow one another without a gap.

    Raises:
        ValueError: If an entry lacks something, has something unknown, or its weeks do not
            begin where those of the stage before it end.
    """
    entries = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} holds no stages: write a list of them")
    stages: list[Stage] = []
    for number, entry in enumerate(entries):
        try:
            stages.append(_stage(number, entry, 1 + (stages[-1].weeks[1] if stages else 0)))
        except ValueError as error:
            raise ValueError(f"{path}, entry {number}: {error}") from error
    return stages


def _stage(number: int, entry: Any, first_free: int) -> Stage:
    if not isinstance(entry, dict) or set(entry) != KEYS:
        given = ", ".join(entry) if isinstance(entry, dict) else repr(entry)
        raise ValueError(f"it has {given}: give {', '.join(sorted(KEYS))}")
    weeks, compute = entry["weeks"], entry["compute"]
    if not (isinstance(weeks, list) and len(weeks) == 2 and weeks[0] <= weeks[1]):
        raise ValueError(f"its weeks are {weeks!r}: give the first and the last, as in [2, 3]")
    if weeks[0] != first_free:
        raise ValueError(f"it begins in week {weeks[0]}: week {first_free} comes next")
    if not isinstance(compute, list) or not compute:
        raise ValueError(f"its compute is {compute!r}: give a list, as in [CPU, free T4]")
    text = {key: " ".join(str(entry[key]).split()) for key in ("folder", "title", "outcome")}
    if empty := [key for key, value in text.items() if not value]:
        raise ValueError(f"it has an empty {empty[0]}")
    return Stage(
        number,
        text["folder"],
        text["title"],
        (weeks[0], weeks[1]),
        text["outcome"],
        tuple(map(str, compute)),
    )


def pages_in_order(includes: Mapping[str, list[str]], root: str) -> Iterator[str]:
    """Walk the contents.

    Args:
        includes: The pages below each page, as Sphinx's ``toctree_includes``.
        root: The first page.

    Yields:
        Every page once, in the book's order.
    """
    seen: set[str] = set()
    pending = [root]
    while pending:
        page = pending.pop()
        if page not in seen:
            seen.add(page)
            yield page
            pending += reversed(includes.get(page, []))


def stage_folder(docname: str) -> str:
    """Return the folder of ``book/<folder>/<page>``; empty for a page that lies elsewhere."""
    below = docname.removeprefix(BOOK) if docname.startswith(BOOK) else ""
    return below.split("/")[0] if below.count("/") == 1 else ""


@cache
def folder_titles() -> Mapping[str, str]:
    """Return the titles of the folders that hold chapters, in the book's order."""
    return {stage.folder: stage.heading for stage in read_stages(STAGES)} | BESIDE


def is_chapter(docname: str) -> bool:
    """Tell whether a page is a chapter, such as ``book/sft/lora``."""
    return stage_folder(docname) in folder_titles()
