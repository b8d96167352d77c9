"""The stages of the book on a line of weeks, drawn as SVG in two layouts.

Colors are those of the page's theme, so light and dark both work. A written stage is a filled
bar, a planned one is dashed; a word in the bar says the same.
"""

from collections.abc import Collection, Sequence
from html import escape

from book._ext.site.stages import Stage

WRITTEN, PLANNED = "written", "planned"


def describe(stages: Sequence[Stage], written: Collection[str]) -> str:
    """Say in words what the picture shows.

    Args:
        stages: The stages in order.
        written: The folders of those that are written.

    Returns:
        A sentence for each stage, for the picture's ``aria-label``.
    """
    last = stages[-1].weeks[1]
    said = [
        f"{stage.weeks_text}: Stage {stage.number}, {stage.title}, {_state(stage, written)}, "
        f"on {' or '.join(stage.compute)}."
        for stage in stages
    ]
    return " ".join([f"A timeline of {last} weeks.", *said])


def wide(stages: Sequence[Stage], written: Collection[str]) -> str:
    """Draw weeks from left to right and a row for each stage.

    Args:
        stages: The stages in order.
        written: The folders of those that are written.

    Returns:
        An ``<svg>`` element, 760 units wide.
    """
    weeks, row, top, left = stages[-1].weeks[1], 42, 34, 270
    unit = (760 - left) / weeks
    height = top + row * len(stages) + 2
    parts = [_text(left - 14, 20, "week", "pt-tl-note", "end")]
    for week in range(1, weeks + 1):
        x = left + unit * (week - 0.5)
        parts.append(_text(x, 20, str(week), "pt-tl-note", "middle"))
    parts += [
        f'<line class="pt-tl-line" x1="{left + unit * week:g}" x2="{left + unit * week:g}" '
        f'y1="{top - 4}" y2="{height - 2}"/>'
        for week in range(weeks + 1)
    ]
    for stage in stages:
        y = top + row * stage.number
        first, last = stage.weeks
        x, width = left + unit * (first - 1), unit * (last - first + 1)
        state = _state(stage, written)
        parts.append(_text(0, y + 24, f"{stage.number}", "pt-tl-number"))
        parts.append(_text(22, y + 24, stage.title, "pt-tl-title"))
        parts.append(_bar(x + 2, y + 5, width - 4, row - 10, state))
        parts.append(_beside(stage, x, width, y, weeks, state))
    return _svg("pt-timeline-wide", 760, height, describe(stages, written), parts)


def _beside(stage: Stage, x: float, width: float, y: float, weeks: int, state: str) -> str:
    """The state and the hardware, on that side of the bar which has more room."""
    text = f"{state} · {stage.compute_text}" if width < 80 else stage.compute_text
    inside = "" if width < 80 else _text(x + width / 2, y + 24, state, "pt-tl-state", "middle")
    if stage.weeks[1] <= weeks / 2 + 1:
        return inside + _text(x + width + 10, y + 24, text, "pt-tl-note")
    return inside + _text(x - 10, y + 24, text, "pt-tl-note", "end")


def narrow(stages: Sequence[Stage], written: Collection[str]) -> str:
    """Draw weeks from top to bottom and a block for each stage.

    Args:
        stages: The stages in order.
        written: The folders of those that are written.

    Returns:
        An ``<svg>`` element, 340 units wide.
    """
    weeks, row, top, left = stages[-1].weeks[1], 50, 26, 42
    height = top + row * weeks + 2
    parts = [_text(0, 14, "week", "pt-tl-note")]
    for week in range(1, weeks + 1):
        y = top + row * (week - 1)
        parts.append(f'<line class="pt-tl-line" x1="0" x2="340" y1="{y}" y2="{y}"/>')
        parts.append(_text(16, y + row / 2 + 5, str(week), "pt-tl-note", "middle"))
    for stage in stages:
        first, last = stage.weeks
        y, size = top + row * (first - 1), row * (last - first + 1)
        state = _state(stage, written)
        middle = y + size / 2
        parts.append(_bar(left, y + 2, 340 - left - 2, size - 4, state))
        parts.append(_text(left + 12, middle - 2, str(stage.number), "pt-tl-number"))
        parts.append(_text(left + 32, middle - 2, stage.title, "pt-tl-title"))
        note = f"{state} · {stage.compute_text}"
        parts.append(_text(left + 32, middle + 17, note, "pt-tl-state"))
    return _svg("pt-timeline-narrow", 340, height, describe(stages, written), parts)


def _state(stage: Stage, written: Collection[str]) -> str:
    return WRITTEN if stage.folder in written else PLANNED


def _svg(look: str, width: int, height: float, label: str, parts: Sequence[str]) -> str:
    return (
        f'<svg class="pt-timeline {look}" role="img" aria-label="{escape(label)}" '
        f'viewBox="0 0 {width} {height:g}" width="{width}" height="{height:g}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def _text(x: float, y: float, text: str, look: str, anchor: str = "start") -> str:
    return (
        f'<text class="{look}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def _bar(x: float, y: float, width: float, height: float, state: str) -> str:
    return (
        f'<rect class="pt-tl-{state}" x="{x:g}" y="{y:g}" width="{width:g}" '
        f'height="{height:g}" rx="6"/>'
    )
