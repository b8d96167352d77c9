"""Does a page work with the network off, and fit every width? Looked at in the browser."""

from dataclasses import replace
from pathlib import Path

from tools.site.browser import SHOW, THEMES, UNFOLD, Browser, Visit, screenshot
from tools.site.faults import Fault
from tools.site.links import Site

WIDTHS = {390: 844, 768: 1024, 1280: 800, 1920: 1080}
WEIGHT = 1_000_000  # bytes that a page may cost a reader, without its pictures

AWAIT_MATHS = """async () => {
    const waiting = () => [...document.querySelectorAll(".math")]
        .some(formula => !formula.querySelector("mjx-container")
            || getComputedStyle(formula).visibility === "hidden");
    if (window.MathJax?.startup?.promise) await MathJax.startup.promise;
    let turns = window.MathJax?.startup ? 200 : 6; // no clock: this machine may be busy
    while (waiting() && turns--) await new Promise(done => setTimeout(done, 50));
}"""
LOOK_AT_MATHS = r"""() => {
    const found = [], elsewhere = "pre, code, script, style, noscript, textarea, .math";
    for (const formula of document.querySelectorAll(".math")) {
        if (!formula.querySelector("mjx-container"))
            found.push(["formula not rendered", formula.textContent]);
        else if (formula.checkVisibility() && getComputedStyle(formula).visibility === "hidden")
            found.push(["formula not shown", formula.textContent]);
    }
    for (const error of document.querySelectorAll("mjx-merror, [data-mml-node=merror]"))
        found.push(["formula with an error", error.getAttribute("data-mjx-error")
            || error.getAttribute("title") || error.textContent]);
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (!/\\\(|\\\[|\\begin\{|\$\$/.test(text.data)) continue;
        if (!text.parentElement.closest(elsewhere))
            found.push(["formula not rendered", text.data]);
    }
    for (const image of document.images) {
        if (image.complete && image.naturalWidth === 0 && image.getAttribute("src"))
            found.push(["broken image", image.getAttribute("src")]);
    }
    return found;
}"""
# What is wider than the window: the innermost elements that stick out and that no box around
# them scrolls or cuts. What is cut: wide things whose right end no scrolling reaches.
LOOK_AT_WIDTH = """() => {
    const root = document.documentElement, body = document.body, wide = root.clientWidth;
    const found = [], beyond = Math.max(root.scrollWidth, body.scrollWidth) - wide;
    const name = element => element.tagName.toLowerCase() + (element.id ? "#" + element.id : "")
        + [...element.classList].slice(0, 3).map(each => "." + each).join("");
    const path = element => [element.closest("[id]"), element.parentElement, element]
        .filter((one, at, all) => one && all.indexOf(one) === at).map(name).join(" > ");
    const box = (element, values) => {
        for (let at = element.parentElement; at && at !== body; at = at.parentElement)
            if (values.includes(getComputedStyle(at).overflowX)) return at;
    };
    if (beyond > 1) {
        const over = [...body.querySelectorAll("*")].filter(element => {
            const {right, width} = element.getBoundingClientRect();
            return width && right > wide + 1
                && !box(element, ["auto", "scroll", "hidden", "clip"]);
        });
        const holds = (one, other) => one !== other && one.contains(other);
        const inner = over.filter(one => !over.some(other => holds(one, other)));
        found.push(["the page scrolls sideways", `by ${beyond} px`,
            inner.slice(0, 3).map(path).join(" | ")]);
    }
    const things = "main :is(pre, table, svg, img, mjx-container[display=true])";
    for (const element of document.querySelectorAll(things)) {
        const {right, width} = element.getBoundingClientRect();
        const cut = box(element, ["hidden", "clip"]);
        const scrolls = box(element, ["auto", "scroll"]);
        if (!width || !cut || (scrolls && cut.contains(scrolls))) continue;
        const lost = Math.round(right - cut.getBoundingClientRect().right);
        if (lost > 1)
            found.push(["cut off", `${lost} px of it cannot be reached`, path(element)]);
    }
    return found;
}"""


def open_page(browser: Browser, page: str, *, disk: bool = False) -> Visit:
    """Open a page, let everything on it appear, and unfold what is folded.

    Args:
        browser: The browser to open it in.
        page: The page's path below the site's folder.
        disk: Whether to open the file itself, without the server.

    Returns:
        The open page.
    """
    visit = browser.open(page, disk=disk)
    visit.tab.evaluate(SHOW)
    visit.tab.evaluate(UNFOLD)
    visit.tab.evaluate(AWAIT_MATHS)
    return visit


def look_offline(
    browser: Browser, site: Site, visit: Visit, pictures: Path | None
) -> list[Fault]:
    """Check all of the offline goal on an open page, its links included.

    Args:
        browser: The browser it is open in.
        site: The site, read as text.
        visit: What `open_page` returned.
        pictures: Where pictures of faults go, or None.

    Returns:
        What is wrong with the page.
    """
    _look_at_maths(visit)
    _weigh(browser, visit)
    for width, height in WIDTHS.items():  # a new width costs more than a new theme
        for theme in THEMES:
            visit.set(theme, (width, height))
            for rule, what, element in visit.tab.evaluate(LOOK_AT_WIDTH):
                visit.add(rule, what, element, f"{theme}, {width} px")
                screenshot(visit, pictures, f"{rule}-{theme}-{width}")
    # A page asks for outside files in its text and in the browser: one report is enough.
    seen = {fault.rule for fault in visit.faults}
    twins = {"outside file": "outside request", "broken image": "missing file"}
    links = [fault for fault in site.faults(visit.page) if twins.get(fault.rule) not in seen]
    return [*links, *visit.faults]


def look_from_disk(browser: Browser, page: str) -> list[Fault]:
    """Check that a page also works where its file is opened without a server.

    Args:
        browser: The browser to open it in.
        page: The page's path below the site's folder.

    Returns:
        What is wrong with it then.
    """
    visit = open_page(browser, page, disk=True)
    _look_at_maths(visit)
    return [replace(fault, where="opened as a file") for fault in visit.faults]


def _look_at_maths(visit: Visit) -> None:
    found: list[list[str]] = visit.tab.evaluate(LOOK_AT_MATHS)
    for rule, what in found:
        visit.add(rule, what)


def _weigh(browser: Browser, visit: Visit) -> None:
    sizes = {
        address: browser.server.files.size(address.removeprefix(visit.origin))
        for address in visit.addresses
    }
    total = sum(sizes.values())
    if total > WEIGHT:
        heavy = sorted(sizes, key=sizes.__getitem__, reverse=True)[:4]
        parts = ", ".join(f"{a.rsplit('/', 1)[1]} {sizes[a] / 1000:.0f} kB" for a in heavy)
        visit.add("heavy page", f"{total / 1000:.0f} kB without pictures: {parts}")
