"""Each public symbol of the package is named in a chapter's code, or excused with a reason."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from book._ext.chapters.myst import read, without

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "code" / "posttrain"
TABLE = yaml.safe_load(Path(__file__).with_name("unnamed.yml").read_text(encoding="utf-8"))
MODULES: dict[str, str] = TABLE["modules"]
SYMBOLS: dict[str, dict[str, str]] = TABLE["symbols"]

ROLE = re.compile(r"\{[\w:-]+\}`[^`]*`")
INLINE = re.compile(r"`([^`\n]+)`|^:(?:pyobject|start-at): (.+)", re.MULTILINE)


def chapters() -> list[Path]:
    """The chapters of the stages whose folder lies in the package too."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    return [
        (ROOT / name).with_suffix(".md")
        for name in names
        if (PACKAGE / name.split("/")[1]).is_dir()
    ]


def names_in_code(text: str) -> set[str]:
    """Names in a page's cells, `inline code` and included objects; comments do not count."""
    words = " ".join(map(" ".join, INLINE.findall(ROLE.sub("", without(text, "code-cell")))))
    found = set(re.findall(r"\w+", words))
    for cell in read(text).cells:
        for node in ast.walk(ast.parse(cell.python)):
            if isinstance(node, ast.alias):
                found.add(node.name)
            elif isinstance(node, ast.Name):
                found.add(node.id)
            elif isinstance(node, ast.Attribute):
                found.add(node.attr)
    return found


def public_symbols(module: Path) -> list[str]:
    body = ast.parse(module.read_text(encoding="utf-8")).body
    kinds = (ast.FunctionDef, ast.ClassDef)
    return [x.name for x in body if isinstance(x, kinds) and not x.name.startswith("_")]


def modules(package: Path = PACKAGE) -> Iterator[tuple[str, Path]]:
    """The modules of core and of the written stages, those of their rooms too."""
    for folder in ("core", *sorted({chapter.parent.name for chapter in chapters()})):
        for module in sorted((package / folder).rglob("*.py")):
            yield module.relative_to(package).as_posix(), module


def unnamed(named: set[str], package: Path = PACKAGE) -> list[str]:
    return [
        f"{name}: {symbol}"
        for name, module in modules(package)
        if name not in MODULES
        for symbol in public_symbols(module)
        if symbol not in named and symbol not in SYMBOLS.get(name, {})
    ]


@pytest.fixture(scope="module")
def named() -> set[str]:
    if missing := [file.name for file in chapters() if not file.is_file()]:
        pytest.skip(f"not written yet: {', '.join(missing)}")
    return set().union(*(names_in_code(file.read_text("utf-8")) for file in chapters()))


def test_every_public_symbol_is_named_in_a_chapter(named: set[str]):
    found = unnamed(named)
    assert not found, "in no chapter, and not in unnamed.yml:\n" + "\n".join(found)


@pytest.mark.parametrize("name", ["core/new.py", "sft/adapters/new.py", "sft/a/b/new.py"])
def test_an_unnamed_symbol_is_found_at_any_depth(name: str, tmp_path: Path):
    module = tmp_path / name
    module.parent.mkdir(parents=True)
    module.write_text("def planted(): ...\n\ndef known(): ...\n\nclass _Own: ...\n")
    assert unnamed({"known"}, tmp_path) == [f"{name}: planted"]


def test_no_exception_is_out_of_date(named: set[str]):
    found = dict(modules())
    assert [name for name in (*SYMBOLS, *MODULES) if name not in found] == []
    assert not set(SYMBOLS) & set(MODULES)
    for name, symbols in SYMBOLS.items():
        assert set(symbols) <= set(public_symbols(found[name])), name
        assert not set(symbols) & named, f"{name}: a chapter names this by now"


def test_names_are_read_from_code_alone():
    page = (
        "# title\nThe words `in_line(x)` and {glue:text}`role` of prose `one`.\n\n"
        "```{literalinclude} file.py\n:pyobject: Layer.forward\n```\n"
        "````{code-cell} ipython3\n:tags: [hide]\n%magic\nfrom a.b import c as d  # comment\n"
        "print(f'text {e.f}', 'string')\n````\n"
    )
    expected = {"in_line", "x", "one", "Layer", "forward", "c", "print", "e", "f"}
    assert names_in_code(page) == expected
