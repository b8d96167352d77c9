"""The extension chapter_links, on a small book about a small package."""

import importlib
import io
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
pytest.importorskip("myst_parser")
pytest.importorskip("sphinxcontrib.bibtex")
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective, docutils_namespace

ROOT = Path(__file__).resolve().parents[3]
PACKAGE = "toy_of_chapter_links"
ADDRESS = "https://example.org/owner/book"

FILES = {
    f"code/{PACKAGE}/__init__.py": "",
    f"code/{PACKAGE}/sft/__init__.py": "",
    f"code/{PACKAGE}/sft/adapters/__init__.py": "",
    f"code/{PACKAGE}/sft/adapters/lora.py": f'''"""LoRA, with ``LoRALinear``.

Chapter: sft/lora.
"""
from dataclasses import dataclass
from {PACKAGE}.sft.files import save
import argparse
import pathlib

LIMIT = 3
"""Largest rank: a number."""

TABLE = tuple(range(30))
"""Numbers."""


class Parser(argparse.ArgumentParser):
    """A parser."""


@dataclass
class LoRAConfig:
    """Settings; see ``save``, which is ``files.save``.

    Attributes:
        rank: Rank of the update, see `LIMIT`.
    """

    rank: int = 8

    @property
    def scale(self) -> float:
        """A scale: one."""
        return 1.0


class LoRALinear:
    """A layer (Hu et al., 2021, Eq. 3), unlike that of Doe (2020, section 2)::

        h = W x

    Raises:
        ValueError: If ``save`` is set and ``config`` is no `LoRAConfig`.

    Chapter: sft/lora, sft/qlora.
    """

    def __init__(
        self, config: LoRAConfig, folder: pathlib.Path | None = None, save: bool = False
    ) -> None:
        self.config = config

    def forward(self, x: list[float]) -> list[float]:
        """Apply it.

        Returns:
            Numbers: as many as in ``x``.
        """
        return x


def _hidden():
    return 1
''',
    f"code/{PACKAGE}/sft/files.py": '''"""Files."""


def save(config: "str | None" = None) -> None:
    """Write.

    Chapter: sft/qlora.
    """
''',
    "references.bib": "@misc{hu2022lora, author={Hu, A. and Shen, B. and Li, C.}, year={2022},"
    " title={LoRA}, eprint={2106.09685}}\n@misc{doe2020, author={Doe, J.}, year={2020},"
    " title={Other}, doi={10.1/doe}}\n",
    "index.md": "# Book\n```{toctree}\nbook/sft/qlora\nbook/sft/lora\nbook/api\nbib\n```\n",
    "bib.md": "# Papers\n```{bibliography}\n```\n",
    "book/api.md": f"# API\n## `{PACKAGE}.sft`\n```{{module-table}} sft\n```\n"
    "```{module-table} sft.adapters\n```\n"
    "## `sft.adapters.lora`\n## `sft.files`\nA sentence of the page.\n",
    "book/sft/lora.md": f"""# LoRA chapter
{{cite:t}}`hu2022lora` has it. `LoRALinear` and `LoRALinear` again; `own_name`, `scale`.
```{{code-cell}} python
from {PACKAGE}.sft.files import save
from {PACKAGE}.sft.adapters.lora import LoRAConfig
own_name = 1
```
## A section about `LoRALinear`
Here `LoRALinear.forward` and `LoRAConfig()`, not `LoRALinear.other`.
```{{literalinclude}} ../../code/{PACKAGE}/sft/adapters/lora.py
:pyobject: LoRALinear.forward
:lineno-match:
```
```{{literalinclude}} ../../code/{PACKAGE}/sft/adapters/lora.py
:pyobject: _hidden
```
""",
    "book/sft/qlora.md": f"""# QLoRA chapter
```{{code-cell}} python
from {PACKAGE}.sft.files import save
from {PACKAGE}.sft.adapters.lora import LoRALinear as Layer
LoRAConfig = 1
```
It is `save` and `Layer`; `LoRAConfig` is the page's own.
""",
}


class CodeCell(SphinxDirective):
    """Stands for myst-nb's cells, which nothing executes here."""

    optional_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        return [nodes.literal_block("", "\n".join(self.content))]


