"""The archive of the site: complete, repeatable, and open to a reader without a server."""

import os
import zipfile
from pathlib import Path

import pytest

from posttrain import __version__
from tools.site.offline_zip import archive_name, files_of, main, pack

FILES = {
    "index.html": "first",
    "book/index.html": "page",
    "_static/a.css": "style",
    "searchindex.js": "Search.setIndex({})",
    "404.html": "no page",
    "robots.txt": "robots",
    "sitemap.xml": "<urlset/>",
    "_images/cards/book-index.png": "card",
    "_images/plot.svg": "<svg/>",
}
KEPT = ["_images/plot.svg", "_static/a.css", "book/index.html", "index.html", "searchindex.js"]


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / "html" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "html"


def test_what_only_servers_and_crawlers_read_is_left_out(site: Path) -> None:
    assert [path.relative_to(site).as_posix() for path in files_of(site)] == KEPT


def test_all_files_lie_in_one_folder_and_keep_their_content(site: Path, tmp_path: Path) -> None:
    assert pack(site, tmp_path / "a-book-1.0.zip") == len(KEPT)
    with zipfile.ZipFile(tmp_path / "a-book-1.0.zip") as packed:
        assert packed.testzip() is None
        assert packed.namelist() == [f"a-book-1.0/{name}" for name in KEPT]
        assert packed.read("a-book-1.0/book/index.html") == b"page"
        packed.extractall(tmp_path / "unpacked")
    assert (tmp_path / "unpacked/a-book-1.0/index.html").read_text() == "first"


def test_the_same_site_gives_the_same_archive(site: Path, tmp_path: Path) -> None:
    pack(site, tmp_path / "one" / "book.zip")
    for path in site.rglob("*.html"):
        os.utime(path, (0, 10**9))
        path.chmod(0o600)
    pack(site, tmp_path / "two" / "book.zip")
    one, two = (tmp_path / name / "book.zip" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()


def test_the_archive_is_named_after_repository_and_version() -> None:
    assert archive_name("https://example.org/owner/name") == f"name-{__version__}.zip"


def test_without_a_site_there_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.zip"
    assert main(["--site", str(tmp_path), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"{tmp_path} holds no site: run make book first\n"
    assert not out.exists()


def test_the_command_says_where_the_archive_is(
    site: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.zip"
    assert main(["--site", str(site), "--out", str(out)]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: {len(KEPT)} files, 0.0 MiB")
