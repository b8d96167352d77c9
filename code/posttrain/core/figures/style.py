"""The colors, line styles, sizes and fonts of every figure.

Chapter: start/how_this_book_works.
"""

from typing import Any

from cycler import cycler

#: Stands for the color of the page's text while matplotlib draws; the SVG has `currentColor`.
INK = "#010203"

#: Blue, orange, green, magenta, violet, red: at least 3:1 on #ffffff and on #14181e, and apart
#: from each other for readers with any of the three color vision deficiencies.
PALETTE = ("#0b74c0", "#d9752a", "#28a37c", "#aa4687", "#a677f6", "#d7162a")
LINE_STYLES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)), (0, (9, 2)), "-")
MARKERS = ("o", "s", "^", "D", "v", "P")

#: Widths in inches. "half" and "full" shrink to the width of a phone (10-point text is then
#: about 9 pixels high); "wide" stays 1 CSS pixel per point, and its box scrolls on a phone.
WIDTHS = {"half": 3.8, "full": 5.6, "wide": 8.6}

STYLE: dict[str, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": INK,
    "axes.facecolor": "none",
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.labelsize": 10,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=PALETTE)
    + cycler(linestyle=LINE_STYLES)
    + cycler(marker=MARKERS)
    + cycler(markevery=[0.11] * len(PALETTE)),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "boxplot.boxprops.color": INK,
    "figure.edgecolor": "none",
    "figure.facecolor": "none",
    "figure.titlesize": 11,
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "grid.alpha": 0.14,
    "grid.color": INK,
    "grid.linewidth": 0.8,
    "hatch.color": INK,
    "hatch.linewidth": 0.6,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "legend.labelcolor": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
    "mathtext.fontset": "dejavusans",
    "patch.edgecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "xtick.labelcolor": INK,
    "xtick.labelsize": 9.5,
    "ytick.color": INK,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9.5,
}
