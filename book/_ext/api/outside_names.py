"""Sphinx extension: names of other libraries, linked to their documentation without a network.

``outside_names.yml`` lists the names that our type hints and docstrings mention, with their
addresses. Before a build starts, an inventory for each library is written beside the doctrees
and given to ``sphinx.ext.intersphinx``.
"""

import zlib
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from sphinx.application import Sphinx
from sphinx.config import Config

LIST = Path(__file__).with_suffix(".yml")


@cache
def content() -> dict[str, Any]:
    """Return the file: projects, and what has no address, with the reason."""
    loaded: dict[str, Any] = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return loaded


def projects() -> dict[str, dict[str, Any]]:
    """Return for each project its base address, and pages of names by role."""
    found: dict[str, dict[str, Any]] = content()["projects"]
    return found


def entries(project: dict[str, Any]) -> dict[str, tuple[str, str]]:
    """Return role and page of each name; where an address has no anchor, that is the name."""
    return {
        name: (role, page if "#" in page else f"{page}#{name}")
        for role, pages in project["names"].items()
        for name, page in pages.items()
    }


@cache
def addresses() -> dict[str, str]:
    """Return the full address of each name, and of the last part of distinct class names."""
    full = {
        name: project["base"] + page
        for project in projects().values()
        for name, (_, page) in entries(project).items()
    }
    short: dict[str, list[str]] = {}
    for name in full:
        short.setdefault(name.rpartition(".")[2], []).append(name)
    distinct = {last: names[0] for last, names in short.items() if len(names) == 1}
    return {last: full[name] for last, name in distinct.items() if last != last.lower()} | full


def address_of(name: str) -> str | None:
    """Return where a name is documented, if the list has it."""
    return addresses().get(name)


def inventory(name: str, project: dict[str, Any]) -> bytes:
    """Write the list's part for one project in Sphinx's format, version 2."""
    lines = [f"{key} py:{role} 1 {page} -" for key, (role, page) in entries(project).items()]
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
    head += "# The remainder of this file is compressed using zlib.\n"
    return head.encode() + zlib.compress("".join(f"{x}\n" for x in sorted(lines)).encode())


def write_inventories(app: Sphinx, config: Config) -> None:
    """Write the files, and point intersphinx to them."""
    folder = Path(app.doctreedir).resolve() / "inventories"
    folder.mkdir(parents=True, exist_ok=True)
    for name, project in projects().items():
        file = folder / f"{name}.inv"
        file.write_bytes(inventory(name, project))
        config.intersphinx_mapping[name] = (project["base"], str(file))
    config.nitpick_ignore += [tuple(entry.split()) for entry in content()["unlinked"]]


def setup(app: Sphinx) -> dict[str, Any]:
    """Write the inventories before intersphinx looks at its settings."""
    app.setup_extension("sphinx.ext.intersphinx")
    app.connect("config-inited", write_inventories, priority=100)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
