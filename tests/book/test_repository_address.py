"""The repository's address stands in exactly one file."""

import re
import subprocess
from pathlib import Path

import pytest

from book._ext.site.address import owner_and_name, repository_url, site_url

ROOT = Path(__file__).parents[2]


def project_files() -> list[Path]:
    """The files that git tracks or would track."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listing.returncode or not (ROOT / ".git").exists():
        pytest.skip("not a git repository")
    names = [name for name in listing.stdout.split("\0") if name]
    return [path for name in names if (path := ROOT / name).is_file()]


def places(words: list[str], files: list[Path]) -> dict[str, int]:
    """How often a file holds one of the words, whatever their case."""
    pattern = re.compile("|".join(map(re.escape, words)), re.IGNORECASE)
    found = {}
    for path in files:
        text = path.read_bytes().decode("utf-8", errors="ignore")
        if count := len(pattern.findall(text)):
            found[path.name] = count
    return found


def test_the_address_is_typed_once() -> None:
    repository = repository_url(ROOT / "_config.yml")
    site = site_url(repository).split("://")[1].rstrip("/")
    assert places([owner_and_name(repository), site], project_files()) == {"_config.yml": 1}


def test_an_address_elsewhere_is_found(tmp_path: Path) -> None:
    for name, text in {"a.md": "see owner/NAME and owner/name", "b.md": "owner name"}.items():
        (tmp_path / name).write_text(text)
    assert places(["owner/name"], sorted(tmp_path.iterdir())) == {"a.md": 2}


def test_a_fork_is_told_what_to_change() -> None:
    """README names the file and the key."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (sentence,) = re.findall(r"[^.]*\bfork\b(?:[^.]|\.(?=\w))*\.", " ".join(readme.split()))
    assert "`_config.yml`" in sentence and "`repository`" in sentence
