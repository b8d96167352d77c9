"""The extension lean_pages and what it uses: pages load little, and nothing from elsewhere."""

import base64
import io
import re
from pathlib import Path

import pytest

pytest.importorskip("sphinx_book_theme")
import pydata_sphinx_theme
from fontTools.ttLib import TTFont
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

from book._ext.theme.lean_pages import lean
from book._ext.theme.one_stylesheet import (
    NAME,
    icon_font,
    merge,
    sheets_of,
    with_icons,
    with_one_sheet,
    without_idle_keyframes,
    words_of,
)

FONTS = (
    Path(pydata_sphinx_theme.__file__).parent
    / "theme/pydata_sphinx_theme/static/vendor/fontawesome/webfonts"
)
OUTSIDE = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*?(?:src|href)=["'](?:https?:)?//""")
PAGE = """<html><head>
    <meta name="viewport" content="a" /><meta name="viewport" content="b" />
    <script>document.documentElement.dataset.theme = localStorage.getItem("theme");</script>
    <link rel="stylesheet" href="../_static/styles/theme.css?digest=1" />
    <link rel="stylesheet" type="text/css" href="../_static/custom.css?v=2" />
    <link rel="stylesheet" href="https://example.org/other.css" />
    <link rel="preload" as="script" href="../_static/scripts/bootstrap.js" />
    <script defer src="../_static/scripts/fontawesome.js?digest=1"></script>
    <script src="../_static/documentation_options.js?v=1"></script>
    <script src="../_static/doctools.js?v=1"></script>
    <script src="../_static/doctools.js?v=1"></script>
    <script>const THEBE_JS_URL = "https://unpkg.com/thebe"</script>
    <script async="async" src="../_static/sphinx-thebe.js?v=1"></script>
    <script>window.MathJax = {}</script>
    <script defer="defer" src="../_static/mathjax/startup.js"></script>
    <script src="../_static/searchtools.js"></script>
    <script src="../searchindex.js"></script>
</head><body>BODY</body></html>"""


def page(body: str = "", **options: bool) -> str:
    return lean(PAGE.replace("BODY", body), **options)


def scripts(html: str) -> list[str]:
    return re.findall(r'<script[^>]*src="\.\./([^"?]+)', html)


def test_a_page_loads_only_the_scripts_that_it_uses_and_waits_for_one() -> None:
    html = page()
    assert scripts(html) == ["_static/documentation_options.js", "_static/doctools.js"]
    assert '<script defer src="../_static/doctools.js?v=1">' in html
    assert '<script src="../_static/documentation_options.js?v=1">' in html
    assert "MathJax" not in html and "THEBE_JS_URL" not in html and "preload" not in html


def test_formulas_and_the_search_keep_their_scripts() -> None:
    maths = page('<span class="math notranslate">x</span>')
    assert "window.MathJax" in maths and "_static/mathjax/startup.js" in scripts(maths)
    assert scripts(page(searches=True))[-2:] == ["_static/searchtools.js", "searchindex.js"]


def test_the_theme_is_known_before_anything_is_drawn() -> None:
    html = page()
    assert "prefers-color-scheme: dark" in html and "dataset.theme" not in html
    assert html.count("viewport") == 1
    assert html.index("viewport") < html.index("prefers-color-scheme")


def test_a_finished_page_stays_as_it_is() -> None:
    body = (
        '<summary aria-label="Toggle">Show</summary><table><th class="head stub"></th></table>'
    )
    once = page(body)
    assert lean(once) == once
    assert lean("<p>no page") == "<p>no page"


@pytest.mark.parametrize(
    ("wrong", "right"),
    [
        ('<summary aria-label="Toggle hidden content">', "<summary>"),
        ('<th class="head stub"><p></p></th>', '<td class="head"></td>'),
        ('<th class="head stub"><p>name</p></th>', '<th class="head stub"><p>name</p></th>'),
        ('<div id="pst-primary-sidebar" class="a">', 'role="complementary" aria-label="Book"'),
    ],
)
def test_html_that_misleads_screen_readers_is_corrected(wrong: str, right: str) -> None:
    assert right in page(wrong)


def test_the_settings_of_a_script_that_is_not_loaded_are_dropped() -> None:
    thebe = '<script type="text/x-thebe-config">\n{\n requestKernel: true }\n</script>\n'
    html = page(f"<p>Text.</p>{thebe}<script>kernelName = 'python3'</script><p>More.</p>")
    assert "<p>Text.</p><p>More.</p>" in html


def test_a_formula_and_the_signs_that_touch_it_stay_on_one_line() -> None:
    formula = '<span class="math notranslate nohighlight">\\(x &lt; y\\)</span>'
    once = page(f"<p>({formula}), {formula} and {formula}.</p>")
    keep = '<span class="pt-keep">'
    assert f"<p>{keep}({formula}),</span> {formula} and {keep}{formula}.</span></p>" in once
    assert lean(once) == once


def test_a_page_without_a_list_of_contents_says_so() -> None:
    assert '<body class="pt-no-contents">' in page()
    twice = lean(page("<p>after <body> it</p>"))
    assert twice.count("<body class") == 1
    assert "pt-no-contents" not in page('<div class="bd-sidebar-secondary bd-toc"></div>')


