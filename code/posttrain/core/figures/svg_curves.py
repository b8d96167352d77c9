"""Name the curves of a figure inside its SVG, so that a page can say what the pointer is on.

Each line that has a label becomes a group with ``data-curve`` (the label) and ``data-axes``
(which panel it is in). The SVG element gets ``data-panels``: for each panel how a place in the
drawing gives a value. The page's ``curves.js`` reads them; without it nothing changes.

Chapter: start/how_this_book_works.
"""

import json
import math
import xml.etree.ElementTree as ET
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

ID = "curve:"
LEAST = 2  # named curves: a single one needs no pointing at


def mark_curves(fig: Figure) -> list[Line2D]:
    """Give each line with a label an id of its own; call before the figure is drawn.

    Args:
        fig: The figure.

    Returns:
        The lines, or none if there are too few to choose from.
    """
    panels = [ax for ax in fig.axes if _can_be_read(ax)]
    lines = [line for ax in panels for line in ax.get_lines() if _label(line)]
    if len(lines) < LEAST:
        return []
    for number, line in enumerate(lines):
        line.set_gid(f"{ID}{number}")
    return lines


def name_curves(root: ET.Element, fig: Figure, lines: list[Line2D]) -> None:
    """Write the labels of the lines, and how to read values, into the drawing.

    Args:
        root: The svg element, changed in place.
        fig: The figure, drawn.
        lines: What `mark_curves` returned.
    """
    if not lines:
        return
    panels = [ax for ax in fig.axes if _can_be_read(ax)]
    _, _, _, height = (float(number) for number in root.attrib["viewBox"].split())
    for group in root.iter():
        number = group.get("id", "").removeprefix(ID)
        if number != group.get("id", ""):
            line = lines[int(number)]
            del group.attrib["id"]
            group.set("data-curve", _label(line))
            panel = next(i for i, ax in enumerate(panels) if ax is line.axes)
            group.set("data-axes", str(panel))
    described = [_panel(ax, height) for ax in panels]
    root.set("data-panels", json.dumps(described, ensure_ascii=False, separators=(",", ":")))


def _label(line: Line2D) -> str:
    label = str(line.get_label())
    return "" if label.startswith("_") else " ".join(label.replace("$", "").split())


def _can_be_read(ax: Axes) -> bool:
    scales = {ax.get_xscale(), ax.get_yscale()}
    return scales <= {"linear", "log"} and ax.name == "rectilinear"


def _panel(ax: Axes, height: float) -> dict[str, Any]:
    """Describe a panel: names and scales of its axes, and coordinate = start + step * f(value).

    Args:
        ax: The panel, drawn.
        height: Height of the drawing in points; SVG counts from the top.

    Returns:
        ``x`` and ``y``, each [name, "linear" or "log", start, step]; f is log10 for "log".
    """
    fig = ax.get_figure(root=True)
    assert fig is not None
    low, high = (x * 72 / fig.dpi for x in ax.transData.transform(_corners(ax)))
    ends = {"x": (low[0], high[0]), "y": (height - low[1], height - high[1])}
    panel: dict[str, Any] = {}
    for name, limits, scale, label in (
        ("x", ax.get_xlim(), ax.get_xscale(), ax.get_xlabel()),
        ("y", ax.get_ylim(), ax.get_yscale(), ax.get_ylabel()),
    ):
        a, b = (math.log10(v) if scale == "log" else v for v in limits)
        step = (ends[name][1] - ends[name][0]) / (b - a)
        start = ends[name][0] - step * a
        panel[name] = [" ".join(label.split()), scale, _short(start), _short(step)]
    return panel


def _corners(ax: Axes) -> list[tuple[float, float]]:
    (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
    return [(left, bottom), (right, top)]


def _short(number: float) -> float:
    return float(f"{number:.7g}")
