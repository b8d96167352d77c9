"""Serious and critical faults that axe-core finds on a page, in each theme and two sizes."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tools.site.browser import DESKTOP, FOLD, PHONE, UNFOLD, Visit, screenshot
from tools.site.faults import Fault, ToolMissing, short

NO_AXE = "this check needs the Python package axe-playwright-python: run make install"
GRAVE = ("serious", "critical")
# Every rule in the light theme; in the dark theme and on a phone only those that can differ.
COLORS = ["color-contrast", "link-in-text-block"]
SIZES = ["scrollable-region-focusable", "target-size", "button-name", "link-name"]
VIEWS: list[tuple[str, tuple[int, int], list[str]]] = [
    ("light", DESKTOP, []),
    ("dark", DESKTOP, COLORS),
    ("light", PHONE, SIZES),
]
SETTLED = 500  # milliseconds after which the theme has done what it does when a window changes
# What takes most of the time tells nothing new: tokens of code that look like others of their
# kind of block, the letters of formulas after the first few, and the insides of pictures, whose
# colors axe-core does not judge.
TRIM = """() => {
    const seen = {};
    for (const token of document.querySelectorAll("main pre span")) {
        const block = token.closest("pre").parentElement;
        const kind = [token, block, block.parentElement, block.parentElement.parentElement]
            .map(each => each?.className).join("|");
        seen[kind] = (seen[kind] || 0) + 1;
        if (seen[kind] > 2 && !token.children.length) token.replaceWith(token.textContent);
    }
    const formulas = [...document.querySelectorAll("mjx-math")];
    const sizes = formulas.map(formula => formula.getBoundingClientRect());
    formulas.slice(5).forEach((formula, i) => {
        const {width, height} = sizes[i + 5];
        formula.replaceChildren();
        formula.style.cssText = `display: inline-block; width: ${width}px; height: ${height}px`;
    });
    document.querySelectorAll("main svg > :not(title, desc)").forEach(part => part.remove());
    document.querySelectorAll("main pre").forEach(block => block.normalize());
}"""
RUN = """async rules => {
    const options = {resultTypes: ["violations"], elementRef: false};
    if (rules.length) options.runOnly = {type: "rule", values: rules};
    const {violations} = await axe.run(document, options);
    return violations.map(({id, impact, help, nodes}) => ({id, impact, help,
        nodes: nodes.map(({target, html, any}) => ({target: target.flat().join(" "), html,
            why: any.map(({message}) => message).join("; ")}))}));
}"""


@cache
def axe_source() -> str:
    """Return axe-core's script.

    Raises:
        ToolMissing: If the package that holds it is not installed.
    """
    try:
        return (files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
    except ModuleNotFoundError as error:
        raise ToolMissing(NO_AXE) from error


def look_with_axe(visit: Visit, pictures: Path | None) -> list[Fault]:
    """Run axe-core on an open page, as a reader finds it who has unfolded everything.

    Args:
        visit: The open page; it is of no use afterwards.
        pictures: Where pictures of the elements go, or None.

    Returns:
        A fault for each rule and element.
    """
    visit.tab.evaluate(axe_source())
    visit.tab.evaluate(TRIM)
    faults: list[Fault] = []
    before = None
    for theme, size, rules in VIEWS:
        if size != before:
            visit.tab.evaluate(FOLD)
            visit.set(theme, size)
            visit.tab.wait_for_timeout(SETTLED)
            visit.tab.evaluate(UNFOLD)
        visit.set(theme, size)
        before = size
        for rule in visit.tab.evaluate(RUN, rules):
            if rule["impact"] in GRAVE:
                where = f"{theme}, {size[0]} px"
                faults += [_fault(visit.page, rule, node, where) for node in rule["nodes"]]
                if rule["id"] not in SIZES:  # there, trimming may leave nothing to see
                    name = f"{rule['id']}-{theme}-{size[0]}"
                    screenshot(visit, pictures, name, rule["nodes"][0]["target"])
    return faults


def _fault(page: str, rule: dict[str, Any], node: dict[str, str], where: str) -> Fault:
    what = short(f"{rule['help']}. {node['why']}".strip(". "), 300)
    element = f"{node['target']}  {short(node['html'], 100)}"
    return Fault("axe", page, rule["id"], what, element, where)
