"""Names at the ends of lines, where a reader looks, instead of in a legend.

Chapter: start/how_this_book_works.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D


def label_lines(ax: Axes, *, gap: float = 12.0, most: float = 30.0) -> bool:
    """Write each line's label at its right end; make a legend instead where that would mislead.

    Labels that would overlap are moved apart. If one would end up farther than `most` from its
    line, or the lines do not end at one x, all of them go into a legend. Call it last, when
    limits and scales are set.

    Args:
        ax: Axes whose lines have labels.
        gap: Smallest vertical distance between two labels, in points.
        most: Largest distance between a label and the end of its line, in points.

    Returns:
        True if the labels stand at the lines, False if there is a legend.

    Raises:
        ValueError: If no line has a label.
    """
    lines = [line for line in ax.get_lines() if not str(line.get_label()).startswith("_")]
    ends = [_last_point(line) for line in lines]
    drawn = [(line, end) for line, end in zip(lines, ends, strict=True) if end is not None]
    if not drawn:
        raise ValueError("no line has a label: draw with ax.plot(..., label=...) first")
    last = max(end[0] for _, end in drawn)
    fig = ax.get_figure(root=True)
    assert fig is not None
    fig.draw_without_rendering()
    places = [ax.transData.transform(end) * 72.0 / fig.dpi for _, end in drawn]
    heights = [float(place[1]) for place in places]
    spread = _spread(heights, gap)
    farthest = max(abs(a - b) for a, b in zip(heights, spread, strict=True))
    if farthest > most or max(p[0] for p in places) - min(p[0] for p in places) > gap:
        ax.legend()
        return False
    if not ax.xaxis_inverted():
        ax.set_xlim(right=last)  # so that nothing runs through the labels
    for (line, end), was, now in zip(drawn, heights, spread, strict=True):
        dot = line.get_color()
        ax.plot(*end, "o", color=dot, markersize=4.5, markevery=1, clip_on=False, zorder=4)
        ax.annotate(
            str(line.get_label()),
            end,
            xytext=(7, now - was),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            annotation_clip=False,
        )
    return True


def _last_point(line: Line2D) -> tuple[float, float] | None:
    data = np.asarray(line.get_xydata(), dtype=float)
    finite = data[np.isfinite(data).all(axis=1)]
    return (float(finite[-1, 0]), float(finite[-1, 1])) if len(finite) else None


def _spread(heights: Sequence[float], gap: float) -> list[float]:
    """Move heights apart to at least `gap`, keeping their order, by merging them into blocks.

    Args:
        heights: Where the labels would like to stand.
        gap: Smallest distance between neighbors.

    Returns:
        Where they stand, in the order of `heights`.
    """
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    blocks = [[i] for i in order]

    def places(block: list[int]) -> list[float]:
        middle = sum(heights[i] for i in block) / len(block)
        return [middle + gap * (k - (len(block) - 1) / 2) for k in range(len(block))]

    merged = True
    while merged:
        merged = False
        for k, (lower, upper) in enumerate(pairwise(blocks)):
            if places(upper)[0] - places(lower)[-1] < gap - 1e-9:
                blocks[k : k + 2] = [lower + upper]
                merged = True
                break
    placed = {i: y for block in blocks for i, y in zip(block, places(block), strict=True)}
    return [placed[i] for i in range(len(heights))]
