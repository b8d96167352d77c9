"""The launch table is read in one place, and what is wrong with it is said in a sentence."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sphinx")
from book._ext.chapters.launch_table import (
    TABLE,
    LaunchTableError,
    checked,
    entry_of,
    load,
    read_launch_table,
    repository_of,
)

GOOD = """\
binder: {memory: 2.0, server: 0.25}
pages:
  book/a/small: {memory: 1.75, seconds: 3, binder: true}
  book/a/large: {memory: 9.0, seconds: 4, binder: false}
"""


def app_in(folder: Path, **options: str) -> Any:
    config = SimpleNamespace(html_theme_options=options)
    return SimpleNamespace(srcdir=folder, env=SimpleNamespace(), config=config)


def write(folder: Path, text: str) -> Path:
    (folder / TABLE).parent.mkdir()
    (folder / TABLE).write_text(text)
    return folder


def test_a_build_reads_its_table_once(tmp_path: Path) -> None:
    app = app_in(write(tmp_path, GOOD))
    load(app)
    (tmp_path / TABLE).unlink()
    assert entry_of(app, "book/a/small") == {"memory": 1.75, "seconds": 3, "binder": True}
    assert entry_of(app, "book/a/unknown") == {}


@pytest.mark.parametrize("text", ["", "- x\n", "install: {}\n", "pages: [x]\n"])
def test_a_table_without_pages_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(LaunchTableError, match=r"launch.yml names no pages: list them under"):
        read_launch_table(write(tmp_path, text))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(LaunchTableError, match=r"^book/launch.yml is missing: it says what"):
        read_launch_table(tmp_path)


def test_a_page_too_large_for_binder_is_refused(tmp_path: Path) -> None:
    write(tmp_path, GOOD.replace("memory: 1.75", "memory: 1.8"))
    table = read_launch_table(tmp_path)
    with pytest.raises(LaunchTableError, match=r"small is marked .* 1.8 GiB of the 1.75 that"):
        checked(table)
    with pytest.raises(LaunchTableError, match="write binder: false"):
        load(app_in(tmp_path))


def test_the_repository_is_that_of_the_theme(tmp_path: Path) -> None:
    app = app_in(tmp_path, repository_url="https://github.com/owner/name/")
    assert (repository_of(app).name, repository_of(app).branch) == ("owner/name", "main")
    app.config.html_theme_options["repository_branch"] = "dev"
    assert repository_of(app).branch == "dev"