def test_one_style_sheet_stands_where_the_first_stood() -> None:
    assert sheets_of(PAGE) == ["styles/theme.css", "custom.css"]
    html = with_one_sheet(PAGE, "abc")
    assert f'<link rel="stylesheet" href="../_static/{NAME}?v=abc" />' in html
    assert sheets_of(html) == [NAME] and "https://example.org/other.css" in html
    assert with_one_sheet(html, "abc") == html


def test_style_sheets_are_joined_in_order_with_what_they_import(tmp_path: Path) -> None:
    (tmp_path / "styles").mkdir()
    (tmp_path / "styles/theme.css").write_text(
        '@import "../basic.css";\n.a{background:url(x.png)}'
    )
    (tmp_path / "basic.css").write_text(".a{color:red}.gone{color:red}")
    (tmp_path / "custom.css").write_text(".a{color:blue}")
    words = words_of(['<p class="a b-c">text'])
    assert {"a", "b-c", "text"} <= words
    css = merge(tmp_path, ["styles/theme.css", "custom.css"], words)
    assert css.split() == [
        ".a{color:red}", '.a{background:url("styles/x.png")}', ".a{color:blue}"
    ]  # fmt: skip


def test_animations_that_nothing_starts_are_left_out() -> None:
    css = "@keyframes spin{from{top:0}}\n@keyframes fade{from{top:0}}\n.a{animation:fade 1s}"
    assert without_idle_keyframes(css) == css.split("\n", 1)[1]
    assert without_idle_keyframes("@keyframes fade{from{top:0}}\n.a{color:var(--fade-x)}") == (
        ".a{color:var(--fade-x)}"
    )


def test_icon_fonts_hold_the_icons_that_are_shown() -> None:
    face = (
        "@font-face{font-family:Icons;font-weight:900;"
        'src:url("vendor/fontawesome/webfonts/fa-solid-900.woff2") format("woff2"),'
        'url("vendor/fontawesome/webfonts/fa-solid-900.ttf") format("truetype")}'
    )
    shown = '.a:before{content:"\\f0c9"}\n.b:before{content:"\uf002"}'
    css = with_icons(f"{face}\n{shown}", FONTS.parents[2])
    data = re.search(r"base64,([^\"]+)\"", css)
    assert data and ".woff2" not in css and ".ttf" not in css and "font-weight:900" in css
    font = TTFont(io.BytesIO(base64.b64decode(data[1])))
    assert set(font.getBestCmap()) == {0xF0C9, 0xF002}
    assert len(data[1]) < 4000
    assert with_icons(css, FONTS.parents[2]) == css


def test_an_icon_font_is_the_same_each_time() -> None:
    font = FONTS / "fa-solid-900.ttf"
    assert icon_font(font, [0xF0C9]) == icon_font(font, [0xF0C9])
    assert icon_font(font, [0xF0C9]) != icon_font(font, [0xF002])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lean")
    source = folder / "source"
    source.mkdir()
    (source / "index.rst").write_text("Start\n=====\n\nText.\n\n.. toctree::\n\n   maths\n")
    (source / "maths.rst").write_text("Maths\n=====\n\n:math:`x^2`\n\n.. note:: Look.\n")
    with docutils_namespace():
        app = Sphinx(
            str(source),
            None,
            str(folder / "html"),
            str(folder / "doctrees"),
            "html",
            confoverrides={
                "extensions": [
                    "sphinx.ext.mathjax",
                    "sphinx_thebe",
                    "book._ext.theme.lean_pages",
                    "book._ext.theme.offline_assets",
                ],
                "html_theme": "sphinx_book_theme",
                "source_suffix": {".rst": "restructuredtext"},
                "project": "Book",
            },
            status=None,
            warning=io.StringIO(),
        )
        app.build()
        app.build(force_all=True)
    return folder / "html"


@pytest.mark.parametrize("name", ["index", "maths", "search", "genindex"])
def test_pages_of_a_real_site_ask_for_nothing_elsewhere(site: Path, name: str) -> None:
    html = (site / f"{name}.html").read_text()
    assert not OUTSIDE.search(html) and "cdn" not in html
    assert sheets_of(html) == [NAME]
    for address in re.findall(r'<(?:script|link)\b[^>]*?(?:src|href)="([^"#?]+)', html):
        if address.endswith((".js", ".css")):
            assert (site / address).is_file(), address
    assert ("mathjax/startup.js" in html) == (name == "maths")
    assert ("searchindex.js" in html) == (name == "search")


def test_the_style_sheet_of_a_real_site_is_small_and_complete(site: Path) -> None:
    css = (site / "_static" / NAME).read_text()
    whole = (site / "_static/styles/pydata-sphinx-theme.css").read_text()
    assert len(css) < 0.5 * len(whole)
    assert "Licensed under MIT" in css and "Font Awesome Free" in css
    for rule in (".bd-sidebar-primary", ".admonition.note", ".fa-bars:before", "a.headerlink"):
        assert rule in css
    assert ".bs-tooltip-auto[data-popper-placement^=bottom] .tooltip-arrow" in css
    assert "@import" not in css
    files = [a for a in re.findall(r'url\("([^")]+)', css) if not a.startswith("data:")]
    for address in files:
        assert (site / "_static" / address).is_file(), address
