"""Each letter of the notation stands in the chapter that is named, and so does its code."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"
ROW = re.compile(r"^\| (\$.*?) \| (.*) \| (.*?) \| \{doc\}`([\w/]+)` \|$", re.MULTILINE)
ROWS = ROW.findall((BOOK / "notation.md").read_text(encoding="utf-8"))


def formulas(page: str) -> str:
    """All formulas of a chapter."""
    text = (BOOK / f"{page}.md").read_text(encoding="utf-8")
    text = re.sub(r"^:label: .*$", "", text, flags=re.MULTILINE)
    pattern = r"\{math\}(.*?)```|\$\$(.*?)\$\$|\$([^$]+)\$"
    found = re.findall(pattern, text, re.DOTALL)
    return " ".join("".join(parts) for parts in found)


def stands_in(symbol: str, text: str) -> bool:
    pattern = r"\s*".join(map(re.escape, symbol.split()))
    return bool(re.search(rf"(?<![A-Za-z\\]){pattern}(?![A-Za-z])", text))


def test_the_tables_are_read() -> None:
    text = (BOOK / "notation.md").read_text(encoding="utf-8")
    assert len(ROWS) == len(re.findall(r"^\| \$", text, re.MULTILINE)) >= 50


@pytest.mark.parametrize("page", sorted({row[3] for row in ROWS}))
def test_symbols_stand_in_their_chapter(page: str) -> None:
    text = formulas(page)
    missing = [
        symbol
        for symbols, _, _, first in ROWS
        if first == page
        for symbol in re.findall(r"\$([^$]+)\$", symbols)
        if not stands_in(symbol, text)
    ]
    assert not missing


def test_names_in_the_code_exist() -> None:
    package = "\n".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "code/posttrain").rglob("*.py")
    )
    missing = []
    for _, _, code, page in ROWS:
        text = package + (BOOK / f"{page}.md").read_text(encoding="utf-8")
        names = re.findall(r"`([\w.]+)`", code)
        assert names, f"{page}: {code}"
        missing += [n for n in names if not re.search(rf"\b{re.escape(n)}\b", text)]
    assert not missing


@pytest.mark.parametrize(
    ("symbol", "text", "found"),
    [
        ("T", "(B,T,V)", True),
        ("T", r"\Theta", False),
        ("H_{kv}", "H/H_{kv}", True),
        (r"\theta", r"\theta_i", True),
        (r"\beta", r"\eta", False),
    ],
)
def test_how_a_symbol_is_found(symbol: str, text: str, found: bool) -> None:
    assert stands_in(symbol, text) is found
