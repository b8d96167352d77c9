"""Goals and claims as a table: for a notebook, for a terminal, for the scoreboard.

Chapter: start/how_this_book_works.
"""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

SIGNS = {"<": "<", "<=": "≤", ">": ">", ">=": "≥", "==": "="}
NO_BREAK = "\u00a0"  # a space where a line must not end
HEADER = ("goal", "measured", "wanted", "result")

Kind = Literal["goal", "claim"]


class GoalRow(TypedDict):
    """One goal or claim as it is stored; ``ci`` is [low, high], not-finite numbers are None."""

    id: str
    kind: Kind
    stage: str
    chapter: str
    goal: str
    value: float | bool | None
    ci: list[float] | None
    n: int | None
    threshold: str
    passed: bool
    attempts: list[str]
    preset: str


@dataclass(frozen=True, repr=False)
class GoalsTable:
    """Rows that notebooks show as a table.

    Attributes:
        rows: The rows, in the order of the chapter.
    """

    rows: Sequence[GoalRow]

    def cells(self) -> list[tuple[str, str, str, str]]:
        """Return the table's text: goal, measured, wanted and result of each row."""
        return [
            (row["goal"], measured_text(row), wanted_text(row), result_text(row))
            for row in self.rows
        ]

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{name}</th>' for name in HEADER)
        body, notes = "", "".join(f"<p>{html.escape(note)}</p>" for note in self.notes())
        for row, cells in zip(self.rows, self.cells(), strict=True):
            text = [html.escape(cell) for cell in cells]
            look = "pt-met" if row["passed"] else "pt-missed"
            text[3] = f'<span class="{look}">{text[3]}</span>'
            body += "<tr>" + "".join(f"<td>{cell}</td>" for cell in text) + "</tr>"
        return (
            '<div class="pt-goals" style="overflow-x:auto"><table class="table">'
            f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{notes}</div>"
        )

    def _repr_markdown_(self) -> str:
        lines = ["| " + " | ".join(HEADER) + " |", "|" + "---|" * len(HEADER)]
        for cells in self.cells():
            lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        return "\n".join(lines) + "".join(f"\n\n{note}" for note in self.notes())

    def __repr__(self) -> str:
        table = [HEADER, *self.cells()]
        widths = [max(len(line[k]) for line in table) for k in range(len(HEADER))]
        lines = ["  ".join(map(str.ljust, line, widths)).rstrip() for line in table]
        return "\n".join([*lines, *self.notes()])

    def notes(self) -> list[str]:
        """Return what stands below the table: what was tried for each missed aim."""
        return [
            f"Missed aim {row['id']}; tried: {' '.join(row['attempts'])}"
            for row in self.rows
            if row["attempts"] and not row["passed"]
        ]


def _number(value: float | bool | None, digits: int = 4) -> str:
    if value is None:
        return "not a number"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value) if isinstance(value, int) else f"{value:.{digits}g}"


def measured_text(row: GoalRow) -> str:
    """Write a row's value with its interval and n.

    The value gets more digits where it would otherwise look equal to the threshold.

    Args:
        row: A goal's row.

    Returns:
        Such as ``0.93 [0.88, 0.96], n = 200``, with spaces that do not break inside.
    """
    value, threshold = row["value"], _threshold(row)
    text = _number(value)
    for digits in range(5, 18):
        if value == threshold or text != _number(threshold):
            break
        text = _number(value, digits)
    if row["ci"] is not None:
        text += f" [{_number(row['ci'][0])},{NO_BREAK}{_number(row['ci'][1])}]"
    return text if row["n"] is None else f"{text}, n{NO_BREAK}={NO_BREAK}{row['n']}"


def wanted_text(row: GoalRow) -> str:
    """Write what a row's value must reach.

    Args:
        row: A goal's row.

    Returns:
        Such as ``≤ 1.75``; for a yes-or-no goal ``yes`` or ``no``.
    """
    threshold, op = _threshold(row), row["threshold"].split()[0]
    if isinstance(threshold, bool) and op == "==":
        return _number(threshold)
    return f"{SIGNS.get(op, op)} {_number(threshold)}"


def result_text(row: GoalRow) -> str:
    """Write whether a row's goal is met, or its claim holds, as a symbol and words.

    Args:
        row: A row.

    Returns:
        ``✓ met`` or ``✗ not met``, for a missed aim ``✗ missed aim``; for a claim ``✓ holds``
        or ``✗ does not hold``.
    """
    if row["kind"] == "claim":
        return "✓ holds" if row["passed"] else "✗ does not hold"
    if row["passed"]:
        return "✓ met"
    return "✗ missed aim" if row["attempts"] else "✗ not met"


def is_accepted(row: GoalRow) -> bool:
    """Say whether a build may pass with this row: it passed, or it is a missed aim."""
    return row["passed"] or bool(row["attempts"])


def failure_text(row: GoalRow) -> str:
    """Write one line on a goal or claim that failed.

    Args:
        row: The row.

    Returns:
        Such as ``sft/lora: sft.memory: ratio of bytes: measured 3, wanted < 2``.
    """
    measured = measured_text(row).replace(NO_BREAK, " ")
    name = f"{row['chapter']}: {row['id']}: {row['goal']}"
    return f"{name}: measured {measured}, wanted {wanted_text(row)}"


def _threshold(row: GoalRow) -> float | bool:
    text = row["threshold"].split()[1]
    return text == "True" if text in ("True", "False") else float(text)
