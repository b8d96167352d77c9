"""The checks that need a browser, on a small clean site and on ones with exactly one fault."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="playwright is not installed")
if not any(map(shutil.which, (os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser"))):
    pytest.skip("Chromium is not installed", allow_module_level=True)

from tools.site.axe import look_with_axe
from tools.site.browser import Browser
from tools.site.faults import Fault
from tools.site.keyboard import CONTROLS, Control, look_with_keyboard
from tools.site.links import Site
from tools.site.offline import look_from_disk, look_offline, open_page
from tools.site.search import look_for_term
from tools.site.server import SiteServer

HEAD = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>A page</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><style>
html[data-theme=dark] body { background: #111; color: #eee }
html[data-theme=dark] a { color: #9cf }
body { margin: 1rem; max-width: 60rem } pre { overflow-x: auto }
.toggle-hidden > p:not(.admonition-title) { display: none }
.sd-tab-set > input { position: absolute; opacity: 0 }
.sd-tab-set > input:focus + label { outline: 3px solid red }
</style></head><body>
"""
CLEAN = """<nav class="bd-sidebar-primary"><nav><a href="page.html#here">Here</a></nav></nav>
<main><h1 id="here">A page</h1>
<form action="search.html"><input type="search" name="q" aria-label="Search"></form>
<p>Costs $5, and <code>$$</code> is a process; <span class="math"><mjx-container>x
</mjx-container></span>.</p>
<pre tabindex="0">WIDE</pre>
<div class="admonition dropdown toggle toggle-hidden"><p class="admonition-title">Solution
<button class="toggle-button" aria-label="Show it" onclick="
this.closest('.admonition').classList.toggle('toggle-hidden')">+</button></p><p>42</p></div>
<details><summary>More</summary><p>Text.</p></details>
<div class="sd-tab-set"><input type="radio" name="t" id="t1" checked><label for="t1">One</label>
<input type="radio" name="t" id="t2"><label for="t2">Two</label></div>
<svg width="20" height="20" aria-hidden="true"><clipPath id="c"><rect width="9" height="9"/>
</clipPath><rect clip-path="url(#c)" width="20" height="20"/></svg>
</main></body></html>
""".replace("WIDE", "wide " * 400)
RESULTS = """<main><h1>Search</h1><div id="search-results"></div></main><script>
const term = new URLSearchParams(location.search).get("q");
const found = {"NF4": ["qlora.html", "page.html"], "merge": ["page.html", "qlora.html"]}[term];
setTimeout(() => { document.querySelector("#search-results").innerHTML = found
    ? "<ul>" + found.map(p => `<li><a href="${p}?highlight=x#here">${p}</a></li>`).join("")
    : "Your search did not match any documents." }, 50);
</script></body></html>
"""


