"""Sphinx extension: finished pages load little, ask for nothing elsewhere and never wait.

After an HTML build, each page is put right where a setting of the theme cannot do it: one style
sheet, no script that the page does not use or that loads twice, the reader's theme known before
the first line is drawn, and names that screen readers need.
"""

import hashlib
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from book._ext.theme.one_stylesheet import NAME, merge, sheets_of, with_one_sheet, words_of

SCRIPT = re.compile(r"[ \t]*<script\b([^>]*)>(.*?)</script>\n?", re.DOTALL)
SOURCE = re.compile(r'\bsrc="([^"]*)"')
VIEWPORT = re.compile(r'[ \t]*<meta name="viewport"[^>]*>\n?')
VIEWPORT_TAG = '    <meta name="viewport" content="width=device-width, initial-scale=1" />\n'
PRELOAD = re.compile(r'[ \t]*<link rel="preload" as="script"[^>]*>\n?')
# Icons come with the style sheet, code runs only where the extension live_code says so, and
# only the page that searches needs the index. Sphinx's settings are read by the script after
# them.
UNUSED = ("scripts/fontawesome.js", "sphinx-thebe.js")
SEARCH = ("searchtools.js", "language_data.js", "searchindex.js")
MATHS = ("mathjax/startup.js", "formulas.js")
MATHS_SETTING = "window.MathJax ="
FIRST = ("documentation_options.js",)
THEME = """<script>
    (() => {
      const page = document.documentElement.dataset;
      let mode = "auto";
      try { mode = localStorage.getItem("mode") || mode; } catch { /* no storage */ }
      const dark = matchMedia("(prefers-color-scheme: dark)").matches;
      page.mode = mode;
      page.theme = mode === "auto" ? (dark ? "dark" : "light") : mode;
    })();
  </script>
"""
# Names, punctuation and spaces have the color of the text around them: half of all elements.
PLAIN_CODE = re.compile(r'<span class="[npw]">([^<]*)</span>')
# A browser may break a line between a formula and the sign after it.
KEPT = '<span class="pt-keep">'
BESIDE_SIGNS = re.compile(
    r'([(\["\u2018\u201c]*)(<span class="math[^"]*"[^>]*>[^<]*</span>)'
    r'([.,;:!?)\]"%\u2019\u201d\u2026]*)'
)
# Where the HTML of the theme and the extensions says too little or what is wrong.
CORRECTIONS = (
    # A visible text is the name; another one hides it.
    (
        r'(<summary|<button class="btn search-button-field [^"]*"[^>]*?) aria-label="[^"]*"',
        r"\1",
    ),
    # sphinx-thebe's settings, with an example's repository: live_code.js has its own.
    (r'<script type="text/x-thebe-config">[\s\S]*?</script>\s*', ""),
    (r"<script>kernelName = [^<]*</script>", ""),
    # The corner of a table whose first column holds row headers.
    (r'<th class="head stub">\s*(?:<p>\s*</p>)?\s*</th>', '<td class="head"></td>'),
    (
        r'<div id="pst-primary-sidebar" class=',
        '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" class=',
    ),
)


def lean(page: str, *, searches: bool = False) -> str:
    """Put one page right; a page that is right stays as it is.

    Args:
        page: The HTML.
        searches: Whether it is the page of the search.

    Returns:
        The HTML to publish.
    """
    if "<head>" not in page:
        return page
    head, end, body = page.partition("</head>")
    seen: set[str] = set()
    maths = 'class="math' in body

    def script(match: re.Match[str]) -> str:
        attributes, text = match[1], match[2]
        source = SOURCE.search(attributes)
        address = source[1].split("?")[0] if source else ""
        whole = match[0].strip()
        unused = [*UNUSED, *(SEARCH if not searches else ()), *(MATHS if not maths else ())]
        setting = "THEBE_JS_URL" in text or (text.startswith(MATHS_SETTING) and not maths)
        if address.endswith(tuple(unused)) or setting or whole in seen:
            return ""
        seen.add(whole)
        if "dataset.theme" in text:
            return "  " + THEME
        if source and not re.search(r"\b(?:defer|async)\b", attributes):
            if not address.endswith(FIRST):
                return f"    <script defer{attributes}></script>\n"
        return match[0]

    head = PRELOAD.sub("", SCRIPT.sub(script, head))
    first, *others = VIEWPORT.split(head, maxsplit=1)
    if others:
        head = first + VIEWPORT_TAG + VIEWPORT.sub("", others[0])
    for wrong, right in CORRECTIONS:
        body = re.sub(wrong, right, body)
    body = PLAIN_CODE.sub(r"\1", body)
    if KEPT not in body:
        body = BESIDE_SIGNS.sub(with_its_signs, body)
    if 'class="bd-sidebar-secondary' not in body and 'class="pt-no-contents"' not in body:
        body = re.sub(r"<body(?! class)", '<body class="pt-no-contents"', body, count=1)
    return head + end + body


def with_its_signs(match: re.Match[str]) -> str:
    """Hold a formula in running text and the signs that touch it together."""
    return f"{KEPT}{match[0]}</span>" if match[1] or match[3] else match[0]


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Put right all pages of a finished HTML site."""
    if exception is not None or app.builder.format != "html":
        return
    out = Path(app.outdir)
    pages = {
        file: file.read_text(encoding="utf-8")
        for file in sorted(out.rglob("*.html"))
        if "_static" not in file.relative_to(out).parts
    }
    new = {
        file: lean(page, searches=file == out / "search.html") for file, page in pages.items()
    }
    sheets = list(dict.fromkeys(sheet for page in new.values() for sheet in sheets_of(page)))
    if NAME in sheets:
        sheets.remove(NAME)
    if sheets:
        write_sheet(out / "_static", sheets, [*new.values()])
    sheet = out / "_static" / NAME
    version = hashlib.sha256(sheet.read_bytes()).hexdigest()[:8] if sheet.is_file() else ""
    for file, page in new.items():
        page = with_one_sheet(page, version) if version else page
        if page != pages[file]:
            file.write_text(page, encoding="utf-8")


def write_sheet(static: Path, sheets: list[str], pages: list[str]) -> None:
    """Write the style sheet of all pages.

    Args:
        static: The site's ``_static`` folder.
        sheets: The style sheets that pages ask for.
        pages: The pages.
    """
    scripts = [
        file.read_text(encoding="utf-8")
        for file in static.rglob("*.js")
        if not file.as_posix().endswith(UNUSED) and "mathjax" not in file.parts
    ]
    css = merge(static, sheets, words_of([*pages, *scripts]))
    (static / NAME).write_text(css, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    """Finish the pages when everything else is done."""
    app.connect("build-finished", finish, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
