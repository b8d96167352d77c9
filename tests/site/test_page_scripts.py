"""The scripts in book/_static, in a real browser: what a reader sees and reaches."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import pytest

from posttrain.core.figures.plotting import figure, label_lines, show

STATIC = Path(__file__).parents[2] / "book" / "_static"
CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@pytest.fixture(scope="module")
def tab() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM:
        pytest.skip("Chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=120_000)
        page = browser.new_page(viewport={"width": 800, "height": 600})
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def show_page(tab: Any, body: str, script: str) -> None:
    tab.set_viewport_size({"width": 800, "height": 600})
    tab.set_content(f"<!DOCTYPE html><body><main><article>{body}</article></main>")
    tab.add_style_tag(path=STATIC / "figures.css")
    tab.add_script_tag(path=STATIC / script)


@pytest.fixture(scope="module")
def curves() -> str:
    with matplotlib.rc_context():
        fig, ax = figure()
        ax.plot([0, 100, 200], [4.0, 2.0, 1.5], label="slow")
        ax.plot([0, 100, 200], [4.0, 1.0, 0.5], label="fast")
        ax.set(xlabel="step", ylabel="loss")
        label_lines(ax)
        shown = show(fig, alt="Two curves fall, one of them faster.", name="fall")
    return f"<figure>{shown._repr_mimebundle_()['text/html']}</figure>"


def point_at(tab: Any, label: str, part: float) -> None:
    """Move the pointer to a place on a curve: 0 is its first point, 1 its last."""
    place = tab.evaluate(
        """([label, part]) => {
            const path = document.querySelector(`[data-curve="${label}"] > path`);
            const at = path.getPointAtLength(part * path.getTotalLength());
            const {x, y} = new DOMPoint(at.x, at.y).matrixTransform(path.getScreenCTM());
            return [x, y];
        }""",
        [label, part],
    )
    tab.mouse.move(*place)


def test_the_curve_under_the_pointer_is_named_with_its_value(tab: Any, curves: str) -> None:
    show_page(tab, curves, "curves.js")
    readout = tab.locator(".pt-readout")
    assert not readout.is_visible()
    point_at(tab, "fast", 1.0)
    assert readout.text_content() == "fast: step 200, loss 0.50"
    assert tab.locator(".pt-nearest").get_attribute("data-curve") == "fast"
    point_at(tab, "slow", 0.98)
    assert readout.text_content() == "slow: step 200, loss 1.50"
    tab.mouse.move(5, 590)
    assert not readout.is_visible() and tab.locator(".pt-dot").count() == 0
    assert tab.locator(".pt-pointing").count() == 0


def test_the_figure_keeps_its_label_and_the_readout_is_not_read_out(
    tab: Any, curves: str
) -> None:
    show_page(tab, curves, "curves.js")
    point_at(tab, "slow", 0.5)
    assert (
        tab.locator("svg").get_attribute("aria-label") == "Two curves fall, one of them faster."
    )
    assert tab.locator(".pt-readout").get_attribute("aria-hidden") == "true"


def test_boxes_that_scroll_can_be_reached_and_have_a_name(tab: Any) -> None:
    wide = "x" * 400
    show_page(
        tab,
        f'<pre style="overflow-x:auto">{wide}</pre><pre style="overflow-x:auto">short</pre>'
        '<div class="pst-scrollable-table-container" style="overflow-x:auto">'
        f"<table><tr><td>{wide}</td></tr></table></div>",
        "scroll_boxes.js",
    )
    tab.wait_for_selector("[tabindex]")
    named = "els => els.map(e => [e.tagName, e.tabIndex, e.getAttribute('aria-label')])"
    assert tab.eval_on_selector_all("[data-scrolls]", named) == [
        ["PRE", 0, "Code, scrolls sideways"],
        ["DIV", 0, "Table, scrolls sideways"],
    ]
    tab.set_viewport_size({"width": 6000, "height": 600})
    tab.wait_for_selector("[data-scrolls]", state="detached")
    assert tab.locator("[tabindex]").count() == 0


def test_live_code_asks_for_nothing_until_it_is_started(tab: Any) -> None:
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.route("https://**", lambda route: route.abort())
    body = (
        '<h1>Title</h1><div class="cell"><div class="cell_input"><pre>1</pre></div></div>'
        '<script type="application/json" id="pt-live-code">{"cells": [null]}</script>'
    )
    show_page(tab, body, "live_code.js")
    assert not [url for url in asked if url.startswith("http")]
    tab.evaluate("startLiveCode()")
    assert asked[-1] == "https://unpkg.com/thebe@0.9.3/lib/thebe.css"
    status = tab.locator(".pt-live-status")
    assert status.get_attribute("role") == "status"
    assert "this did not work" in (status.text_content() or "")
    tab.unroute("https://**")


@pytest.fixture
def formulas(tab: Any, tmp_path: Path) -> Any:
    """A page from a folder, like an unpacked site: formulas at its beginning and its end."""
    offline_assets = pytest.importorskip("book._ext.theme.offline_assets")
    pytest.importorskip("mathjax")
    app: Any = SimpleNamespace(outdir=tmp_path, builder=SimpleNamespace(format="html"))
    config: Any = SimpleNamespace(mathjax3_config=None, mathjax_path="")
    offline_assets.configure(app, config)
    offline_assets.copy_mathjax(app, None)
    (tmp_path / "index.html").write_text(
        "<!DOCTYPE html><html data-theme=light><style>"
        + (STATIC / "custom.css").read_text()
        + "</style><body><article>"
        r'<p>Inline <span class="math notranslate">\(x^{a}\)</span> and'
        r'<div class="math notranslate">\[x^{a} \boldsymbol{b}\]</div>'
        '<p style="height: 3000px">Far below: '
        r'<p><span class="math notranslate" id="last">\(y\)</span></article>'
        f"<script>window.MathJax = {json.dumps(config.mathjax3_config)}</script>"
        f'<script defer src="_static/{config.mathjax_path}"></script>'
        f'<script defer src="{(STATIC / "formulas.js").as_uri()}"></script>'
    )
    tab.set_viewport_size({"width": 800, "height": 600})
    tab.goto((tmp_path / "index.html").as_uri())
    return tab


def test_formulas_in_view_are_drawn_first_and_the_others_when_the_reader_moves(
    formulas: Any,
) -> None:
    formulas.wait_for_selector("div.math.pt-drawn mjx-container")
    assert formulas.locator("span.math.pt-drawn").count() == 1
    assert formulas.locator("#last mjx-container").count() == 0
    formulas.keyboard.press("PageDown")
    formulas.wait_for_selector("#last.pt-drawn mjx-container", state="attached")
    assert formulas.locator("mjx-merror").count() == 0


def test_an_index_in_running_text_is_smaller_than_its_letter(formulas: Any) -> None:
    formulas.wait_for_selector("div.math.pt-drawn mjx-container")
    sizes = """() => [...document.querySelectorAll("p:first-child mjx-mi")]
        .map((letter) => parseFloat(getComputedStyle(letter).fontSize))"""
    letter, index = formulas.evaluate(sizes)
    assert letter > 16 and index == pytest.approx(0.707 * letter, rel=0.01)


def test_without_mathjax_a_formula_is_shown_in_tex(tab: Any) -> None:
    show_page(tab, '<p><span class="math">x^2</span>', "formulas.js")
    tab.wait_for_selector(".math.pt-drawn")
