"""The addresses of repository and site, read from one line of the configuration."""

from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("sphinx")
from sphinx.errors import ConfigError

from book._ext.site.address import owner_and_name, repository_url, set_addresses, site_url

ROOT = Path(__file__).parents[3]
ADDRESS = "https://github.com/Some-Owner/a.book"


def config_file(folder: Path, text: str) -> Path:
    path = folder / "_config.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("end", ["", "/", ".git"])
def test_the_repository_is_read_from_the_configuration(tmp_path: Path, end: str) -> None:
    path = config_file(tmp_path, f"title: A book\nrepository:\n  url: {ADDRESS}{end}\n")
    assert repository_url(path) == ADDRESS


@pytest.mark.parametrize(
    "text", ["", "title: A book\n", "repository:\n  branch: main\n", "repository: x\n", "- x\n"]
)
def test_a_missing_address_is_named_with_its_place(tmp_path: Path, text: str) -> None:
    path = config_file(tmp_path, text)
    with pytest.raises(ValueError, match=r"_config\.yml holds no repository address: write it"):
        repository_url(path)


def test_the_site_follows_from_the_repository() -> None:
    assert site_url(ADDRESS) == "https://some-owner.github.io/a.book/"
    assert site_url(ADDRESS + ".git") == "https://some-owner.github.io/a.book/"
    assert site_url("https://github.com/Owner/owner.github.io") == "https://owner.github.io/"


@pytest.mark.parametrize(
    "address",
    [
        "https://example.org/owner/name",
        "https://github.com/owner",
        "owner/name",
        f"{ADDRESS}/x",
    ],
)
def test_another_host_needs_the_sites_own_address(address: str) -> None:
    with pytest.raises(ValueError, match="html: baseurl:"):
        site_url(address)


def test_services_call_a_repository_by_owner_and_name() -> None:
    for end in ("", "/", ".git"):
        assert owner_and_name(ADDRESS + end) == "Some-Owner/a.book"
    with pytest.raises(ValueError, match=r"github.com/<owner>/<name> in _config.yml$"):
        owner_and_name("https://example.org/owner/name")


def settings(folder: Path, baseurl: str = "") -> SimpleNamespace:
    config = SimpleNamespace(html_baseurl=baseurl, html_context={"kept": 1})
    set_addresses(SimpleNamespace(srcdir=folder), config)  # type: ignore[arg-type]
    return config


def test_sphinx_and_the_templates_learn_the_addresses(tmp_path: Path) -> None:
    config_file(tmp_path, f"repository: {{url: {ADDRESS}}}\n")
    config = settings(tmp_path)
    assert config.html_baseurl == "https://some-owner.github.io/a.book/"
    assert config.html_context == {
        "kept": 1,
        "site_url": config.html_baseurl,
        "repository_url": ADDRESS,
    }


def test_the_sites_own_address_goes_first(tmp_path: Path) -> None:
    config_file(tmp_path, "repository: {url: https://example.org/owner/name}\n")
    assert settings(tmp_path, "https://book.org").html_baseurl == "https://book.org/"


@pytest.mark.parametrize("text", ["title: A book\n", "repository: {url: https://x.org/a}\n"])
def test_a_build_without_an_address_stops(tmp_path: Path, text: str) -> None:
    config_file(tmp_path, text)
    with pytest.raises(ConfigError, match=r"_config\.yml"):
        settings(tmp_path)


def test_a_build_without_a_configuration_stops(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"_config\.yml"):
        settings(tmp_path)


def test_this_book_has_an_address() -> None:
    assert site_url(repository_url(ROOT / "_config.yml")).startswith("https://")
