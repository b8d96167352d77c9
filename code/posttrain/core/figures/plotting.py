"""One look for every figure: inline SVG that follows the page's light or dark theme.

A chapter draws with `figure` and ends with `show`::

    fig, ax = figure()
    ax.plot(steps, loss, label="train")
    label_lines(ax)
    glue("loss-curve", show(fig, alt="Loss falls from 4.2 to 1.6 nats ...", name="loss"),
         display=False)

Text, axes and grid are drawn in `INK`, which the SVG replaces by ``currentColor``, so that they
take the color of the text around them. Data is drawn in `PALETTE`, whose colors stand out from
white and from the theme's dark background, and with a line style and a marker of its own, so
that color is never the only difference.

Chapter: start/how_this_book_works.
"""

import sys
from collections.abc import Sequence
from typing import Any, Literal, cast, overload

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from posttrain.core.figures.line_labels import label_lines
from posttrain.core.figures.style import INK, PALETTE, STYLE, WIDTHS
from posttrain.core.figures.svg import SvgFigure, svg_of

__all__ = [
    "INK",
    "PALETTE",
    "SvgFigure",
    "band",
    "figure",
    "heatmap",
    "label_lines",
    "reference",
    "sequential",
    "show",
]


@overload
def figure(
    width: str = ...,
    height: float = ...,
    ncols: Literal[1] = ...,
    nrows: Literal[1] = ...,
    *,
    sharex: bool = ...,
    sharey: bool = ...,
) -> tuple[Figure, Axes]: ...


@overload
def figure(
    width: str = ...,
    height: float = ...,
    ncols: int = ...,
    nrows: int = ...,
    *,
    sharex: bool = ...,
    sharey: bool = ...,
) -> tuple[Figure, NDArray[np.object_]]: ...


def figure(
    width: str = "full",
    height: float = 2.7,
    ncols: int = 1,
    nrows: int = 1,
    *,
    sharex: bool = False,
    sharey: bool = False,
) -> tuple[Figure, Any]:
    """Make an empty figure in the house style.

    The style is set in `matplotlib.rcParams`, so that what is drawn later has it too.

    Args:
        width: "half" (3.8 in), "full" (5.6 in) or "wide" (8.6 in, scrolls on a phone).
        height: Height in inches.
        ncols: Panels side by side.
        nrows: Panels one above the other.
        sharex: Whether the panels share the x axis.
        sharey: Whether the panels share the y axis.

    Returns:
        The figure and its axes: one Axes for one panel, else an array of Axes, one-dimensional
        for a single row or column and (nrows, ncols) otherwise.

    Raises:
        ValueError: If the width is unknown, or a size or count is not positive.
    """
    if width not in WIDTHS:
        raise ValueError(f"unknown width {width!r}: choose one of {', '.join(WIDTHS)}")
    if height <= 0 or ncols < 1 or nrows < 1:
        raise ValueError(
            f"a figure of {nrows} x {ncols} panels, {height} inches high, cannot be drawn: "
            "give a positive height and at least one row and one column"
        )
    matplotlib.rcParams.update(cast(Any, STYLE))
    fig = Figure(figsize=(WIDTHS[width], height), layout="constrained")
    return fig, fig.subplots(nrows, ncols, sharex=sharex, sharey=sharey)


def show(fig: Figure, *, alt: str, name: str) -> SvgFigure:
    """Turn a figure into inline SVG for the page, and close it.

    Args:
        fig: What `figure` (or pyplot) made.
        alt: What the figure shows, for readers who cannot see it: at least 20 characters.
        name: Lower-case letters, digits, "-" and "_"; no other figure of the page has it.

    Returns:
        An object that notebooks display, and that `glue` accepts.
    """
    shown = svg_of(fig, alt=alt, name=name)
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None:
        pyplot.close(fig)
    return shown


