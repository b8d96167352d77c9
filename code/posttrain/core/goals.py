"""Goals: what a chapter promises, measured and compared in its last cell.

::

    check_goals(
        [Goal("pretraining.val_loss", "validation loss, nats", loss, 1.75, "<=")],
        chapter="pretraining/training_dynamics",
    )

A goal that is not met raises nothing: its row says so in the table, the page and the site's
scoreboard mark it, and ``make book`` ends with exit status 1 when the site is written. The rows
go into one file per chapter, beside those of its claims (see `posttrain.core.claims`).

Chapter: start/how_this_book_works.
"""

import json
import math
import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.goals_table import GoalRow, GoalsTable, Kind
from posttrain.core.storage.files import write_json_atomic
from posttrain.core.storage.paths import goals_folder

OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
GOAL_ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")
CHAPTER = re.compile(r"[a-z][a-z0-9_]*(/[a-z0-9_]+)*")
ATTEMPTS = 3
"""How many documented attempts turn a goal that is not met into a missed aim."""


@dataclass(frozen=True)
class Goal:
    """A measured value and what it must reach: ``value op threshold``.

    A value that is not finite never passes.

    Attributes:
        id: ``stage.name``, in lower case, such as ``pretraining.val_loss``.
        goal: What was measured, in a few words, with its unit.
        value: The measurement: a number, or True or False.
        threshold: What it is compared with.
        op: One of ``<``, ``<=``, ``>``, ``>=``, ``==``.
        n: How many items or seeds were measured, where there is such a number.
        ci: 95 % interval of the value, (low, high), where there is one.
        attempts: What was tried in vain, a sentence each. At least three make a goal that is
            not met a *missed aim*: it stays red, and the build passes all the same.
    """

    id: str
    goal: str
    value: float | bool
    threshold: float | bool
    op: str
    n: int | None = None
    ci: tuple[float, float] | None = None
    attempts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not GOAL_ID.fullmatch(self.id):
            raise ValueError(
                f"the goal id {self.id!r} is malformed: write stage.name in lower case, "
                "such as 'pretraining.val_loss'"
            )
        if self.op not in OPERATORS:
            raise ValueError(
                f"{self.id}: unknown comparison {self.op!r}: use one of {', '.join(OPERATORS)}"
            )
        if not self.goal.strip():
            raise ValueError(f"{self.id}: the goal is empty: say what was measured")
        for what in ("value", "threshold"):
            number = _plain_number(getattr(self, what), self.id, what)
            object.__setattr__(self, what, number)
        if not math.isfinite(self.threshold):
            raise ValueError(
                f"{self.id}: the threshold {self.threshold} is not a finite number"
            )
        if self.n is not None and (int(self.n) != self.n or self.n < 1):
            raise ValueError(f"{self.id}: n is {self.n}: give a count of at least 1, or None")
        if self.ci is not None:
            low, high = (float(bound) for bound in self.ci)
            if low > high:
                raise ValueError(f"{self.id}: the interval ({low}, {high}) is reversed")
            object.__setattr__(self, "ci", (low, high))
        attempts = tuple(text.strip() for text in self.attempts)
        if attempts and (len(attempts) < ATTEMPTS or not all(attempts)):
            raise ValueError(
                f"{self.id}: a missed aim documents at least {ATTEMPTS} attempts, a sentence "
                f"each; {sum(map(bool, attempts))} given"
            )
        object.__setattr__(self, "attempts", attempts)

    @property
    def passed(self) -> bool:
        """Whether the value is finite and stands in the wanted relation to the threshold."""
        return math.isfinite(self.value) and OPERATORS[self.op](self.value, self.threshold)

    def row(self, chapter: str, preset: str) -> GoalRow:
        """Return the goal as it is stored.

        Args:
            chapter: The chapter that checks it, such as ``pretraining/attention``.
            preset: The preset it was measured with.

        Returns:
            A row that can be written as JSON.
        """
        finite_ci = self.ci is not None and all(math.isfinite(bound) for bound in self.ci)
        return GoalRow(
            id=self.id,
            kind="goal",
            stage=self.id.split(".")[0],
            chapter=chapter,
            goal=self.goal,
            value=self.value if math.isfinite(self.value) else None,
            ci=list(self.ci) if self.ci is not None and finite_ci else None,
            n=None if self.n is None else int(self.n),
            threshold=f"{self.op} {self.threshold!r}",
            passed=self.passed,
            attempts=list(self.attempts),
            preset=preset,
        )


