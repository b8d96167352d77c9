"""Where posttrain keeps what it makes and finds what it is given.

Chapter: start/setup.
"""

import importlib.util
import os
from pathlib import Path

import platformdirs


def _from_environment(variable: str) -> Path | None:
    value = os.environ.get(variable, "").strip()
    return Path(value).expanduser().absolute() if value else None


def home() -> Path:
    """Return the folder of the store: converted assets, artifacts, goals.

    It is ``POSTTRAIN_HOME`` where that is set, else ``posttrain`` in the user's cache folder.
    The folder need not exist yet.

    Returns:
        An absolute path.
    """
    return _from_environment("POSTTRAIN_HOME") or platformdirs.user_cache_path(
        "posttrain", appauthor=False
    )


def data_folder() -> Path | None:
    """Return the reader's own data folder, ``POSTTRAIN_DATA``.

    Returns:
        An absolute path, or None where the variable is not set.
    """
    return _from_environment("POSTTRAIN_DATA")


def goals_folder() -> Path:
    """Return the folder of the goals' rows: ``POSTTRAIN_GOALS``, else ``goals`` in `home`.

    Returns:
        An absolute path; the folder need not exist yet.
    """
    return _from_environment("POSTTRAIN_GOALS") or home() / "goals"


def package_folder(module: str) -> Path | None:
    """Find an installed package without importing it.

    Args:
        module: Its top-level import name.

    Returns:
        The folder that holds its files, or None where it is not installed.
    """
    spec = importlib.util.find_spec(module)
    return Path(next(iter(spec.submodule_search_locations or ()))) if spec else None
