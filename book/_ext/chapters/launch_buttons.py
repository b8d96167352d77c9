"""Sphinx extension: where a page with code can be run.

The theme's own buttons link to the pages' sources, and Colab cannot open MyST. Here the Colab
button opens the notebook that ``make notebooks`` has put on the branch ``notebooks``, and the
Binder button opens the source in JupyterLab, where jupytext reads it. ``book/launch.yml`` says
which pages fit Binder; a line in the page's cost box says it too. Edit and issue buttons stay
on the source, and a page without code gets nothing.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from book._ext.chapters.launch_table import TABLE, entry_of, repository_of, table_of

COLAB = "https://colab.research.google.com/github"
BINDER = "https://mybinder.org/v2/gh"
NOTEBOOKS = "notebooks"
"""The branch that holds the generated notebooks."""

COST_BOX = "Cost of this page"
GROUP = "launch-buttons"
LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True)
class Place:
    """A service that runs a page.

    Attributes:
        name: What it is called.
        address: Opens the page there.
        icon: The theme's picture of it.
    """

    name: str
    address: str
    icon: str

    def button(self) -> dict[str, str]:
        """Return the entry for the theme's menu."""
        return {
            "type": "link",
            "text": self.name,
            "tooltip": f"Run this page in {self.name}",
            "icon": f"_static/images/{self.icon}",
            "url": self.address,
        }


def has_code(doctree: nodes.document | None) -> bool:
    """Say whether a page has code cells."""
    return doctree is not None and any(
        node.get("nb_element") == "cell_code" for node in doctree.findall(nodes.container)
    )


def places(app: Sphinx, docname: str) -> list[Place]:
    """Return where a page with code can be run.

    Args:
        app: The application; its theme options hold the repository's address and branch.
        docname: The page.

    Returns:
        Colab, and Binder if the page fits.
    """
    repository = repository_of(app)
    colab = f"{COLAB}/{repository.name}/blob/{NOTEBOOKS}/{docname}.ipynb"
    found = [Place("Colab", colab, "logo_colab.png")]
    if entry_of(app, docname).get("binder"):
        source = Path(app.env.doc2path(docname)).relative_to(app.srcdir).as_posix()
        at = f"{repository.name}/{repository.branch}"
        binder = f"{BINDER}/{at}?urlpath=lab/tree/{source}"
        found.append(Place("Binder", binder, "logo_binder.svg"))
    return found


def compare(app: Sphinx, env: BuildEnvironment) -> None:
    """Warn of a page that the table names and the book lacks."""
    for page in table_of(app)["pages"]:
        if page not in env.found_docs:
            LOGGER.warning(f"{TABLE} names {page}, which is no page: remove it", type="launch")


def say_where(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Add to the page's cost box where the page can be run."""
    if app.builder.format != "html" or not has_code(doctree):
        return
    if not entry_of(app, docname):
        LOGGER.warning(
            f"the page has code cells, but {TABLE} does not name it: add its memory, its "
            "seconds and whether it fits Binder",
            location=docname,
            type="launch",
        )
        return
    warn_if_too_large(app, docname)
    box = cost_box(doctree)
    if box is not None:
        box.append(sentence(app, docname))
        return
    title = next(doctree.findall(nodes.title))
    title.parent.insert(title.parent.index(title) + 1, sentence(app, docname))


def cost_box(doctree: nodes.document) -> nodes.admonition | None:
    """Return the page's cost box, if it has one."""
    boxes = doctree.findall(nodes.admonition)
    return next((box for box in boxes if box.children[0].astext() == COST_BOX), None)


def sentence(app: Sphinx, docname: str) -> nodes.paragraph:
    """Return the line that says where a page can be run, and why not in Binder."""
    line = nodes.paragraph("", "Run this page in ", classes=["pt-launch"])
    for number, place in enumerate(places(app, docname)):
        line += nodes.Text(" or " if number else "")
        line += nodes.reference("", place.name, refuri=place.address, internal=False)
    entry, table = entry_of(app, docname), table_of(app)
    if entry["binder"]:
        line += nodes.Text(".")
    else:
        room = f"it needs more memory than the {table['binder']['memory']:g} GiB of a session"
        line += nodes.Text(f". Binder cannot run it: {entry.get('why', room)}.")
    return line


def warn_if_too_large(app: Sphinx, docname: str) -> None:
    """Warn if this build measured more memory than Binder has for a page marked as fit."""
    table = table_of(app)
    config = getattr(app.env, "mystnb_config", None)
    file = Path(config.output_folder if config else "", f"{docname}.glue.json")
    if not entry_of(app, docname)["binder"] or not file.is_file():
        return
    glued = json.loads(file.read_text(encoding="utf-8")).get("page-memory")
    if glued and (measured := float(glued["data"]["text/plain"])) > table["binder"]["memory"]:
        LOGGER.warning(
            f"the page took {measured:.1f} GiB, and {TABLE} marks it as fit for Binder, which "
            f"has {table['binder']['memory']:g}: write binder: false there",
            location=docname,
            type="launch",
        )


def add_buttons(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Put the buttons into the theme's launch menu, before what it holds already."""
    if not has_code(doctree):
        return
    menus: list[dict[str, Any]] = context.setdefault("header_buttons", [])
    buttons = [place.button() for place in places(app, pagename)]
    menu = find_menu(menus)
    if menu is not None:
        menu["buttons"][:0] = buttons
        return
    menus.insert(
        0,
        {
            "type": "group",
            "tooltip": "Run this page",
            "icon": "fas fa-rocket",
            "buttons": buttons,
            "label": GROUP,
        },
    )


def find_menu(menus: Iterable[dict[str, Any]]) -> dict[str, Any] | None:
    """Return the launch menu that the theme made for its own buttons, such as live code."""
    return next((menu for menu in menus if menu.get("label") == GROUP), None)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps of a build; the theme makes its buttons at priority 501."""
    app.setup_extension("book._ext.chapters.launch_table")
    app.connect("env-updated", compare)
    app.connect("doctree-resolved", say_where)
    app.connect("html-page-context", add_buttons, priority=505)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