class Book:
    """A book in a folder; `build` returns its warnings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def build(self, *, nitpicky: bool = True) -> str:
        warnings = io.StringIO()
        for module in [name for name in sys.modules if name.startswith(PACKAGE)]:
            del sys.modules[module]
        settings = {
            "extensions": [
                "myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon",
                "sphinxcontrib.bibtex",
                "book._ext.api.outside_names",
                "book._ext.api.chapter_links",
            ],
            "api_package": PACKAGE,
            "autodoc_default_options": {"members": True},
            "autodoc_typehints": "none",
            "autodoc_member_order": "bysource",
            "bibtex_bibfiles": ["references.bib"],
            "default_role": "literal",
            "exclude_patterns": ["code"],
            "html_theme_options": {"repository_url": ADDRESS, "repository_branch": "main"},
            "napoleon_numpy_docstring": False,
            "napoleon_use_ivar": True,
            "nitpicky": nitpicky,
            "source_suffix": {".rst": "restructuredtext"},  # myst_parser adds its own
        }  # fmt: skip
        with docutils_namespace():
            app = Sphinx(
                str(self.folder),
                None,
                str(self.folder / "html"),
                str(self.folder / "trees"),
                "html",
                confoverrides=settings,
                status=None,
                warning=warnings,
            )
            app.add_directive("code-cell", CodeCell)
            app.build()
        text = re.sub(r"\x1b\[[\d;]*m", "", warnings.getvalue())
        lines = text.splitlines(keepends=True)
        return "".join(line for line in lines if "unsupported theme option" not in line)

    def page(self, name: str) -> str:
        text = (self.folder / "html" / f"{name}.html").read_text(encoding="utf-8")
        return re.sub(r"\s+", " ", text.replace('<span class="pre">', "<span>"))


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Book]]:
    with pytest.MonkeyPatch.context() as patch:

        def new() -> Book:
            book = Book(tmp_path_factory.mktemp("book"))
            patch.syspath_prepend(str(book.folder / "code"))
            importlib.invalidate_caches()
            return book

        yield new
        for module in [name for name in sys.modules if name.startswith(PACKAGE)]:
            del sys.modules[module]


@pytest.fixture(scope="module")
def book(make: Callable[[], Book]) -> Book:
    book = make()
    assert book.build() == ""  # nitpicky: every type and name has its place
    return book


def entry(page: str, name: str) -> str:
    """The text of one entry of the API page, tags left out."""
    start = page.index(f'id="{PACKAGE}.sft.{name}"')
    end = page.find('<dl class="py', start)
    inner = page[start : end if end > 0 else len(page)]
    return re.sub(r"<[^>]+>", "", inner)


def test_each_entry_names_its_chapters_and_where_it_is_shown(book: Book):
    api = book.page("book/api")
    line = entry(api, "adapters.lora.LoRALinear")
    assert "Chapters: LoRA chapter, QLoRA chapter" in line and "Also in" not in line
    # Its own docstring names none: the module's chapter.
    line = entry(api, "adapters.lora.LoRAConfig")
    assert "Chapter: LoRA chapter" in line and "Chapters" not in line
    assert "Chapter: QLoRA chapter · Also in: LoRA chapter" in entry(api, "files.save")
    assert '<a class="reference internal" href="sft/qlora.html">QLoRA chapter</a>' in api
    assert "sft/lora." not in re.sub(r"<[^>]+>", "", api)  # the docstring's line is gone


def test_a_heading_is_enough_to_show_a_module(book: Book):
    api = book.page("book/api")
    heading, lora = (
        api.index('id="sft-adapters-lora"'),
        api.index(f'id="{PACKAGE}.sft.adapters.lora.LoRALinear"'),
    )
    after, files = api.index('id="sft-files"'), api.index(f'id="{PACKAGE}.sft.files.save"')
    assert heading < lora < after < files < api.index("A sentence of the page.")


def test_a_heading_of_no_module_is_a_warning(make: Callable[[], Book]):
    book = make()
    book.write("book/api.md", FILES["book/api.md"] + "## `sft.gone`\n")
    assert re.search(
        rf"book/api\.md:\d+: WARNING: no public module {PACKAGE}.sft.gone", book.build()
    )


def test_types_stand_in_the_description(book: Book):
    api = book.page("book/api")
    linear = entry(api, "adapters.lora.LoRALinear")
    assert "config (LoRAConfig)" in linear and "folder (Path | None)" in linear
    assert 'href="https://docs.python.org/3/library/pathlib.html#pathlib.Path"' in api
    assert "list[float] – Numbers: as many as in x." in entry(
        api, "adapters.lora.LoRALinear.forward"
    )
    assert "rank (int) – Rank of the update, see LIMIT." in entry(
        api, "adapters.lora.LoRAConfig"
    )
    assert "Attributes" in entry(api, "adapters.lora.LoRAConfig")
    assert "scale: float" in entry(api, "adapters.lora.LoRAConfig.scale")
    assert "A scale: one." in entry(api, "adapters.lora.LoRAConfig.scale")
    assert "Largest rank: a number." in entry(api, "adapters.lora.LIMIT")
    assert "config (str | None)" in entry(api, "files.save")


def test_signatures_and_values_are_short(book: Book):
    api = book.page("book/api")
    assert "LIMIT = 3" in entry(api, "adapters.lora.LIMIT")
    assert "TABLE" in entry(api, "adapters.lora.TABLE") and "(0, 1" not in entry(
        api, "adapters.lora.TABLE"
    )
    assert "LoRALinear(config, folder=None, save=False)" in entry(
        api, "adapters.lora.LoRALinear"
    )
    assert "argument_default" not in entry(api, "adapters.lora.Parser")  # what argparse takes


def test_papers_link_to_the_bibliography_or_to_the_paper(book: Book):
    api = book.page("book/api")
    assert re.search(
        r'<a class="reference internal" href="../bib.html#\w+">Hu et al., 2021</a>', api
    )
    # No chapter cites it, so the bibliography leaves it out.
    assert 'href="https://doi.org/10.1/doe">Doe (2020, section 2)</a>' in api


def test_names_in_docstrings_link(book: Book):
    api = book.page("book/api")
    name = f"{PACKAGE}.sft"
    for target in (
        f"{name}.adapters.lora.LoRALinear",
        f"{name}.files.save",
        f"{name}.adapters.lora.LIMIT",
    ):
        assert re.search(rf'<a class="pt-symbol[^"]*" href="#{re.escape(target)}"', api), target
    start = api.index(f'id="{name}.adapters.lora.LoRALinear"')
    own = api[start : api.index(f'id="{name}.adapters.lora.LoRALinear.forward"')]
    assert symbol_links(own) == ["LoRAConfig"]  # save is a parameter there
    assert "files.save" in symbol_links(api)  # as a room's modules call what lies above it


def test_listings_link_to_entry_and_source(book: Book):
    page = book.page("book/sft/lora")
    lines = FILES[f"code/{PACKAGE}/sft/adapters/lora.py"].splitlines()
    first = lines.index("    def forward(self, x: list[float]) -> list[float]:") + 1
    hidden = lines.index("def _hidden():") + 1
    source = f"{ADDRESS}/blob/main/code/{PACKAGE}/sft/adapters/lora.py"
    assert f'href="../api.html#{PACKAGE}.sft.adapters.lora.LoRALinear.forward"' in page
    assert f'href="{source}#L{first}-L{first + 6}">source</a>' in page
    # Private code links to its module.
    assert f'href="../api.html#module-{PACKAGE}.sft.adapters.lora"' in page
    assert f'href="{source}#L{hidden}-L{hidden + 1}">source</a>' in page


def symbol_links(page: str) -> list[str]:
    found = re.findall(
        r'<a class="pt-symbol[^"]*" href="[^"]*"[^>]*><code[^>]*>(.*?)</code>', page
    )
    return [re.sub(r"<[^>]+>", "", text) for text in found]


def test_inline_code_links_once_in_a_section(book: Book):
    assert symbol_links(book.page("book/sft/lora")) == [
        "LoRALinear", "LoRALinear.forward", "LoRAConfig()",
    ]  # fmt: skip
    # Words link where a cell imports them, and other names as the cell calls them.
    assert symbol_links(book.page("book/sft/qlora")) == ["save", "Layer"]


def test_the_table_of_modules(book: Book):
    api = book.page("book/api")
    tables = re.findall(r"<tbody>(.*?)</tbody>", api, re.DOTALL)
    words = [" ".join(re.sub(r"<[^>]+>", " ", table).split()) for table in tables]
    assert words == ["files Files.", "lora LoRA, with LoRALinear . LoRA chapter"]
    assert f'href="#module-{PACKAGE}.sft.adapters.lora"' in api


def test_what_is_missing_is_a_warning_with_its_place(make: Callable[[], Book]):
    book = make()
    path = f"code/{PACKAGE}/sft/files.py"
    text = (
        FILES[path].replace("sft/qlora", "sft/quarto").replace("Write.", "Write (Roe, 1999).")
    )
    book.write(path, text + '\n\ndef load() -> None:\n    """Read."""\n')
    warnings = book.build()
    at = f"{book.folder / path}"
    line = text.splitlines().index("    Chapter: sft/quarto.") + 1
    assert f"{at}:{line}: WARNING: no such chapter: book/sft/quarto.md" in warnings
    assert f"{at}:4: WARNING: the bibliography has no one entry for 'Roe, 1999'" in warnings
    assert re.search(rf"{re.escape(at)}:\d+: WARNING: load has no chapter", warnings)
    assert "quarto" in entry(book.page("book/api"), "files.save")


def test_a_listing_without_an_entry_is_a_warning(make: Callable[[], Book]):
    book = make()
    book.write("book/api.md", "# API\n")
    warnings = book.build(nitpicky=False)
    assert (
        f"py:obj reference target not found: {PACKAGE}.sft.adapters.lora.LoRALinear.forward"
        in warnings
    )
    assert f"py:mod reference target not found: {PACKAGE}.sft.adapters.lora" in warnings


def test_api_pages_follow_the_chapters(make: Callable[[], Book]):
    book = make()
    book.build()
    book.write("book/sft/qlora.md", "# Renamed\nNo cells.\n")
    assert book.build() == ""
    line = entry(book.page("book/api"), "adapters.lora.LoRALinear")
    assert "Chapters: LoRA chapter, Renamed" in line
    assert "Chapter: Renamed · Also in: LoRA chapter" in entry(
        book.page("book/api"), "files.save"
    )
    lora = FILES["book/sft/lora.md"]
    book.write("book/sft/lora.md", lora.replace(f"from {PACKAGE}.sft.files import save\n", ""))
    assert book.build() == ""
    assert "Also in" not in entry(book.page("book/api"), "files.save")
