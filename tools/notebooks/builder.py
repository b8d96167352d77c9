"""Write each chapter as a notebook that runs on its own: ``make notebooks``.

Sphinx reads the pages without running them, resolves their references and numbers, and this
builder writes the result as ``.ipynb`` files. References become links to the site, included
code becomes a listing with a link to the repository, and the first cell installs the package at
the revision that the notebooks are made from.
"""

import argparse
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import nbformat
import yaml
from docutils import nodes
from docutils.parsers.rst import directives
from myst_nb.ext.glue.directives import (
    PasteAnyDirective,
    PasteFigureDirective,
    PasteMathDirective,
)
from sphinx.application import Sphinx
from sphinx.builders import Builder
from sphinx.domains import Domain
from sphinx.util.docutils import SphinxDirective, SphinxRole

from book._ext.chapters.myst import read
from book._ext.site.address import repository_url, site_url
from posttrain.core.goals import Goal
from posttrain.core.storage.files import write_text_atomic
from tools.notebooks.cells import CellWriter, Prose, is_cell, notebook_of
from tools.notebooks.checks import Places, check_notebooks
from tools.notebooks.first_cell import first_cell, head_of
from tools.notebooks.inline import NotebookError, Page

ROOT = Path(__file__).parents[2]

TAG = re.compile(r"\bremove[-_](cell|input|output)\b")
NOTE = """\
*This notebook was made from [a page of {title}]({address}), which shows what its cells gave \
when the site was built. Run its cells in order, the one above first. A name such as ⟨loss⟩ in \
the text stands for a number that a cell here computes; a folded cell at the end of a section \
prints these numbers. Links lead to the site.*"""


class GluedText(SphinxRole):
    """A value that a cell hands to the text: its name stays, for nothing is executed."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        name, _, form = (
            self.text.rpartition(":") if self.name == "glue:text" else (self.text,) * 3
        )
        if self.name == "glue:text" and (not name or name.endswith(":")):
            name, form = self.text, "s"
        page, _, name = name.rpartition("::")
        if page:
            page = self.env.path2doc(self.env.relfn2path(page)[1]) or ""
        form = form if self.name == "glue:text" else "s"
        return [nodes.inline("", name, glue=name, format=form, page=page)], []


class GluedBlock(SphinxDirective):
    """A figure or another result of a cell: the cell shows it, so the caption stays."""

    required_arguments = 1
    has_content = True
    final_argument_whitespace = True

    option_spec: ClassVar = {
        option: spec
        for directive in (PasteAnyDirective, PasteFigureDirective, PasteMathDirective)
        for option, spec in directive.option_spec.items()
    } | {"format": directives.unchanged}

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0].rpartition("::")[2]
        if self.name != "glue:figure":
            return []
        figure = nodes.figure("", glue=name)
        self.set_source_info(figure)
        self.add_name(figure)
        body = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, body)
        for place, child in enumerate(body.children):
            first = place == 0 and isinstance(child, nodes.paragraph)
            figure += (
                nodes.caption("", "", *child.children) if first else nodes.legend("", child)
            )
        return [figure]


class Names(Domain):
    """Replaces the domain of MyST-NB, whose roles want executed cells."""

    name = "glue"
    label = "Names of glued values"
    roles = dict.fromkeys(("", "any", "text", "md"), GluedText())
    directives = dict.fromkeys(("", "any", "figure", "math", "md"), GluedBlock)

    def merge_domaindata(self, docnames: Any, otherdata: Any) -> None:
        """There is nothing to merge."""


class NotebookBuilder(Builder):
    """Writes pages with code cells as notebooks."""

    name = "notebooks"
    epilog = ""
    allow_parallel = False

    def get_outdated_docs(self) -> Iterator[str]:
        yield from sorted(self.env.found_docs)

    def get_target_uri(self, docname: str, typ: str | None = None) -> str:
        return f"{self.config.notebooks_site}{docname}.html"

    def get_relative_uri(self, from_: str, to: str, typ: str | None = None) -> str:
        return self.get_target_uri(to, typ)

    def prepare_writing(self, docnames: Iterable[str]) -> None:
        self.fignumbers: dict[str, Any] = {}

    def write_doc(self, docname: str, doctree: nodes.document) -> None:
        if not any(map(is_cell, doctree.findall(nodes.container))):
            return
        page = self.page(docname)
        written = CellWriter(page).write(doctree)
        note = NOTE.format(title=self.config.html_title, address=page.address)
        title = next((n + 1 for n, item in enumerate(written) if isinstance(item, Prose)), 0)
        written.insert(title, Prose(note))
        first = first_cell(docname, page.repository, Path(page.root))
        notebook = notebook_of(page, [first, *written], self.config.notebooks_revision)
        nbformat.validate(notebook)
        target = Path(self.config.notebooks_folder) / f"{docname}.ipynb"
        write_text_atomic(target, nbformat.writes(notebook) + "\n")

    def page(self, docname: str) -> Page:
        """Collect what the writers must know about a page."""
        root = str(self.app.srcdir)
        numbers = dict(self.env.toc_fignumbers.get(docname, {}))
        numbers["section"] = self.env.toc_secnumbers.get(docname, {})
        return Page(
            docname=docname,
            source=Path(self.env.doc2path(docname)).relative_to(root).as_posix(),
            site=self.config.notebooks_site,
            repository=self.config.notebooks_repository,
            root=root,
            numbers=numbers,
            formats=self.config.numfig_format,
        )


def keep_removed_cells(app: Sphinx, docname: str, source: list[str]) -> None:
    """Rename the tags that would remove a cell: later cells need what it defines."""
    lines = source[0].splitlines(keepends=True)
    for cell in read(source[0]).cells:
        for place in range(cell.start, cell.first - 1):  # its options
            lines[place] = TAG.sub(r"removed-\1", lines[place])
    source[0] = "".join(lines)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the builder and what it needs."""
    for name in ("site", "repository", "revision", "folder"):
        app.add_config_value(f"notebooks_{name}", "", "env")
    app.add_builder(NotebookBuilder)
    app.add_domain(Names, override=True)
    app.add_role("glue", GluedText(), override=True)
    app.add_directive("glue", GluedBlock, override=True)
    app.connect("source-read", keep_removed_cells)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": False}