def band(
    ax: Axes,
    x: ArrayLike,
    mean: ArrayLike,
    low: ArrayLike,
    high: ArrayLike,
    label: str,
    **line: Any,
) -> Line2D:
    """Draw a line with a shaded band around it, such as a mean over seeds and its interval.

    Args:
        ax: Axes to draw on.
        x: Positions, shape (n,).
        mean: Middle line, shape (n,).
        low: Lower edge of the band, shape (n,).
        high: Upper edge of the band, shape (n,).
        label: Name of the line, for `label_lines` or the legend.
        **line: Options for the line, as `Axes.plot` takes them.

    Returns:
        The line.

    Raises:
        ValueError: If the four sequences differ in length.
    """
    sizes = [np.shape(values) for values in (x, mean, low, high)]
    if len(set(sizes)) != 1 or len(sizes[0]) != 1:
        raise ValueError(
            f"x, mean, low and high have the shapes {sizes}: give four sequences of one length"
        )
    (drawn,) = ax.plot(x, mean, label=label, **line)
    edges = np.asarray(low), np.asarray(high)
    ax.fill_between(np.asarray(x), *edges, color=drawn.get_color(), alpha=0.2, linewidth=0)
    return drawn


def reference(ax: Axes, y: float, label: str, *, side: str = "right") -> Line2D:
    """Draw a thin horizontal line in the text's color, such as a threshold or a baseline.

    Args:
        ax: Axes to draw on.
        y: Height of the line, in data units.
        label: Written above the line.
        side: "left" or "right": the end of the line where the label stands.

    Returns:
        The line.
    """
    drawn = ax.axhline(y, color=INK, linestyle=(0, (4, 3)), linewidth=1, marker="", alpha=0.75)
    ax.annotate(
        label,
        (1.0 if side == "right" else 0.0, y),
        xycoords=ax.get_yaxis_transform(),
        xytext=(-2 if side == "right" else 2, 2),
        textcoords="offset points",
        ha="right" if side == "right" else "left",
        va="bottom",
        fontsize=9,
    )
    return drawn


def sequential(color: str = PALETTE[0]) -> ListedColormap:
    """Return a color map from nearly transparent to a full color, for either background.

    Args:
        color: The color of the largest value.

    Returns:
        A map of 256 colors whose opacity rises linearly from 0.04 to 1.
    """
    colors = np.tile([*to_rgb(color), 1.0], (256, 1))
    colors[:, 3] = np.linspace(0.04, 1.0, 256)
    return ListedColormap(colors.tolist(), name=f"sequential-{color}")


def heatmap(
    ax: Axes,
    values: ArrayLike,
    *,
    rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None,
    low: float | None = None,
    high: float | None = None,
    color: str = PALETTE[0],
) -> AxesImage:
    """Draw a matrix as cells whose opacity is the value, row 0 at the top.

    Args:
        ax: Axes to draw on.
        values: Matrix, shape (m, n). NaN cells stay empty.
        rows: Names of the m rows, or None for numbers.
        columns: Names of the n columns, or None for numbers.
        low: Value drawn nearly transparent; the smallest one where it is None.
        high: Value drawn in full color; the largest one where it is None.
        color: The full color.

    Returns:
        The image, for `fig.colorbar`.

    Raises:
        ValueError: If the values are no matrix, or the names do not fit it.
    """
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2:
        raise ValueError(f"a heat map needs a matrix, shape (m, n), not shape {matrix.shape}")
    for names, size, what in zip((rows, columns), matrix.shape, ("row", "column"), strict=True):
        if names is not None and len(names) != size:
            raise ValueError(f"{len(names)} {what} names for {size} {what}s: give one for each")
    image = ax.imshow(
        matrix, cmap=sequential(color), vmin=low, vmax=high, aspect="auto", interpolation="none"
    )
    if rows is not None:
        ax.set_yticks(range(len(rows)), labels=list(rows))
    if columns is not None:
        ax.set_xticks(range(len(columns)), labels=list(columns))
    ax.grid(False)
    ax.tick_params(length=0)
    return image