def _plain_number(value: Any, goal_id: str, what: str) -> float | bool:
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()  # a NumPy or torch scalar
    if isinstance(value, bool | int | float):
        return value
    raise TypeError(
        f"{goal_id}: the {what} is {value!r} of type {type(value).__name__}: "
        "give one number, or True or False"
    )


def check_goals(goals: Iterable[Goal], *, chapter: str, preset: str = "cpu") -> GoalsTable:
    """Compare a chapter's goals with what was measured, and store the outcome.

    Call it once per chapter: the rows replace those of an earlier call.

    Args:
        goals: The chapter's goals, each with its measured value.
        chapter: The chapter's path below ``book/``, such as ``pretraining/attention``.
        preset: The preset that the values were measured with.

    Returns:
        The table, for the notebook to show; goals that are not met are marked in it.

    Raises:
        ValueError: If there are no goals, an id occurs twice, or the chapter is malformed.
    """
    goals = list(goals)
    if not goals:
        raise ValueError(f"{chapter}: the list of goals is empty: give at least one Goal")
    ids = [goal.id for goal in goals]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise ValueError(f"{chapter}: these ids occur twice, name one anew: {', '.join(twice)}")
    rows = [goal.row(chapter, preset) for goal in goals]
    kept = [row for row in rows_of(chapter) if row["kind"] != "goal"]
    write_json_atomic(goals_file(chapter), [*rows, *kept])
    return GoalsTable(rows)


def rows_of(chapter: str, kind: Kind | None = None) -> list[GoalRow]:
    """Read the rows that a chapter has stored.

    Args:
        chapter: The chapter's path below ``book/``, such as ``pretraining/attention``.
        kind: Only its goals or only its claims; by default both.

    Returns:
        Goals first, then claims in the order of the text; none where nothing was stored.

    Raises:
        ValueError: If the chapter is malformed, or its file holds no rows.
    """  # noqa: DOC502
    file = goals_file(chapter)
    rows = _read_rows(file) if file.is_file() else []
    return [row for row in rows if kind is None or row["kind"] == kind]


def goals_file(chapter: str, folder: Path | None = None) -> Path:
    """Return the file that holds a chapter's rows.

    Args:
        chapter: The chapter's path below ``book/``, such as ``pretraining/attention``.
        folder: Where the chapters' files lie; by default
            `posttrain.core.storage.paths.goals_folder`.

    Returns:
        ``pretraining__attention.json`` in the folder, whether it exists or not.

    Raises:
        ValueError: If the chapter is malformed.
    """
    if not CHAPTER.fullmatch(chapter):
        raise ValueError(
            f"the chapter {chapter!r} is malformed: write its path below book/ without suffix, "
            "such as 'pretraining/attention'"
        )
    folder = goals_folder() if folder is None else Path(folder)
    return folder / f"{chapter.replace('/', '__')}.json"


def collect_goals(folder: Path | None = None) -> list[GoalRow]:
    """Read the rows of all chapters, goals and claims.

    Args:
        folder: Where the chapters' files lie; by default
            `posttrain.core.storage.paths.goals_folder`.

    Returns:
        The rows, chapter by chapter in alphabetical order; none if the folder is missing.

    Raises:
        ValueError: If a file holds no rows, or two chapters claim the same id.
    """
    folder = goals_folder() if folder is None else Path(folder)
    rows: list[GoalRow] = []
    seen: dict[str, Path] = {}
    for path in sorted(folder.glob("[!.]*.json")):
        for row in _read_rows(path):
            if row["id"] in seen:
                raise ValueError(
                    f"{seen[row['id']]} and {path} both hold {row['id']}: "
                    "rename one, or remove the file of a chapter that is no more"
                )
            seen[row["id"]] = path
            rows.append(row)
    return rows


def _read_rows(path: Path) -> list[GoalRow]:
    try:
        rows: list[GoalRow] = json.loads(path.read_text(encoding="utf-8"))
        keys = GoalRow.__annotations__.keys()
        if isinstance(rows, list) and all(row.keys() == keys for row in rows):
            return rows
    except (ValueError, AttributeError):
        pass
    raise ValueError(f"{path} holds no goals: remove it and run its chapter again")