DEAF = "onkeydown='return false'"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch, SiteServer(empty) as server:
        patch.setattr("tools.site.axe.SETTLED", 0)  # nothing on these pages waits
        patch.setattr("tools.site.offline.WIDTHS", {390: 844, 1280: 800})
        with Browser(server) as browser:
            yield browser


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A clean site."""
    (tmp_path / "page.html").write_text(HEAD + CLEAN)
    (tmp_path / "search.html").write_text(HEAD + RESULTS)
    return Site(tmp_path)


@pytest.fixture
def browser(chromium: Browser, site: Site) -> Iterator[Browser]:
    with SiteServer(site.folder) as server:
        chromium.server = server
        yield chromium
        chromium.close()


Change = Callable[[str, str], None]


@pytest.fixture
def change(site: Site) -> Change:
    """Put one fault into the clean page."""

    def do(old: str, new: str) -> None:
        file = site.folder / "page.html"
        text = file.read_text()
        assert text.count(old) == 1
        file.write_text(text.replace(old, new))
        site.__init__(site.folder)  # type: ignore[misc]

    return do


def offline(browser: Browser, site: Site, pictures: Path | None = None) -> list[Fault]:
    return look_offline(browser, site, open_page(browser, "page.html"), pictures)


def axe(browser: Browser) -> list[Fault]:
    return look_with_axe(open_page(browser, "page.html"), None)


def keyboard(browser: Browser, name: str) -> list[Fault]:
    (control,) = (control for control in CONTROLS if control.name == name)
    return look_with_keyboard(browser, control, "page.html", None)


def test_a_clean_page_has_no_fault(browser: Browser, site: Site) -> None:
    visit = open_page(browser, "page.html")
    assert look_offline(browser, site, visit, None) == []
    assert look_with_axe(visit, None) == []


PLANTED = {  # text that goes into the page: the rule and the words by which it is found
    "<script>nothing.there</script>": ("JavaScript error", "nothing is not"),
    "<script>console.error('oh')</script>": ("JavaScript error", "oh"),
    "<script>fetch('https://example.org/x').catch(() => 0)</script>": (
        "outside request",
        "https://example.org/x",
    ),
    "<span class='math'>\\(x\\)</span>": ("formula not rendered", "\\(x\\)"),
    "So \\(y\\) is": ("formula not rendered", "\\(y\\)"),
    "<mjx-merror title='Bad'>x</mjx-merror>": ("formula with an error", "Bad"),
    "<script src='gone.js'></script>": ("missing file", "gone.js"),
    "<img alt='' src='data:image/png;base64,AA'>": ("broken image", "base64,AA"),
}


@pytest.mark.parametrize("disk", [False, True])
def test_each_planted_fault_is_found(
    browser: Browser, site: Site, change: Change, disk: bool
) -> None:
    assert look_from_disk(browser, "page.html") == []
    change("<p>Text.</p>", "<p>" + "\n".join(PLANTED) + "</p>")
    found = look_from_disk(browser, "page.html") if disk else offline(browser, site)
    found = [fault for fault in found if fault.rule != "broken link"]
    assert len(found) == len(PLANTED)
    for rule, says in PLANTED.values():
        assert sum(fault.rule == rule and says in fault.what for fault in found) == 1
    assert {fault.where for fault in found} == ({"opened as a file"} if disk else {""})


def test_links_are_checked_and_an_outside_script_is_one_fault(
    browser: Browser, site: Site, change: Change
) -> None:
    change('"page.html#here"', '"page.html#gone"')
    change("</main>", "<script src='https://example.org/x.js'></script></main>")
    found = offline(browser, site)
    assert [fault.rule for fault in found] == ["broken anchor", "outside request"]
    assert "#gone" in found[0].what


def test_what_is_too_wide(browser: Browser, site: Site, change: Change, tmp_path: Path) -> None:
    wide = "<p><b style='display:block;width:500px'>Text.</b></p>"
    cut = "<div style='overflow:hidden'><table style='width:600px'><td>x</table></div>"
    change("<p>Text.</p>", wide + cut)
    found = offline(browser, site, tmp_path / "pictures")
    assert {(fault.rule, fault.where) for fault in found} == {
        (rule, f"{theme}, 390 px")
        for rule in ("the page scrolls sideways", "cut off")
        for theme in ("light", "dark")
    }
    places = {fault.rule: fault.element for fault in found}
    assert places["the page scrolls sideways"].endswith("p > b")  # inside the folded box
    assert places["cut off"].endswith("> table")
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 4


def test_a_heavy_page(
    browser: Browser, site: Site, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.site.offline.WEIGHT", 3000)
    assert offline(browser, site) == []
    (site.folder / "heavy.css").write_text("".join(f"{n * n % 7919} " for n in range(4000)))
    (site.folder / "photo.svg").write_bytes((site.folder / "heavy.css").read_bytes())
    change("</head>", "<link rel='stylesheet' href='heavy.css'></head>")
    (fault,) = offline(browser, site)
    assert fault.rule == "heavy page" and "heavy.css" in fault.what


def test_faults_that_axe_finds(browser: Browser, change: Change) -> None:
    change("<p>42</p>", "<p><img src='data:,'></p>")
    change(' tabindex="0"', "")
    change("background: #111; color: #eee", "background: #333")
    found = {(fault.rule, fault.where) for fault in axe(browser)}
    assert found == {
        ("image-alt", "light, 1280 px"),
        ("scrollable-region-focusable", "light, 1280 px"),
        ("scrollable-region-focusable", "light, 390 px"),
        ("color-contrast", "dark, 1280 px"),
    }


def test_axe_reads_code_and_formulas_that_look_alike_once(
    browser: Browser, change: Change
) -> None:
    pale = "<span class='n' style='color:#ccc;background:#fff'>x</span> "
    change("<p>Text.</p>", f"<pre>{pale * 50}</pre>")
    assert 0 < len(axe(browser)) < 10


@pytest.mark.parametrize(
    "name", [control.name for control in CONTROLS if control.name in
             {"search", "folded solution", "tab"}]
)  # fmt: skip
def test_controls_work_with_the_keyboard(browser: Browser, name: str) -> None:
    assert keyboard(browser, name) == []


@pytest.mark.parametrize(
    ("name", "old", "new", "rule"),
    [
        (
            "search",
            '<input type="search"',
            '<input type="search" tabindex="-1"',
            "out of reach",
        ),
        (
            "sidebar",
            "body { margin",
            "a:focus { outline: none } body { margin",
            "focus not seen",
        ),
        ("folded cell or box", "<summary>", f"<summary {DEAF}>", "does not answer"),
    ],
)
def test_a_control_that_fails_the_keyboard(
    browser: Browser, change: Change, name: str, old: str, new: str, rule: str
) -> None:
    change(old, new)
    assert {fault.rule for fault in keyboard(browser, name)} == {rule}


def test_the_search_puts_the_right_page_first(browser: Browser) -> None:
    assert look_for_term(browser, "page.html", "NF4", "qlora.html") == []
    (wrong,) = look_for_term(browser, "page.html", "merge", "qlora.html")
    assert wrong.what == "'merge' finds page.html first"
    (nothing,) = look_for_term(browser, "page.html", "zebra", "qlora.html")
    assert nothing.what == "'zebra' finds nothing first"


def test_a_search_field_that_is_missing(
    browser: Browser, change: Change, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tools.site.browser.PATIENCE", 300)
    change('<input type="search" name="q" aria-label="Search">', "")
    (fault,) = look_for_term(browser, "page.html", "NF4", "qlora.html")
    assert fault.what.startswith("searching for 'NF4' failed")


def test_every_kind_of_control_is_known_by_one_name() -> None:
    names = [control.name for control in CONTROLS]
    assert len(set(names)) == len(names) and all(isinstance(c, Control) for c in CONTROLS)
