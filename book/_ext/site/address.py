"""Sphinx extension: where the repository and the site are.

The repository's address stands in ``_config.yml``, under ``repository.url``, and nowhere else.
The site's address follows from it by the rule of GitHub Pages. Extensions and tools read both
here.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.config import Config

REPOSITORY = re.compile(
    r"https://github\.com/(?P<owner>[A-Za-z0-9][A-Za-z0-9-]*)/(?P<name>[\w.-]+?)(?:\.git)?/?"
)


def repository_url(config_path: Path) -> str:
    """Read the repository's address from the book's configuration.

    Args:
        config_path: The book's ``_config.yml``.

    Returns:
        The address, without a slash at its end.

    Raises:
        ValueError: If the file holds no such address.
    """
    config = yaml.safe_load(Path(config_path).read_text(encoding="utf-8"))
    repository = config.get("repository") if isinstance(config, dict) else None
    url = repository.get("url") if isinstance(repository, dict) else None
    if not isinstance(url, str) or not url.strip():
        raise ValueError(
            f"{config_path} holds no repository address: write it there under repository: url:"
        )
    return url.strip().removesuffix("/").removesuffix(".git")


def owner_and_name(repository_url: str) -> str:
    """Return what services call a repository.

    Args:
        repository_url: Such as ``https://github.com/owner/name``.

    Returns:
        Such as ``owner/name``.

    Raises:
        ValueError: If the address is not that of a repository on GitHub.
    """
    match = REPOSITORY.fullmatch(repository_url)
    if match is None:
        raise ValueError(
            f"{repository_url!r} is not the address of a repository on GitHub: write "
            "https://github.com/<owner>/<name> in _config.yml"
        )
    return f"{match['owner']}/{match['name']}"


def site_url(repository_url: str) -> str:
    """Return where GitHub Pages shows the site of a repository.

    Args:
        repository_url: Such as ``https://github.com/owner/name``.

    Returns:
        ``https://owner.github.io/name/``, or ``https://owner.github.io/`` for the repository
        that has this name.

    Raises:
        ValueError: If the address is not that of a repository on GitHub.
    """
    try:
        owner, name = owner_and_name(repository_url).split("/")
    except ValueError as error:
        own = "or give the site's own address there under html: baseurl:"
        raise ValueError(f"{error}, {own}") from error
    host = f"{owner.lower()}.github.io"
    return f"https://{host}/" if name.lower() == host else f"https://{host}/{name}/"


def set_addresses(app: "Sphinx", config: "Config") -> None:
    """Tell Sphinx and the templates where the site is.

    Pages then name their canonical address. An address in ``html: baseurl:`` goes before the
    one that follows from the repository.
    """
    from sphinx.errors import ConfigError

    try:
        repository = repository_url(Path(app.srcdir) / "_config.yml")
        site = config.html_baseurl or site_url(repository)
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    config.html_baseurl = site.rstrip("/") + "/"
    config.html_context["site_url"] = config.html_baseurl
    config.html_context["repository_url"] = repository


def setup(app: "Sphinx") -> dict[str, Any]:
    """Set the addresses before other extensions look at them."""
    app.connect("config-inited", set_addresses, priority=300)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
