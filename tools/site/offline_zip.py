"""Pack the built site so that it can be read without a server: ``make offline``.

Unpack it anywhere and open ``index.html``. The archive of one site is the same, byte for byte,
wherever and whenever it is made.
"""

import argparse
import sys
import zipfile
from pathlib import Path

from book._ext.site.address import repository_url
from posttrain import __version__
from posttrain.core.storage.files import atomic_path

ROOT = Path(__file__).resolve().parents[2]
FOR_SERVERS = {"404.html", "feed.xml", "llms.txt", "robots.txt", "sitemap.xml", ".buildinfo"}
CARDS = "_images/cards/"
DATE = (1980, 1, 1, 0, 0, 0)  # the first that a zip file can hold
READABLE = 0o100644 << 16


def files_of(site: Path) -> list[Path]:
    """Return what a reader without a server needs, in a fixed order.

    Args:
        site: The built site.

    Returns:
        Its files, without those that only servers, crawlers and chats look at.

    Raises:
        FileNotFoundError: If there is no site.
    """
    if not (site / "index.html").is_file():
        raise FileNotFoundError(f"{site} holds no site: run make book first")
    names = (path.relative_to(site).as_posix() for path in site.rglob("*") if path.is_file())
    wanted = (n for n in names if n not in FOR_SERVERS and not n.startswith(CARDS))
    return [site / name for name in sorted(wanted)]


def pack(site: Path, archive: Path) -> int:
    """Write the archive; all files lie in one folder of its name.

    Args:
        site: The built site.
        archive: The zip file to write or replace.

    Returns:
        How many files it holds.
    """
    files = files_of(site)
    with atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w") as packed:
        for path in files:
            name = f"{archive.stem}/{path.relative_to(site).as_posix()}"
            info = zipfile.ZipInfo(name, date_time=DATE)
            info.external_attr = READABLE
            info.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(info, path.read_bytes(), compresslevel=9)
    return len(files)


def archive_name(repository: str) -> str:
    """Return the archive's name: that of the repository, with the version."""
    return f"{repository.rsplit('/', 1)[-1]}-{__version__}.zip"


def main(arguments: list[str] | None = None) -> int:
    """Pack the site and say where the archive is.

    Args:
        arguments: Of the command line; None takes the program's own.

    Returns:
        0, or 2 where there is no site.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--site", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument("--out", type=Path, help="the zip file; by default in _build/offline")
    options = parser.parse_args(arguments)
    name = archive_name(repository_url(ROOT / "_config.yml"))
    archive = options.out or ROOT / "_build" / "offline" / name
    try:
        count = pack(options.site, archive)
    except FileNotFoundError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{archive}: {count} files, {archive.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
