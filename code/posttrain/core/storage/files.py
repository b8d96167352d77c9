"""Files that are either complete or absent: write to a temporary name, then rename.

Chapter: start/how_this_book_works.
"""

import dataclasses
import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from posttrain.core.errors import AssetError

DISK_FULL_TEXTS = (
    "No space left on device",  # safetensors
    "quota exceeded",
    "Not enough free space to write",  # NumPy
    "inline_container.cc",  # torch.save to a path: "unexpected pos 576 vs 534"
)


def sync_to_disk(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk.

    Args:
        path: An existing file or folder. Folders are skipped on Windows, which cannot do it.
    """
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_path(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target` that becomes `target` if the block succeeds.

    The temporary name keeps the suffix of `target`, for writers that look at it. If the block
    raises, the temporary file is removed and `target` stays as it was.

    Args:
        target: The file to write or replace; missing parent folders are made.

    Yields:
        A path that does not exist yet, in the folder of `target`.

    Raises:
        FileNotFoundError: If the block wrote nothing to the path it was given.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{uuid.uuid4().hex[:12]}.tmp{target.suffix}")
    try:
        yield temporary
        if not temporary.exists():
            raise FileNotFoundError(
                f"nothing was written for {target}: write to the path that atomic_path yields"
            )
        sync_to_disk(temporary)
        temporary.replace(target)
        sync_to_disk(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text_atomic(path: Path, text: str) -> None:
    """Write UTF-8 text with ``\\n`` line ends: the whole of it, or nothing.

    Args:
        path: The file to write or replace.
        text: Its new content.
    """
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def plain(value: Any) -> Any:
    """Turn what `json` does not know into what it does; made for ``json.dumps(default=...)``.

    Args:
        value: A dataclass instance, a path, a set, or a NumPy or torch scalar.

    Returns:
        A dict, a string, a sorted list, or a Python number.

    Raises:
        TypeError: For anything else.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        return value.item()
    raise TypeError(
        f"{value!r} of type {type(value).__name__} cannot be written as JSON: use numbers, "
        "strings, booleans, None, lists, dicts or dataclasses of these"
    )


def write_json_atomic(path: Path, obj: Any) -> None:
    """Write an object as indented JSON: the whole of it, or nothing.

    Args:
        path: The file to write or replace.
        obj: Anything that `json` or `plain` can write.
    """
    write_text_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False, default=plain) + "\n")


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes.

    Args:
        path: An existing file.

    Returns:
        64 lower-case hexadecimal digits.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_sha256(actual: str, expected: str, what: str, remedy: str) -> None:
    """Refuse data that is not, byte for byte, what the book was computed from.

    Args:
        actual: SHA-256 of what was found.
        expected: SHA-256 pinned in the code.
        what: What was found and where, as the sentence's subject.
        remedy: A sentence that says what to do.

    Raises:
        AssetError: If the two differ.
    """
    if actual != expected:
        raise AssetError(
            f"{what} has SHA-256 {actual[:12]}…, but {expected[:12]}… is expected: it is "
            f"another version or damaged. {remedy}"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Say whether an exception means that the disk, or the user's share of it, is full.

    Some libraries report it only as text, so texts are looked at too.

    Args:
        error: What was raised; its causes are looked at as well.

    Returns:
        True for ENOSPC and EDQUOT in any of these forms.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if any(text in str(error) for text in DISK_FULL_TEXTS):
            return True
        error = error.__cause__ or error.__context__
    return False