def make_notebooks(root: Path, folder: Path, revision: str) -> list[Path]:
    """Write the notebooks of a book.

    Args:
        root: The folder of ``_config.yml``.
        folder: Where the notebooks go; other notebooks in its folder ``book`` are removed.
        revision: The commit that they install.

    Returns:
        The notebooks.

    Raises:
        NotebookError: If Sphinx finds fault with a page, or a page has no form as a notebook.
    """
    from jupyter_book.config import get_final_config
    from jupyter_book.sphinx import build_sphinx

    repository = repository_url(root / "_config.yml")
    settings, _ = get_final_config(
        user_yaml=root / "_config.yml",
        cli_config={"latex_individualpages": False},
        sourcedir=root,
    )
    (root / "_build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".notebooks-", dir=root / "_build") as scratch:
        made = Path(scratch) / "notebooks"
        overrides = {
            "latex_individualpages": False,
            "nb_execution_mode": "off",
            "source_suffix": {".rst": "restructuredtext"},  # Sphinx's default may have grown
            "extensions": [*settings["extensions"], "tools.notebooks.builder"],
            "notebooks_site": site_of(root),
            "notebooks_repository": repository,
            "notebooks_revision": revision,
            "notebooks_folder": str(made),
        }
        result = build_sphinx(
            str(root), str(Path(scratch) / "out"), noconfig=True, freshenv=True, quiet=True,
            path_config=root / "_config.yml", confoverrides=overrides, builder="notebooks",
            doctreedir=Path(scratch) / "doctrees", warningiserror=True, keep_going=True,
        )  # fmt: skip
        if isinstance(result, NotebookError):
            raise result
        if result != 0:
            raise NotebookError("no notebooks were written: see the message above")
        return _publish(made, folder)


def _publish(made: Path, folder: Path) -> list[Path]:
    files = {folder / file.relative_to(made): file for file in sorted(made.rglob("*.ipynb"))}
    for target, file in files.items():  # written anew: it may be another file system
        write_text_atomic(target, file.read_text(encoding="utf-8"))
    for old in (folder / "book").rglob("*.ipynb"):
        if old not in files:
            old.unlink()
    return list(files)


def site_of(root: Path) -> str:
    """Return the address of the site, with a slash at its end."""
    config = yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))
    own = (config.get("html") or {}).get("baseurl")
    return f"{(own or site_url(repository_url(root / '_config.yml'))).rstrip('/')}/"


def site_goals(root: Path) -> list[Goal]:
    """Write the notebooks of a built site and check them against it, for ``make site-check``.

    Args:
        root: The folder of the repository; ``_build/html`` in it holds the site.

    Returns:
        The share of notebooks without a fault. Faults are printed.
    """
    folder, html = root / "_build" / "notebooks", root / "_build" / "html"
    make_notebooks(root, folder, head_of(root))
    repository = repository_url(root / "_config.yml")
    found = check_notebooks(folder, Places(site_of(root), html, repository, root))
    for name, faults in found.items():
        for fault in faults:
            print(f"{name}: {fault}")
    sound = sum(not faults for faults in found.values())
    text = "notebooks that are valid, without leftovers, with links that lead somewhere"
    share = sound / len(found) if found else 0.0
    return [Goal("site.notebooks_valid", text, share, 1.0, "==", n=len(found))]


def main() -> None:
    """Run ``make notebooks``."""
    parser = argparse.ArgumentParser(description="Write each chapter as a notebook.")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "_build" / "notebooks",
        help="where they go; other notebooks in its folder book are then removed",
    )  # fmt: skip
    parser.add_argument("--revision", help="the commit to install; by default that of HEAD")
    asked = parser.parse_args()
    try:
        made = make_notebooks(ROOT, asked.folder, asked.revision or head_of(ROOT))
    except NotebookError as error:
        sys.exit(f"notebooks: {error}")
    for file in made:
        print(file.relative_to(Path.cwd()) if file.is_relative_to(Path.cwd()) else file)


if __name__ == "__main__":
    main()
