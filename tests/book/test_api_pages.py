"""The API pages and the package: each public module on one page, each symbol with a chapter."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("sphinx")
pytest.importorskip("pybtex")
from book._ext.api import chapter_links, package_index, papers
from book._ext.api import docstrings as api_docstrings
from book._ext.chapters.myst import read

ROOT = Path(__file__).resolve().parents[2]
BOOK = ROOT / "book"

CODE = ROOT / "code"
INDEX = package_index.PackageIndex(CODE)
TABLE = re.compile(r"^```\{module-table\} ?([\w.]*)$", re.MULTILINE)


def pages() -> list[str]:
    """All pages of the table of contents, sections too."""
    found: list[str] = []

    def walk(node: Any) -> None:
        for value in node if isinstance(node, list) else node.values():
            if isinstance(value, list | dict):
                walk(value)
        if isinstance(node, dict) and "file" in node:
            found.append(node["file"])

    walk(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    return found


def modules_on_pages() -> Counter[str]:
    texts = (path.read_text(encoding="utf-8") for path in sorted((BOOK / "api").glob("*.md")))
    found = (api_docstrings.modules_on_page(text, INDEX.package) for text in texts)
    return Counter(name for modules in found for _, name in modules)


def listings(text: str) -> Iterator[tuple[int, str, dict[str, str]]]:
    """Line, file and options of each ``literalinclude`` of a page."""
    for block in read(text).named("literalinclude"):
        yield block.start, block.argument, block.options


def listing_fault(text: str, page: Path, on_pages: Counter[str]) -> Iterator[str]:
    """Say which listings of the package show code that no API page has."""
    for line, name, options in listings(text):
        path = (page.parent / name).resolve()
        if not path.is_relative_to(CODE / "posttrain"):
            continue
        module = INDEX.module_at(path)
        if module is None or module.name not in on_pages:
            yield f"{page.name}:{line}: no API page has {name}"
            continue
        shown = module.shown_in_lines(*chapter_links.listing_lines(path, options))
        private = [part for part in options.get("pyobject", "_").split(".") if part[0] == "_"]
        if not shown and not private:
            yield f"{page.name}:{line}: {options['pyobject']} has no docstring, so no entry"


def test_every_public_module_is_on_one_api_page():
    on_pages = modules_on_pages()
    assert set(INDEX.modules) - set(on_pages) == set(), "on no page of book/api"
    assert set(on_pages) - set(INDEX.modules) == set(), "no such public module"
    assert [name for name, count in on_pages.items() if count > 1] == [], "on two pages"


def test_every_package_has_a_table_on_the_first_page():
    packages = {name.rpartition(".")[0].partition(".")[2] for name in INDEX.modules}
    tables = TABLE.findall((BOOK / "api" / "index.md").read_text(encoding="utf-8"))
    assert sorted(tables) == sorted(packages)


def test_every_api_page_is_in_the_contents():
    listed = {name for name in pages() if name.startswith("book/api/")}
    assert listed == {f"book/api/{path.stem}" for path in (BOOK / "api").glob("*.md")}


def test_every_public_symbol_has_a_chapter():
    faults = [str(fault) for fault in INDEX.faults(BOOK)]
    assert not faults, "\n".join(faults)


def test_every_chapter_of_a_docstring_is_in_the_contents():
    modules = INDEX.modules.values()
    named = {chapter for module in modules for chapter in module.chapters}
    for module in modules:
        for symbol in module.symbols.values():
            named.update(module.chapters_for(symbol))
    assert {f"book/{chapter}" for chapter in named} <= set(pages())


def test_every_paper_of_a_docstring_is_in_the_bibliography():
    library = papers.read_bibliography(BOOK / "references.bib")
    faults = [str(fault) for fault in api_docstrings.unknown_papers(INDEX, library)]
    assert not faults, "\n".join(faults)


def test_every_listing_of_a_chapter_has_an_entry():
    on_pages, found, faults = modules_on_pages(), 0, []
    for name in pages():
        page = ROOT / f"{name}.md"
        if page.is_file():
            text = page.read_text(encoding="utf-8")
            found += len(list(listings(text)))
            faults += listing_fault(text, page, on_pages)
    assert found > 20
    assert not faults, "\n".join(faults)


# --- the checks themselves ---


@pytest.mark.parametrize(
    "options",
    [
        ":pyobject: LoRALinear",
        ":pyobject: LoRALinear.forward\n:start-at: dropped",
        ":pyobject: _device",
        ':start-at: "LINEAR_LAYERS ="\n:end-at: "LINEAR_LAYERS ="',
    ],
)
def test_what_a_listing_may_show(options: str):
    file = "../../code/posttrain/sft/adapters/lora.py"
    text = f"Text\n```{{literalinclude}} {file}\n{options}\n```\n"
    on_pages = Counter({"posttrain.sft.adapters.lora": 1})
    assert list(listing_fault(text, BOOK / "sft" / "lora.md", on_pages)) == []
    found = list(listing_fault(text, BOOK / "sft" / "lora.md", Counter()))
    assert found == [f"lora.md:2: no API page has {file}"]


def test_a_listing_without_an_entry_is_found(monkeypatch: pytest.MonkeyPatch):
    module = INDEX.modules["posttrain.sft.adapters.injection"]
    monkeypatch.setitem(module.__dict__, "symbols", {})
    text = (
        "```{literalinclude} ../../code/posttrain/sft/adapters/injection.py\n"
        ":pyobject: inject_lora\n:lineno-match:\n```\n"
    )
    found = list(listing_fault(text, BOOK / "sft" / "lora.md", Counter({module.name: 1})))
    assert found == ["lora.md:1: inject_lora has no docstring, so no entry"]
