"""Summaries of pages, and the footer's line with version and commit."""

import subprocess
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
from docutils import nodes
from docutils.utils import new_document
from sphinx import addnodes

from book._ext.site.pages import SUMMARY_LENGTH, add_footer, stamp, summary_of
from posttrain import __version__

REPOSITORY = "https://github.com/owner/name"


def page(*paragraph: nodes.Node) -> nodes.document:
    document, section = new_document("page"), nodes.section()
    section += [nodes.title("", "Title"), nodes.comment("", "hidden")]
    section += nodes.note("", nodes.paragraph("", "In a box."))
    section += nodes.paragraph("", "", *paragraph)
    section += nodes.paragraph("", "Second paragraph.")
    document += [nodes.target(), section]
    return document


def citation() -> nodes.Node:
    return addnodes.pending_xref("", nodes.inline("", "hu2022"), refdomain="cite", reftype="p")


def test_a_summary_is_the_first_paragraph() -> None:
    words = [nodes.Text("LoRA "), nodes.emphasis("", "trains"), nodes.Text(" an update "),
             citation(), nodes.Text(".\nIt\nis small.")]  # fmt: skip
    assert summary_of(page(*words)) == "LoRA trains an update. It is small."


def test_a_summary_is_what_the_page_sets_apart_as_its_lead() -> None:
    document = page(nodes.Text("Text."))
    lead = nodes.container("", nodes.paragraph("", "The lead."), classes=["pt-lead"])
    document.children[1].insert(2, lead)
    document.children[1].insert(1, nodes.container("", nodes.paragraph("", "A box.")))
    assert summary_of(document) == "The lead."


def test_a_summary_ends_with_a_sentence() -> None:
    long = "A sentence of forty characters, exactly. " * 9
    summary = summary_of(page(nodes.Text(long)))
    assert summary == ("A sentence of forty characters, exactly. " * 4).strip()
    assert len(summary) < SUMMARY_LENGTH


def test_a_sentence_that_is_too_long_is_cut_between_words() -> None:
    summary = summary_of(page(nodes.Text("seven77 " * 60)))
    assert summary.endswith("seven77…") and len(summary) <= SUMMARY_LENGTH


def test_what_is_no_text_leaves_no_trace() -> None:
    parts = [nodes.Text("A loss of "), nodes.raw("", "<!-- given -->", format="html"),
             nodes.literal("", "x"), nodes.Text(" nats.")]  # fmt: skip
    assert summary_of(page(*parts)) == "A loss of x nats."


def test_a_page_without_a_paragraph_has_no_summary() -> None:
    document = new_document("page")
    document += nodes.section("", nodes.title("", "Title"))
    assert summary_of(document) == ""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


def commit(folder: Path) -> str:
    (folder / "file").write_text("one")
    author = [
        "-c",
        "user.name=A",
        "-c",
        "user.email=a@example.org",
        "-c",
        "commit.gpgsign=false",
    ]
    for words in (["init", "-q"], ["add", "file"], [*author, "commit", "-qm", "One"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    done = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


def test_the_footer_names_version_and_commit(repository: Path) -> None:
    sha = commit(repository)
    (repository / "untracked").touch()
    link = f'<a href="{REPOSITORY}/commit/{sha}">{sha[:10]}</a>'
    assert stamp(repository, REPOSITORY) == f"<p>Version {__version__}, commit {link}.</p>"


def test_a_changed_file_is_said_and_not_linked(repository: Path) -> None:
    sha = commit(repository)
    (repository / "file").write_text("two")
    expected = f"<p>Version {__version__}, commit {sha[:10]} with changes.</p>"
    assert stamp(repository, REPOSITORY) == expected


def test_outside_a_repository_the_commit_is_unknown(repository: Path) -> None:
    expected = f"<p>Version {__version__}, commit unknown.</p>"
    assert stamp(repository, REPOSITORY) == expected


def test_without_git_the_commit_is_unknown(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit(repository)
    monkeypatch.setenv("PATH", str(repository))
    assert "commit unknown" in stamp(repository, REPOSITORY)


def test_the_footer_keeps_what_stands_there() -> None:
    context = {"theme_extra_footer": "<p>License.</p>", "site_stamp": "<p>Version 1.</p>"}
    add_footer(None, "page", "page.html", context, None)  # type: ignore[arg-type]
    assert context["theme_extra_footer"] == "<p>License.</p><p>Version 1.</p>"
