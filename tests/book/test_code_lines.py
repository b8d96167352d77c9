"""Code on a page is no wider than the page's column from 1280 pixels on."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from book._ext.chapters.myst import read

BOOK = Path(__file__).parents[2] / "book"
PAGES = sorted(BOOK.rglob("*.md"))
COLUMNS = 98  # what fits into a box inside the column; the rest of the column holds two more
HIDDEN = {"remove-cell", "remove-input"}


def wide_lines(text: str) -> Iterator[str]:
    """Find the lines of shown code that a reader would have to scroll for."""
    for block in read(text).named("code-cell", "code"):
        if not HIDDEN & block.tags:
            yield from (line for line in block.body if len(line) > COLUMNS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(BOOK).as_posix())
def test_code_fits_into_the_column(page: Path) -> None:
    assert not list(wide_lines(page.read_text(encoding="utf-8")))


def test_a_wide_line_is_found_where_it_is_shown() -> None:
    wide, fits = "x" * (COLUMNS + 1), "x" * COLUMNS
    assert list(wide_lines(f"```{{code-cell}} ipython3\n{wide}\n```\n")) == [wide]
    assert list(wide_lines(f"````sh\n{wide}\n{fits}\n````\n")) == [wide]
    removed = f":tags: [remove-input]\n{wide}\n"
    assert not list(wide_lines(f"```{{code-cell}} ipython3\n{removed}```\n{wide}\n"))
