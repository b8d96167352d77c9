"""Answers that cost time or money, kept in a file as soon as they are there.

A line is written at once and whole. A run that was stopped in the middle of one leaves half a
line at the end; the next run passes over it and writes on in its place.

Chapter: dpo/preference_data.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import read_json_rows


def kept_rows(
    path: Path, start: bytes, is_own: Callable[[Any], bool], writer: str
) -> list[Any]:
    """Read the rows of an earlier call.

    Args:
        path: A ``.jsonl`` file; it need not exist.
        start: How each row begins, by which half a row is known.
        is_own: Says of a row whether it is one of the writer's; it may raise KeyError or
            TypeError where it is not.
        writer: Who writes the file, for errors.

    Returns:
        The whole rows, in order.

    Raises:
        AssetError: If the file cannot be read.
        ValueError: If its name does not end in .jsonl, or it holds other rows; it is then left
            as it is.

    Chapter: dpo/preference_data.
    """  # noqa: DOC502, DOC503
    if path.suffix != ".jsonl":
        raise ValueError(f"out is {path}: give the name of a .jsonl file")
    if not path.exists() or (path.is_file() and path.stat().st_size == 0):
        return []
    read = read_json_rows(path)
    data = path.read_bytes()
    half = data[data.rfind(b"\n") + 1 :]  # a call that was stopped while it wrote leaves one
    half_line = data.count(b"\n") + 1 if start.startswith(half[: len(start)]) else None
    rows = []
    for row in read:
        if row.line == half_line and row.problem:
            continue
        try:
            own = is_own(row.value)
        except (TypeError, KeyError):
            own = False
        if not own:
            raise ValueError(
                f"{path} holds rows that {writer} did not write, the first in line {row.line}: "
                "give another file"
            )
        if row.line != half_line:
            rows.append(row.value)
    return rows


@contextlib.contextmanager
def appending(path: Path, again: str) -> Iterator[IO[bytes]]:
    """Open a file to append rows, after its last whole line.

    Args:
        path: The file; missing folders are made.
        again: What to call once the fault is mended, for errors.

    Yields:
        The file, which writes each row at once.

    Raises:
        AssetError: If the file cannot be written.

    Chapter: dpo/preference_data.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            file.seek(0)
            data = file.read()
            file.truncate(data.rfind(b"\n") + 1)
            yield file
    except OSError as error:
        raise AssetError(
            f"{path} cannot be written ({error.strerror or error}): what was answered before "
            f"is in it, so make room or mend the path and {again}"
        ) from error
