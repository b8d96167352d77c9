"""Sphinx extension: how to cite a chapter, folded at its end.

Authors and version come from ``CITATION.cff``, the year from the book's copyright, the address
from the site's, the commit from git where the book lies in a repository.
"""

import re
import subprocess
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.errors import ConfigError

from book._ext.site.stages import BOOK, is_chapter

LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip


def read_citation(path: Path) -> dict[str, Any]:
    """Read what a citation of any page needs.

    Args:
        path: The file ``CITATION.cff``.

    Returns:
        Its fields, at least ``title``, ``version`` and ``authors``.

    Raises:
        ConfigError: If the file cannot be read, or lacks one of these.
    """
    try:
        fields = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} cannot be read: {error}") from error
    wanted = ("title", "version", "authors")
    missing = [key for key in wanted if not isinstance(fields, dict) or not fields.get(key)]
    if missing:
        raise ConfigError(f"{path} lacks {', '.join(missing)}: pages cannot be cited without")
    return dict(fields)


def authors_text(authors: list[dict[str, str]]) -> str:
    """Write authors as BibTeX wants them; a group's name in braces, so that it stays whole."""
    names = []
    for author in authors:
        if "family-names" in author:
            given = author.get("given-names", "")
            names.append(latex(", ".join(filter(None, (author["family-names"], given)))))
        else:
            names.append(f"{{{latex(author['name'])}}}")
    return " and ".join(names)


def latex(text: str) -> str:
    """Escape what LaTeX would read as a command."""
    return "".join(LATEX.get(character, character) for character in text)


def entry(
    docname: str, title: str, fields: dict[str, Any], year: str, url: str, commit: str
) -> str:
    """Write the BibTeX entry of a page.

    Args:
        docname: The page, such as ``book/sft/lora``; the key is made of it.
        title: Its title.
        fields: What `read_citation` returned.
        year: Four digits; may be empty.
        url: The page's address; may be empty.
        commit: The source's commit, abbreviated; may be empty.

    Returns:
        The entry, with aligned fields.
    """
    book = re.sub(r"[^a-z0-9]+", "", str(fields["title"]).lower())
    key = "_".join([book, *docname.removeprefix(BOOK).split("/")])
    note = f"Version {fields['version']}" + (f", commit {commit}" if commit else "")
    values = {
        "author": authors_text(fields["authors"]),
        "title": latex(title),
        "booktitle": latex(str(fields["title"])),
        "year": year,
        "note": latex(note),
        "url": url,
    }
    lines = [f"  {name:9} = {{{value}}}" for name, value in values.items() if value]
    return "@incollection{" + ",\n".join([key, *lines]) + "\n}\n"


def commit_of(folder: Path) -> str:
    """Return the abbreviated commit of the repository that holds a folder; else nothing."""
    command = ["git", "-C", str(folder), "rev-parse", "--short=10", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


class Citations:
    """Adds the blocks; reads the file and asks git once for all pages."""

    fields: dict[str, Any]
    commit: str

    def prepare(self, app: Sphinx) -> None:
        """Read what all citations share."""
        folder = Path(app.srcdir)
        self.fields, self.commit = read_citation(folder / "CITATION.cff"), commit_of(folder)

    def add_block(
        self,
        app: Sphinx,
        pagename: str,
        templatename: str,
        context: dict[str, Any],
        doctree: nodes.document | None,
    ) -> None:
        """Put the folded entry behind the body of a chapter."""
        if doctree is None or not is_chapter(pagename):
            return
        years = re.findall(r"\d{4}", app.config.copyright)
        base, year = app.config.html_baseurl, years[-1] if years else ""
        url = f"{base.rstrip('/')}/{app.builder.get_target_uri(pagename)}" if base else ""
        title = app.env.titles[pagename].astext()
        text = entry(pagename, title, self.fields, year, url, self.commit)
        assert isinstance(app.builder, StandaloneHTMLBuilder)  # only it emits this event
        code = app.builder.highlighter.highlight_block(text, "bibtex")
        context["body"] += (
            '<details class="pt-cite"><summary>Cite this page</summary>\n'
            f'<div class="highlight-bibtex notranslate">{code}</div></details>\n'
        )


def setup(app: Sphinx) -> dict[str, Any]:
    """Add the blocks when pages are written."""
    citations = Citations()
    app.connect("builder-inited", citations.prepare)
    app.connect("html-page-context", citations.add_block)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
