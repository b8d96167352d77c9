"""One small style sheet for all pages, made of the theme's, the extensions' and the book's.

Rules that no page can need are left out, and of the icon fonts only the icons that are used
remain, inside the style sheet. A page then waits for one file of some 30 kB instead of twelve
files and a script of 1.5 MB.
"""

import base64
import io
import logging
import posixpath
import re
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont

from book._ext.theme.css_rules import Rule, moved, needed, rules_of

logging.getLogger("fontTools").setLevel(logging.ERROR)  # it tells of each table of a font
NAME = "site.css"
LINK = re.compile(r'[ \t]*<link\b(?=[^>]*\brel="stylesheet")[^>]*\bhref="([^"]*)"[^>]*>\n?')
WORD = re.compile(r"[A-Za-z_][\w-]*")
JOINED = {"bs-tooltip-auto"}  # what scripts put together from parts
# Icons are characters for private use, written as they are or by their numbers.
ICON = re.compile(r'"(?:\\([ef][0-9a-fA-F]{3})|([\ue000-\uf8ff]))"')
KEYFRAMES = re.compile(r"@(?:-\w+-)?keyframes\s+([\w-]+)")
IMPORT = re.compile(r"""@import\s+(?:url\()?["']?([^"')\s;]+)["']?\)?\s*$""")
SRC = re.compile(r"src:[^;]*(?:;(?=base64)[^;]*)*")
ICON_FONT = re.compile(r'url\("?([^")]*/fontawesome/[^")]*)\.woff2"?\)')


def sheets_of(page: str) -> list[str]:
    """Return the style sheets of a page that belong to the site, below ``_static``."""
    addresses = (address.split("?")[0] for address in LINK.findall(page))
    return [a.split("_static/", 1)[1] for a in addresses if "_static/" in a]


def with_one_sheet(page: str, version: str) -> str:
    """Replace the links to a page's own style sheets by one."""
    first = True

    def replace(match: re.Match[str]) -> str:
        nonlocal first
        root, own, _ = match[1].partition("_static/")
        if not own:
            return match[0]
        link = f'<link rel="stylesheet" href="{root}_static/{NAME}?v={version}" />\n'
        was_first, first = first, False
        return link if was_first else ""

    return LINK.sub(replace, page)


def words_of(texts: Iterable[str]) -> set[str]:
    """Return all words of pages and scripts, class names among them."""
    return {word for text in texts for word in WORD.findall(text)} | JOINED


def merge(static: Path, sheets: Iterable[str], words: Set[str]) -> str:
    """Join style sheets into one and leave out what no page can need.

    Args:
        static: The site's ``_static`` folder.
        sheets: The style sheets, paths below it, in their order.
        words: The words of pages and scripts.

    Returns:
        The text of the one style sheet, which belongs into `static`.
    """
    css = "\n".join(moved(text, folder) for text, folder in read_sheets(static, sheets))
    return with_icons(without_idle_keyframes(needed(css, words)), static)


def read_sheets(static: Path, sheets: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Read style sheets and those that they import.

    Args:
        static: The site's ``_static`` folder.
        sheets: Their names, paths below it.

    Yields:
        The text of a style sheet without its imports, and the folder to which it refers.
    """
    for name in sheets:
        folder, rest = posixpath.dirname(name), []
        for rule in rules_of((static / name).read_text(encoding="utf-8")):
            found = IMPORT.match(str(rule)[:-1]) if str(rule).startswith("@import") else None
            if found:
                yield from read_sheets(static, [posixpath.normpath(f"{folder}/{found[1]}")])
            else:
                rest.append(str(rule))
        yield "\n".join(rest), folder


def without_idle_keyframes(css: str) -> str:
    """Leave out the animations that no rule of a style sheet starts."""
    rules = list(rules_of(css))
    names = [match and match[1] for match in (KEYFRAMES.match(str(rule)) for rule in rules)]
    started = "".join(str(rule) for rule, name in zip(rules, names, strict=True) if not name)
    return "\n".join(
        str(rule)
        for rule, name in zip(rules, names, strict=True)
        if not name or re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", started)
    )


def with_icons(css: str, static: Path) -> str:
    """Put the icons that a style sheet shows into it, and drop the fonts that hold them all.

    Args:
        css: The style sheet.
        static: The folder to which the addresses of its fonts refer.

    Returns:
        The style sheet with fonts of a few icons as ``data:`` addresses.
    """
    icons = {int(code, 16) if code else ord(char) for code, char in ICON.findall(css)}
    kept = []
    for rule in rules_of(css):
        font = ICON_FONT.search(str(rule)) if str(rule).startswith("@font-face") else None
        if isinstance(rule, Rule) and font:
            data = icon_font(static / f"{font[1]}.ttf", sorted(icons))
            source = f'src:url("data:font/woff;base64,{data}") format("woff")'
            rule = Rule(rule.prelude, SRC.sub(source, rule.body or ""))
        kept.append(str(rule))
    return "\n".join(kept) + "\n"


def icon_font(file: Path, icons: Iterable[int]) -> str:
    """Return a font of a few characters, as WOFF in base64.

    Args:
        file: A TrueType font.
        icons: The characters' code points; those that it lacks are passed over.

    Returns:
        The small font.
    """
    font = TTFont(file, recalcTimestamp=False)
    options = Options(layout_features=[], name_IDs=[0, 1, 2, 13, 14], notdef_outline=True)
    options.drop_tables += ["GSUB", "GPOS", "GDEF"]
    subsetter = Subsetter(options)
    subsetter.populate(unicodes=icons)
    subsetter.subset(font)
    font.flavor = "woff"
    buffer = io.BytesIO()
    font.save(buffer)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
