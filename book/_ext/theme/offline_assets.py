"""Sphinx extension: formulas are drawn by a MathJax that travels with the site.

The parts of MathJax that the pages use are copied, with its license, from the installed package
django-static-mathjax into ``_static/mathjax``: 1.6 MB of its 35. Its menu is left out, because
it would make each formula a stop of the Tab key. ``formulas.js`` says when which is drawn.
"""

import shutil
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError

PACKAGE = "django-static-mathjax"
LOADED = ("core", "input/tex", "output/chtml", "a11y/assistive-mml")
# Extensions of TeX are loaded where a formula first needs one, and fonts by their letters.
FOLDERS = ("input/tex/extensions", "output/chtml/fonts")
FILES = ("startup.js", *(f"{part}.js" for part in LOADED))


def mathjax_files() -> Traversable:
    """Return the folder of MathJax in the installed package.

    Raises:
        ExtensionError: If the package is missing.
    """
    try:
        return files("mathjax") / "static" / "mathjax"
    except ModuleNotFoundError as error:
        raise ExtensionError(
            f"formulas need MathJax from the package {PACKAGE}: run make install"
        ) from error


def configure(app: Sphinx, config: Config) -> None:
    """Point pages to the copy."""
    config.mathjax_path = "mathjax/startup.js"
    config.mathjax3_config = {
        **(config.mathjax3_config or {}),
        "loader": {"load": list(LOADED)},
        "startup": {"typeset": False},
        # One size on every machine, whatever its fonts are; and all rules of its style sheet at
        # once, because each later one would make the browser look at the whole page again.
        "chtml": {"matchFontHeight": False, "scale": 1.1, "adaptiveCSS": False},
    }


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    """Put the parts that are used, and the license, into a finished HTML site."""
    if exception is not None or app.builder.format != "html":
        return
    target = Path(app.outdir) / "_static" / "mathjax"
    with as_file(mathjax_files()) as source:
        for name in FILES:
            place = target / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / "es5" / name, place)
        for name in FOLDERS:
            shutil.copytree(source / "es5" / name, target / name, dirs_exist_ok=True)
        shutil.copyfile(source / "LICENSE", target / "LICENSE")


def setup(app: Sphinx) -> dict[str, Any]:
    """Use the installed MathJax."""
    app.connect("config-inited", configure)
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
