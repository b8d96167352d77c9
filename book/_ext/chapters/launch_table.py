"""Sphinx extension: the launch table ``book/launch.yml``, and the repository that is launched.

The table says what each page's notebook installs, what a page takes and whether it fits Binder.
Extensions ask here for a build's table, tools read the file here.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx
from sphinx.errors import SphinxError

from book._ext.site.address import owner_and_name

TABLE = "book/launch.yml"


class LaunchTableError(SphinxError):
    """The launch table is missing, or says what cannot be."""

    category = "Launch table"


@dataclass(frozen=True)
class Repository:
    """Where services find the pages.

    Attributes:
        name: Such as ``owner/name``.
        branch: The branch of the pages' sources.
    """

    name: str
    branch: str


def read_launch_table(root: Path) -> dict[str, Any]:
    """Read the launch table.

    Args:
        root: The folder of the book's configuration.

    Returns:
        The table: ``install`` and ``as_found`` with packages, ``binder`` with what a session
        has and ``pages`` with what each takes, in GiB and seconds.

    Raises:
        LaunchTableError: If the file is missing or holds no table.
    """
    file = root / TABLE
    if not file.is_file():
        raise LaunchTableError(
            f"{TABLE} is missing: it says what each page installs and which pages fit Binder"
        )
    table = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(table, dict) or not isinstance(table.get("pages"), dict):
        raise LaunchTableError(f"{TABLE} names no pages: list them under pages:")
    return table


def checked(table: dict[str, Any]) -> dict[str, Any]:
    """Return a table whose pages for Binder fit it.

    Args:
        table: The table.

    Returns:
        The same table.

    Raises:
        LaunchTableError: If it calls a page fit for Binder that is not.
    """
    most = table["binder"]["memory"] - table["binder"]["server"]
    for page, entry in table["pages"].items():
        if entry["binder"] and not entry["memory"] <= most:
            raise LaunchTableError(
                f"{TABLE}: {page} is marked for Binder, but takes {entry['memory']} GiB of the "
                f"{most:g} that Binder leaves: write binder: false"
            )
    return table


def table_of(app: Sphinx) -> dict[str, Any]:
    """Return the table of this build."""
    table: dict[str, Any] = app.env.launch_table  # type: ignore[attr-defined]
    return table


def entry_of(app: Sphinx, docname: str) -> dict[str, Any]:
    """Return what the table says of a page; nothing where it is silent."""
    entry: dict[str, Any] = table_of(app)["pages"].get(docname, {})
    return entry


def repository_of(app: Sphinx) -> Repository:
    """Return the repository that the theme's options name."""
    options = app.config.html_theme_options
    return Repository(
        owner_and_name(options["repository_url"]), options.get("repository_branch") or "main"
    )


def load(app: Sphinx) -> None:
    """Read the table before the pages."""
    app.env.launch_table = checked(read_launch_table(Path(app.srcdir)))  # type: ignore[attr-defined]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the step; the extensions that need the table set this one up."""
    app.connect("builder-inited", load)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
