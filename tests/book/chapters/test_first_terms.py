"""Terms of the glossary are linked where a chapter uses them first; and the glossary itself."""

import io
import re
from fnmatch import fnmatchcase
from html import unescape
from pathlib import Path

import pytest

pytest.importorskip("myst_parser")
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

ROOT = Path(__file__).parents[3]
BOOK = ROOT / "book"
GLOSSARY = """# Glossary

```{glossary}
mask
  What hides "tokens" & more. → {doc}`sft/masks`
  % also: masked

causal mask
  The rule that a position sees the past.
  Only that. → {doc}`sft/masks`, {doc}`sft/lora`

loss
  What training makes small.
  % also: negative log-likelihood
  % only: book/dpo/*, book/sft/l*
```
"""
INDEX = "# Start\n\nA mask.\n\n```{toctree}\n:glob:\nbook/glossary\nbook/*/*\n```\n"


class Book:
    """A small book in MyST with a glossary and the chapters ``masks`` and ``lora``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.write("index", INDEX)
        self.write("book/glossary", GLOSSARY)
        self.write("book/sft/masks", "# Masks\n\nText.\n")
        self.write("book/sft/lora", "# LoRA\n\nText.\n")

    def write(self, name: str, text: str) -> None:
        path = self.folder / "source" / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def build(self) -> str:
        warnings = io.StringIO()
        overrides = {
            "extensions": ["myst_parser", "book._ext.chapters.first_terms"],
            "myst_enable_extensions": ["dollarmath"],
            "html_theme": "basic",
            "numfig": True,
        }
        out, trees = self.folder / "html", self.folder / "trees"
        with docutils_namespace():
            app = Sphinx(
                str(self.folder / "source"), None, str(out), str(trees), "html",
                confoverrides=overrides, status=None, warning=warnings,
            )  # fmt: skip
            app.build()
        return warnings.getvalue()

    def page(self, name: str) -> str:
        return (self.folder / "html" / f"{name}.html").read_text()

    def links(self, body: str, name: str = "book/sft/masks") -> list[str]:
        """Words that are linked on a page with this body."""
        self.write(name, f"# Title of a causal mask\n\n{body}\n")
        assert self.build() == ""
        return [words for _, _, words in self.found(name)]

    def found(self, name: str = "book/sft/masks") -> list[tuple[str, str, str]]:
        pattern = r'<a class="pt-term[^"]*" href="(.*?)" title="(.*?)">(.*?)</a>'
        return [
            (href, unescape(title), words)
            for href, title, words in re.findall(pattern, self.page(name), re.DOTALL)
        ]


@pytest.fixture
def book(tmp_path: Path) -> Book:
    return Book(tmp_path)


def test_the_first_use_is_linked_with_its_meaning(book: Book) -> None:
    assert book.links("A mask here. A mask there.\n\nThe mask.") == ["mask"]
    assert "A <a class=" in book.page("book/sft/masks")
    assert book.found() == [
        ("../glossary.html#term-mask", "What hides “tokens” & more.", "mask")
    ]


CASES = {
    "Two Masks.": ["Masks"],
    "It is masked, with masks.": ["masked"],
    "A causal mask, a mask, a causal mask.": ["causal mask", "mask"],
    "A causal mask. Another causal mask.": ["causal mask"],
    "A causal\nmask.": ["causal\nmask"],
    "An *emphasized mask* and a **strong causal mask**.": ["mask", "causal mask"],
    "- a list\n- of masks": ["masks"],
    "> A mask in a quotation.": ["mask"],
    "Unmask, maskot, mask-like, re-mask, a/mask, mask.py and maskes2.": [],
    "`mask` and $mask$ and [mask](https://example.com) and {doc}`mask <lora>`.": [],
    "$$\nmask\n$$\n\n```python\nmask\n```\n\n## A mask\n\n% a mask": [],
    "| mask |\n|---|\n| mask |": [],
    "```{figure} x.png\n:alt: mask\n\nA mask in a caption.\n```": [],
    "```{note}\nA mask in a note.\n```": ["mask"],
    "```{admonition} A mask\nText.\n```": [],
    "Not twice: `mask`, then a mask.": ["mask"],
}


def test_only_prose_counts(book: Book) -> None:
    (book.folder / "source/book/sft/x.png").write_bytes(b"")
    for number, body in enumerate(CASES):
        book.write(f"book/sft/case_{number}", f"# Title of a causal mask\n\n{body}\n")
    assert book.build() == ""
    for number, (body, linked) in enumerate(CASES.items()):
        found = [words for _, _, words in book.found(f"book/sft/case_{number}")]
        assert found == linked, body


def test_cells_count_as_code(book: Book) -> None:
    assert book.links(
        "````{container} cell\nA mask.\n````\n\n```{container} x\nMasked.\n```"
    ) == ["Masked"]


def test_some_words_have_their_meaning_on_some_pages_only(book: Book) -> None:
    assert book.links("A loss, a negative log-likelihood.") == []
    assert book.links("A negative log-likelihood, a loss.", "book/sft/lora") == [
        "negative log-likelihood"
    ]


def test_only_chapters_are_changed(book: Book) -> None:
    assert book.links("A mask.", "book/start/setup") == []
    assert book.found("index") == [] and book.found("book/glossary") == []


def test_the_comments_are_not_shown(book: Book) -> None:
    assert book.build() == ""
    page = book.page("book/glossary")
    assert "also" not in page and "only" not in page and "log-likelihood" not in page


def test_a_changed_glossary_changes_chapters_that_were_read_before(book: Book) -> None:
    assert book.links("A mask and a causal mask.") == ["mask", "causal mask"]
    book.write("book/glossary", GLOSSARY.replace("sees the past", "sees no future"))
    book.build()
    assert "sees no future. Only that." in book.found()[1][1]
    book.write("book/glossary", "# Glossary\n\nNothing.\n")
    book.build()
    assert book.found() == []


# --- the glossary of this book ---

ENTRY = re.compile(r"^(?![ `:])(\S.*)\n((?:  .+\n)+)", re.MULTILINE)


def entries() -> dict[str, str]:
    text = (BOOK / "glossary.md").read_text(encoding="utf-8")
    return dict(ENTRY.findall(text.split(":sorted:\n")[1]))


def option(body: str, key: str) -> list[str]:
    found = re.search(rf"^  % {key}: (.+)$", body, re.MULTILINE)
    return [value.strip() for value in found[1].split(",")] if found else []


def test_the_glossary_has_a_meaning_and_a_chapter_for_each_term() -> None:
    found = entries()
    assert len(found) >= 60
    for name, body in found.items():
        line = body.splitlines()[0].strip()
        match = re.fullmatch(r"(\S.*[.!]) →[ \u00a0]\{doc\}`([\w/]+)`", line)
        assert match, f"{name}: a definition, an arrow, and the chapter that explains it"
        assert len(re.findall(r"[.!?](?= |$)", match[1])) <= 3, f"{name}: too long"
        assert len(match[1].split()) <= 45, f"{name}: too long"
        assert (BOOK / f"{match[2]}.md").is_file(), name
        assert all(line.startswith("  % ") for line in body.splitlines()[1:]), name


def test_each_term_stands_in_a_chapter() -> None:
    pages = {
        path.relative_to(ROOT).with_suffix("").as_posix(): path for path in BOOK.rglob("*/*.md")
    }
    texts = {name: path.read_text(encoding="utf-8") for name, path in pages.items()}
    unused = []
    for name, body in entries().items():
        forms = "|".join(map(re.escape, [name, *option(body, "also")]))
        here = option(body, "only") or ["book/*"]
        unused += [
            name
            for found in [
                any(
                    re.search(rf"\b(?:{forms})", text.replace("\n", " "), re.IGNORECASE)
                    for page, text in texts.items()
                    if "/start/" not in page and any(fnmatchcase(page, p) for p in here)
                )
            ]
            if not found
        ]
    assert not unused


def test_no_form_has_two_meanings() -> None:
    forms = [
        form.lower()
        for name, body in entries().items()
        for form in (name, *option(body, "also"))
    ]
    assert sorted({form for form in forms if forms.count(form) > 1}) == []
