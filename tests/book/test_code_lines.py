"""Code on a page is no wider than the page's column from 1280 pixels on."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted(BOOK.rglob("*.md"))
COLUMNS = 98  # what fits into a box inside the column; the rest of the column holds two more
BLOCK = re.compile(r"^(`{3,})(\{code-cell\}|[a-z]+)[^\n]*\n(.*?)^\1$", re.MULTILINE | re.DOTALL)
HIDDEN = re.compile(r"^:tags:.*\bremove-(?:cell|input)\b", re.MULTILINE)


def wide_lines(text: str) -> Iterator[str]:
    """Find the lines of shown code that a reader would have to scroll for."""
    for _, _, code in BLOCK.findall(text):
        if not HIDDEN.search(code):
            yield from (line for line in code.splitlines() if len(line) > COLUMNS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(BOOK).as_posix())
def test_code_fits_into_the_column(page: Path) -> None:
    assert not list(wide_lines(page.read_text(encoding="utf-8")))


def test_a_wide_line_is_found_where_it_is_shown() -> None:
    wide, fits = "x" * (COLUMNS + 1), "x" * COLUMNS
    assert list(wide_lines(f"```{{code-cell}} ipython3\n{wide}\n```\n")) == [wide]
    assert list(wide_lines(f"````sh\n{wide}\n{fits}\n````\n")) == [wide]
    removed = f":tags: [remove-input]\n{wide}\n"
    assert not list(wide_lines(f"```{{code-cell}} ipython3\n{removed}```\n{wide}\n"))
