"""Social cards: the picture that a chat or a search engine shows beside a link to a page."""

import hashlib
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.core.storage.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.font_manager import FontProperties

SIZE = (1200, 630)  # pixels, what Open Graph asks for
PAPER, INK, GRAY = "#ffffff", "#1a2027", "#55606b"
BLUE, SAND = "#0b74c0", "#ffd9a8"  # the logo's
PANEL = 260  # pixels at the right, for the logo's curve
LEFT, ROOM = 72, SIZE[0] - PANEL - 2 * 72


@dataclass(frozen=True)
class Card:
    """What stands on a card.

    Attributes:
        book: The book's title.
        part: The part that the page belongs to; may be empty.
        title: The page's title.
        summary: A sentence or two.
        address: The site's address.
    """

    book: str
    part: str
    title: str
    summary: str
    address: str


def card_name(card: Card, page: str) -> str:
    """Return the card's file name, which changes with what it shows and how it is drawn.

    Chats keep pictures by their address, so a new picture needs a new one.

    Args:
        card: What stands on the card.
        page: The page's name.

    Returns:
        A name such as ``book-sft-lora-1f2e3d4c.png``.
    """
    digest = hashlib.sha256(repr(astuple(card)).encode() + Path(__file__).read_bytes())
    return f"{page.replace('/', '-')}-{digest.hexdigest()[:8]}.png"


def write_card(card: Card, path: Path) -> None:
    """Draw a card.

    Args:
        card: What stands on it.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / 100, SIZE[1] / 100), dpi=100, facecolor=PAPER)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, SIZE[0]), ylim=(SIZE[1], 0))
    axes.axis("off")
    _panel(axes)
    same = card.title == card.book
    _lines(axes, card.part or ("" if same else card.book), 96, 27, BLUE, 1, "bold")
    size = 54 if len(card.title) < 48 else 46
    end = _lines(axes, card.title, 168, size, INK, 3, "bold")
    _lines(axes, card.summary, max(end + 22, 320), 25, GRAY, 4)
    foot = card.address if same or not card.part else f"{card.book}  ·  {card.address}"
    _lines(axes, foot, 562, 21, INK, 1)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, metadata={"Software": None})


def _panel(axes: "Axes") -> None:
    """Draw the logo's curve, large, on blue."""
    from matplotlib.patches import Circle, PathPatch, Rectangle
    from matplotlib.path import Path as Curve

    left, scale = SIZE[0] - PANEL, 4.0
    axes.add_patch(Rectangle((left, 0), PANEL, SIZE[1], color=BLUE, linewidth=0))

    def place(*points: tuple[int, int]) -> list[tuple[float, float]]:
        x0, y0 = left + PANEL / 2 - 32 * scale, SIZE[1] / 2 - 31 * scale
        return [(x0 + scale * x, y0 + scale * y) for x, y in points]

    curves = {
        "#ffffff": place((11, 13), (15, 37), (22, 46), (33, 46)),
        SAND: place((33, 46), (43, 46), (48, 37), (52, 22)),
    }
    for color, points in curves.items():
        curve = Curve(points, [Curve.MOVETO, Curve.CURVE4, Curve.CURVE4, Curve.CURVE4])
        width = 5 * scale * 72 / 100
        style = {"edgecolor": color, "linewidth": width, "capstyle": "round"}
        axes.add_patch(PathPatch(curve, facecolor="none", **style))
    axes.add_patch(Circle(place((33, 46))[0], 5.5 * scale, color="#ffffff", linewidth=0))


def _lines(
    axes: "Axes",
    text: str,
    top: float,
    size: float,
    color: str,
    most: int,
    weight: str = "normal",
) -> float:
    """Write wrapped text and return where it ends; sizes and places are in pixels."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family="DejaVu Sans", size=size * 0.72, weight=weight)
    lines = wrap(text, font, ROOM)
    if len(lines) > most:
        lines = [*lines[: most - 1], f"{lines[most - 1].rstrip('.,;:')} …"]
    for line in lines:
        written = axes.text(LEFT, top, line, fontproperties=font, color=color)
        written.set_parse_math(False)
        top += size * 1.28
    return top


def wrap(text: str, font: "FontProperties", width: float) -> list[str]:
    """Break text into lines that are at most so many pixels wide at 100 dots an inch."""
    from matplotlib.textpath import TextToPath

    measure = TextToPath()
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        pixels = measure.get_text_width_height_descent(longer, font, ismath=False)[0] * 100 / 72
        if lines and pixels <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines
