"""The folders of the artifact store: locks, checks, and what killed builds leave behind.

An artifact's folder ``<name>/<key>`` is complete. Beside it may lie ``.<key>.<random>.tmp``,
which is being built or was left by a kill, and ``.<key>.scratch``: checkpoints for the next
try.

Chapter: start/how_this_book_works.
"""

import contextlib
import json
import logging
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from posttrain.core.errors import ArtifactError
from posttrain.core.storage.files import sha256_file, sync_to_disk
from posttrain.core.storage.paths import home

logger = logging.getLogger("posttrain")

RECORD = "record.json"


def store_folder() -> Path:
    """Return the folder of all artifacts.

    Returns:
        A path that need not exist yet.
    """
    return home() / "artifacts"


def label_of(folder: Path) -> str:
    """Return an artifact's name and key as one word.

    Args:
        folder: The artifact's folder.

    Returns:
        ``name/key``.
    """
    return f"{folder.parent.name}/{folder.name}"


def scratch_of(folder: Path) -> Path:
    """Return where a build keeps its checkpoints.

    Args:
        folder: The artifact's folder.

    Returns:
        A path beside it.
    """
    return folder.with_name(f".{folder.name}.scratch")


def temporary_of(folder: Path) -> Path:
    """Return a new name to build an artifact under, or to remove it under.

    Args:
        folder: The artifact's folder.

    Returns:
        A path beside it that does not exist.
    """
    return folder.with_name(f".{folder.name}.{uuid.uuid4().hex[:8]}.tmp")


@contextlib.contextmanager
def locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of one key. The system frees it when its process ends, however it ends.

    Args:
        folder: The artifact's folder; its parent is made.
        wait: Wait for another process rather than fail.

    Yields:
        Nothing, while the lock is held.

    Raises:
        ArtifactError: If the store cannot be written.
        Timeout: If another process holds the lock and `wait` is False.
    """
    path = store_folder() / ".locks" / f"{folder.parent.name}-{folder.name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        lock.acquire(timeout=0)
    except PermissionError as error:
        raise ArtifactError(
            f"cannot write to the store {store_folder()} ({error.strerror}): set "
            "POSTTRAIN_HOME to a folder of yours"
        ) from error
    except Timeout:
        if not wait:
            raise
        logger.warning("another process is building %s: waiting for it", label_of(folder))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Flush a built folder's files to the disk and measure them.

    Args:
        folder: A folder; subfolders are included.

    Returns:
        ``size`` in bytes and ``sha256`` by relative path.

    Raises:
        ValueError: If the build wrote a file by the name of the record.
    """
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync_to_disk(path)
        facts = {"size": path.stat().st_size, "sha256": sha256_file(path)}
        files[path.relative_to(folder).as_posix()] = facts
    if RECORD in files:
        raise ValueError(f"build wrote {RECORD}: that name is the store's own")
    return files


def read_record(folder: Path) -> dict[str, Any]:
    """Read what was recorded when an artifact was built.

    Args:
        folder: The artifact's folder.

    Returns:
        The record. If it cannot be read: only ``name``, ``key`` and ``damage``.
    """
    record: dict[str, Any] = {"name": folder.parent.name, "key": folder.name}
    try:
        return dict(json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        return record | {"damage": f"{RECORD} cannot be read ({type(error).__name__})"}


def find_damage(folder: Path) -> str | None:
    """Check an artifact's files against its record.

    Args:
        folder: The artifact's folder.

    Returns:
        What is wrong in a few words, or None if nothing is.
    """
    record = read_record(folder)
    if "files" not in record:
        return str(record.get("damage", f"{RECORD} names no files"))
    for file, facts in record["files"].items():
        path = folder / file
        if not path.is_file():
            return f"{file} is missing"
        if path.stat().st_size != facts["size"] or sha256_file(path) != facts["sha256"]:
            return f"{file} is not what was stored"
    return None


def discard(folder: Path) -> None:
    """Remove an artifact at once: a kill in between leaves it under a temporary name.

    Args:
        folder: The artifact's folder.
    """
    doomed = temporary_of(folder)
    folder.rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(parent: Path, *, mine: Path | None = None, scratch: bool = False) -> None:
    """Remove what killed builds left behind; what a live process works on stays.

    Args:
        parent: The folder of all artifacts of one name.
        mine: The artifact's folder whose lock the caller holds.
        scratch: Remove checkpoints too that a later try could use.
    """
    for path in [*parent.glob(".*.tmp"), *parent.glob(".*.scratch")]:
        folder = parent / path.name.split(".")[1]
        if path == scratch_of(folder) and not folder.exists() and not scratch:
            continue
        if folder == mine:
            shutil.rmtree(path, ignore_errors=True)
            continue
        with contextlib.suppress(Timeout), locked(folder, wait=False):
            shutil.rmtree(path, ignore_errors=True)
