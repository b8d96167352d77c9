"""The folded citation at the end of a chapter."""

import io
import re
import subprocess
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sphinx")
from sphinx.application import Sphinx
from sphinx.errors import ConfigError
from sphinx.util.docutils import docutils_namespace

from book._ext.chapters import cite_page

ROOT = Path(__file__).parents[3]
CITATION = """
title: A Book & More
version: 1.2.0
authors:
  - name: The authors
  - family-names: Doe
    given-names: Jo_hn
"""
PAGES = {
    "index": "Start\n=====\n\n.. toctree::\n   :glob:\n\n   book/*/*\n",
    "book/sft/lora": "Low rank: 50 %\n==============\n\nText.\n",
    "book/start/setup": "Setup\n=====\n\nText.\n",
}


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Callable[[str], str]]:
    source = tmp_path / "source"
    for name, text in PAGES.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / f"{name}.rst").write_text(text)
    (source / "CITATION.cff").write_text(CITATION)

    def run(**settings: Any) -> Callable[[str], str]:
        settings = {
            "extensions": ["book._ext.chapters.cite_page"],
            "html_theme": "basic",
        } | settings
        out, warnings = str(tmp_path / "html"), io.StringIO()
        with docutils_namespace():
            app = Sphinx(
                str(source), None, out, str(tmp_path / "trees"), "html",
                confoverrides=settings, status=None, warning=warnings,
            )  # fmt: skip
            app.build()
        assert warnings.getvalue() == ""
        return lambda page: (tmp_path / "html" / f"{page}.html").read_text()

    return run


def bibtex(page: str) -> str:
    block = re.search(r'<details class="pt-cite">.*?<pre.*?>(.*?)</pre>', page, re.DOTALL)
    return unescape(re.sub(r"<.*?>", "", block[1])) if block else ""


def test_a_chapter_ends_with_its_entry(build: Callable[..., Callable[[str], str]]) -> None:
    page = build(copyright="2024–2026", html_baseurl="https://example.org/book/")
    text = bibtex(page("book/sft/lora"))
    assert text == (
        "@incollection{abookmore_sft_lora,\n"
        "  author    = {{The authors} and Doe, Jo\\_hn},\n"
        "  title     = {Low rank: 50 \\%},\n"
        "  booktitle = {A Book \\& More},\n"
        "  year      = {2026},\n"
        "  note      = {Version 1.2.0},\n"
        "  url       = {https://example.org/book/book/sft/lora.html}\n"
        "}\n"
    )
    assert page("book/sft/lora").index("Text.") < page("book/sft/lora").index("pt-cite")


def test_other_pages_have_none(build: Callable[..., Callable[[str], str]]) -> None:
    page = build()
    assert "pt-cite" not in page("index") and "pt-cite" not in page("book/start/setup")


def test_what_is_unknown_is_left_out(build: Callable[..., Callable[[str], str]]) -> None:
    text = bibtex(build(copyright="")("book/sft/lora"))
    assert "url" not in text and "year" not in text and text.endswith("{Version 1.2.0}\n}\n")


def test_the_commit_is_named(
    build: Callable[..., Callable[[str], str]], tmp_path: Path
) -> None:
    assert cite_page.commit_of(tmp_path / "missing") == ""
    source = str(tmp_path / "source")
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for words in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", source, *words], check=True, capture_output=True)
    commit = cite_page.commit_of(tmp_path / "source")
    assert re.fullmatch("[0-9a-f]{10,}", commit)
    assert f"{{Version 1.2.0, commit {commit}}}" in bibtex(build()("book/sft/lora"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("title: [", "cannot be read"),
        ("- a list", "lacks title, version, authors"),
        ("title: A\nversion: 1\n", "lacks authors"),
    ],
)
def test_a_wrong_file_is_named(
    build: Callable[..., Callable[[str], str]], tmp_path: Path, text: str | None, message: str
) -> None:
    file = tmp_path / "source/CITATION.cff"
    file.unlink()
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=message):
        build()


def test_this_book_can_be_cited() -> None:
    fields = cite_page.read_citation(ROOT / "CITATION.cff")
    text = cite_page.entry("book/sft/lora", "LoRA", fields, "2026", "", "")
    assert text.startswith("@incollection{posttraininghandson_sft_lora,\n")
    assert "{Post-Training, Hands On}" in text
