"""Can a reader without a mouse reach and work the controls, and see where the focus is?

The Tab key is pressed until each kind of control was reached once. Then its place is
photographed with and without the focus, in both themes: the two pictures must differ.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.site.browser import DESKTOP, PHONE, THEMES, Browser, Visit, screenshot
from tools.site.faults import Fault
from tools.site.links import Site

STOPS = 600  # Tab presses after which a control counts as out of reach
MARGIN = 6  # pixels around a control in which a focus ring may be drawn
VISIBLE = 30  # pixels that must change


@dataclass(frozen=True)
class Control:
    """A kind of control.

    Attributes:
        name: What to call it.
        selector: Matches it in the page.
        source: Matches the text of a page that has one; every page, if empty.
        size: The window in which it is looked for.
        key: The key that works it.
        worked: JavaScript: whether the key had its effect on ``element``; empty if that is not
            tried.
        optional: Whether the book may do without it.
    """

    name: str
    selector: str
    source: str = ""
    size: tuple[int, int] = DESKTOP
    key: str = "Enter"
    worked: str = ""
    optional: bool = False


SHOWN = "[...document.querySelectorAll('{}')].some(e => e.checkVisibility())"
FOLDED = r'class="(?=[^"]*\badmonition\b)[^"]*\bdropdown\b'
CONTROLS = (
    Control(
        "search",
        "input[type=search], [class*=search-button], button[aria-label^=Search]",
        key=" ",
        worked="document.activeElement.matches('input[type=search]')",
    ),
    Control("sidebar", ".bd-sidebar-primary nav a"),
    Control("card", "main .pt-card a", source=r'class="pt-card[ "]'),
    Control(
        "sidebar button on a phone",
        ".primary-toggle",
        size=PHONE,
        worked=SHOWN.format(".bd-sidebar-primary nav a"),
    ),
    Control(
        "folded solution",
        "main button.toggle-button",
        source=FOLDED,
        worked="!element.closest('.admonition').classList.contains('toggle-hidden')",
    ),
    Control(
        "folded cell or box",
        "main summary",
        source=r"<main[\s\S]*<summary",
        worked="element.closest('details').open",
    ),
    Control(
        "tab",
        ".sd-tab-set > input, [role=tab]",
        source=r'class="sd-tab-set|role="tab"',
        key="ArrowRight",
        worked="document.activeElement !== element",
        optional=True,
    ),
)
AT = "selector => !!document.activeElement && document.activeElement.matches(selector)"
PLACE = """() => {
    const element = document.activeElement;
    const parts = [element, element.closest(".pt-card"), ...(element.labels || [])];
    const boxes = parts.filter(Boolean).map(part => part.getBoundingClientRect());
    return [Math.min(...boxes.map(b => b.left)), Math.min(...boxes.map(b => b.top)),
        Math.max(...boxes.map(b => b.right)), Math.max(...boxes.map(b => b.bottom))];
}"""


def pages_with_controls(site: Site) -> list[tuple[Control, str]]:
    """Return each kind of control with the shortest page that has one.

    Args:
        site: The site, read as text.

    Returns:
        Pairs of a control and a page's path; no pair for a kind that the site lacks, which
        `absent_controls` names.
    """
    pages = [page for page, text in site.pages.items() if not text.forwards]
    pages = [page for page in pages if page.startswith("book/")] or pages
    texts = {page: (site.folder / page).read_text(encoding="utf-8") for page in pages}
    pairs = []
    for control in CONTROLS:
        holders = [page for page in texts if re.search(control.source, texts[page])]
        if holders:
            pairs.append((control, min(holders, key=lambda page: len(texts[page]))))
    return pairs


def absent_controls(pairs: Sequence[tuple[Control, str]]) -> list[Fault]:
    """Return a fault for each kind of control that no page has, though the book needs it.

    Args:
        pairs: What `pages_with_controls` found.

    Returns:
        The faults; the control is gone, or its pattern no longer fits the pages.
    """
    held = {control for control, _ in pairs}
    return [
        Fault("keyboard", "the site", "no such control", f"no page has the {each.name}")
        for each in CONTROLS
        if each not in held and not each.optional
    ]


def look_with_keyboard(
    browser: Browser, control: Control, page: str, pictures: Path | None
) -> list[Fault]:
    """Reach a control with the Tab key, see it in focus, and work it.

    Args:
        browser: The browser to use.
        control: The kind of control.
        page: A page that has one.
        pictures: Where pictures of faults go, or None.

    Returns:
        What is wrong with it.
    """
    visit = browser.open(page, control.size)
    if not _reach(visit, control):
        what = f"the {control.name} is not reached with the Tab key"
        return [Fault("keyboard", page, "out of reach", what, control.selector)]
    faults = _unseen(visit, control, pictures)
    if control.worked and not _answers(visit, control):
        what = f"the key {control.key!r} does not work the {control.name}"
        faults.append(Fault("keyboard", page, "does not answer", what, control.selector))
    return faults


def _answers(visit: Visit, control: Control) -> bool:
    visit.tab.evaluate("window.element = document.activeElement")
    visit.tab.keyboard.press(control.key)
    visit.tab.wait_for_timeout(100)
    return bool(visit.tab.evaluate(control.worked))


def _reach(visit: Visit, control: Control) -> bool:
    for _ in range(STOPS):
        visit.tab.keyboard.press("Tab")
        if visit.tab.evaluate(AT, control.selector):
            return True
        if visit.tab.evaluate("document.activeElement === document.body"):
            return False  # once around
    return False


def _unseen(visit: Visit, control: Control, pictures: Path | None) -> list[Fault]:
    def fault(what: str, where: str = "") -> Fault:
        text = f"the {control.name} has the focus, but {what}"
        return Fault("keyboard", visit.page, "focus not seen", text, control.selector, where)

    left, top, right, bottom = visit.tab.evaluate(PLACE)
    x, y = max(0, left - MARGIN), max(0, top - MARGIN)
    width = min(right + MARGIN, control.size[0]) - x
    height = min(bottom + MARGIN, control.size[1]) - y
    if width <= 0 or height <= 0:
        return [fault("stands outside the window")]

    def shot(theme: str) -> bytes:
        visit.set(theme, control.size)
        clip = {"x": x, "y": y, "width": width, "height": height}
        return visit.tab.screenshot(clip=clip)  # type: ignore[arg-type]

    focused = {theme: shot(theme) for theme in THEMES}
    visit.tab.evaluate("window.focused = document.activeElement; focused.blur()")
    faults = []
    for theme in THEMES:
        if _changed(focused[theme], shot(theme)) < VISIBLE:
            faults.append(fault("nothing on the screen shows it", theme))
            screenshot(visit, pictures, f"focus-{control.name}-{theme}")
    visit.tab.evaluate("focused.focus()")
    return faults


def _changed(one: bytes, other: bytes) -> int:
    from PIL import Image, ImageChops

    pictures = [Image.open(io.BytesIO(data)).convert("L") for data in (one, other)]
    histogram = ImageChops.difference(*pictures).histogram()
    return sum(histogram[24:])
