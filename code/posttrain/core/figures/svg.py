"""Turn a matplotlib figure into an SVG element that can stand inside a web page.

Chapter: start/how_this_book_works.
"""

import hashlib
import io
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal
from matplotlib.text import Text

from posttrain.core.figures.style import INK
from posttrain.core.figures.svg_curves import mark_curves, name_curves

SVG = "http://www.w3.org/2000/svg"
XLINK_HREF = "{http://www.w3.org/1999/xlink}href"
NAME = re.compile(r"[a-z][a-z0-9_-]*")
AUTOMATIC_ID = re.compile(r"[A-Za-z][A-Za-z0-9.]*_\d+")
REFERENCE = re.compile(r"(?:url\(|^)#([^)]+)")
LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}(?!\d*e)")
SHORTEST_ALT = 20

#: A figure of at most this many points shrinks to a phone's column of text, which is this many
#: CSS pixels wide. A wider figure keeps 1 CSS pixel per point, and its box scrolls.
SHRINKS, PHONE = 420, 340
LARGEST = 1.5  # CSS pixels per point

FONTS = "var(--pst-font-family-base, system-ui, sans-serif)"
MONOSPACE = "var(--pst-font-family-monospace, monospace)"


@dataclass(frozen=True)
class SvgFigure:
    """A finished figure.

    Attributes:
        svg: The SVG element; its text and axes have the color of the text around it.
        alt: What the figure shows, in words.
        name: The figure's name, unique on its page.
    """

    svg: str
    alt: str
    name: str

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        box = f'<div class="pt-figure" style="overflow-x:auto">{self.svg}</div>'
        return {"text/html": box, "text/plain": f"Figure: {self.alt}"}

    def __repr__(self) -> str:
        return f"SvgFigure(name={self.name!r}, {len(self.svg)} characters)"


def svg_of(fig: Figure, *, alt: str, name: str) -> SvgFigure:
    """Draw a figure as an SVG element; the same figure gives the same text.

    Args:
        fig: Any matplotlib figure.
        alt: What it shows, in words: at least 20 characters.
        name: Lower-case letters, digits, "-" and "_", starting with a letter.

    Returns:
        The figure.

    Raises:
        ValueError: If `alt` is too short or `name` is malformed.
    """
    alt = " ".join(alt.split())
    if len(alt) < SHORTEST_ALT:
        raise ValueError(
            f"the alternative text {alt!r} has {len(alt)} characters: say in at least "
            f"{SHORTEST_ALT} what the figure shows, for readers who cannot see it"
        )
    if not NAME.fullmatch(name):
        raise ValueError(
            f"the figure name {name!r} is malformed: use lower-case letters, digits, "
            "'-' and '_', and start with a letter"
        )
    fig.draw_without_rendering()  # makes the tick labels
    for text in fig.findobj(Text):
        if isinstance(text, Text) and text.get_text().count("$") > 1:
            text.set_path_effects([Normal()])  # formulas as outlines: their fonts are not here
    curves = mark_curves(fig)
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "posttrain"}):
        fig.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    drawn = buffer.getvalue()
    prefix = f"{name}-{hashlib.sha256(drawn.encode()).hexdigest()[:6]}-"
    root = ET.fromstring(drawn)
    name_curves(root, fig, curves)
    _scope(root, prefix)
    _fit(root, alt)
    ET.register_namespace("", SVG)
    svg = ET.tostring(root, encoding="unicode").replace(f' xmlns="{SVG}"', "", 1)
    return SvgFigure(re.sub(r">\s+<", "><", svg), alt, name)


def _scope(root: ET.Element, prefix: str) -> None:
    """Keep a drawing's names, colors, fonts and rules to itself, and shorten its paths.

    Args:
        root: The svg element, changed in place.
        prefix: Put before each id.
    """
    everything = list(root.iter())
    used = {
        name
        for element in everything
        for value in element.attrib.values()
        for name in REFERENCE.findall(value)
    }
    for parent in everything:
        for child in list(parent):
            # A <style> element inside a page would style the whole page.
            if child.tag in (f"{{{SVG}}}style", f"{{{SVG}}}metadata"):
                parent.remove(child)
    for element in everything:
        if XLINK_HREF in element.attrib:
            element.set("href", element.attrib.pop(XLINK_HREF))
        name = element.get("id")
        if name and name not in used and AUTOMATIC_ID.fullmatch(name):
            del element.attrib["id"]
        elif name:
            element.set("id", prefix + name)
        for key, value in list(element.attrib.items()):
            if key == "href" and value.startswith("#"):
                element.set(key, "#" + prefix + value[1:])
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
        if "d" in element.attrib:
            path = LONG_NUMBER.sub(
                lambda number: f"{float(number[0]):.2f}", element.attrib["d"]
            )
            element.set("d", " ".join(path.split()))
        if "style" in element.attrib:
            element.set("style", _page_style(element.attrib["style"]))


def _page_style(style: str) -> str:
    """Rewrite one style attribute to the page's color and fonts.

    Args:
        style: Declarations as matplotlib writes them.

    Returns:
        The declarations for the page.
    """
    kept = []
    for declaration in style.split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font-family":
            if "mono" not in value.lower():
                continue  # inherited from the svg element
            value = MONOSPACE
        if value in (INK, "#000000"):
            value = "currentColor"
        if key:
            kept.append(f"{key}: {value}")
    return "; ".join(kept)


def _fit(root: ET.Element, alt: str) -> None:
    """Make a drawing fill its column, and give it a role and a label.

    Args:
        root: The svg element, changed in place.
        alt: What the drawing shows.
    """
    _, _, width, _ = (float(number) for number in root.attrib["viewBox"].split())
    smallest = min(width, PHONE) if width <= SHRINKS else width
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", alt)
    root.set("fill", "currentColor")  # matplotlib leaves "fill" out where it is black
    root.set("stroke-linejoin", "round")
    root.set("stroke-linecap", "butt")
    root.set(
        "style",
        "display:block; margin:0 auto; width:100%; height:auto; "
        f"min-width:{smallest:.0f}px; "
        f"max-width:{width * LARGEST:.0f}px; font-family:{FONTS}",
    )
