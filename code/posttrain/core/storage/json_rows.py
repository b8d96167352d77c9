"""Rows out of a file of JSON, in the forms that such files really have.

Chapter: sft/your_model.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.core.errors import AssetError

CONTAINERS = ("data", "rows", "examples", "train")
"""Keys under which one JSON object may hold the rows."""

_BOM = "\ufeff"
_SPACE = re.compile(rf"[ \t\n{_BOM}]*")  # files that were joined have a BOM between rows too
_ENCODINGS = (  # by byte order mark, or by where an ASCII text has zeros; the longer first
    ("UTF-32", re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff|[\t-~]\0\0\0|\0\0\0[\t-~]")),
    ("UTF-16", re.compile(rb"\xff\xfe|\xfe\xff|[\t-~]\0[\t-~]\0|\0[\t-~]\0[\t-~]")),
)
_BINARY = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"PK\x03\x04": "a zip archive",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"%PDF": "a PDF",
}
_OTHER_SUFFIXES = (".parquet", ".arrow", ".csv", ".tsv", ".xls", ".xlsx", ".ods")


@dataclass(frozen=True)
class JsonRow:
    """One row of a file.

    Attributes:
        line: Line of the file on which the row begins, from 1; blank lines count.
        value: What JSON says, of any type; None where it says nothing.
        problem: Why the row could not be read, as a sentence with its line; None where it was.
    """

    line: int
    value: Any
    problem: str | None = None


def read_json_rows(path: str | Path) -> list[JsonRow]:
    """Read a file's rows: JSON Lines, one list, an object with a list, or objects in a row.

    A byte order mark, ``\\r\\n``, blank lines and gzip (seen by content) change nothing. An
    object may stand on one line or on many. A list may lie under one of `CONTAINERS`. What a
    reader of JSON Lines would pass on or lose becomes a row with a problem: a broken line, NaN
    and Infinity, a key that stands twice.

    Args:
        path: The file, in UTF-8.

    Returns:
        The rows in order, at least one.

    Raises:
        AssetError: If there is no such file, it cannot be read, holds no rows, is binary, in
            another encoding or another format, or is one list that is no JSON.

    Chapter: sft/your_model.
    """
    path = Path(path)
    text = _text(path)
    start = _skip(text, 0)
    document = _Document(path, text)
    read = document.listed if text.startswith("[", start) else document.contained
    rows = read(start)
    if rows is None:
        rows = document.values(start)
    if not rows:
        raise AssetError(f"{path} holds no rows: give a file with one JSON object per line")
    return rows


# --- from bytes to text ---


def _text(path: Path) -> str:
    """Read a file as text with \\n alone at the ends of lines."""
    data = _bytes(path)
    for magic, what in _BINARY.items():
        if data.startswith(magic):
            raise AssetError(f"{path} is {what}: unpack or convert it to JSON Lines")
    for name, pattern in _ENCODINGS:
        if pattern.match(data):
            raise AssetError(
                f"{path} is in {name}: save it as UTF-8 (iconv -f {name} -t UTF-8 does it)"
            )
    if (zero := data.find(b"\0")) >= 0:
        raise AssetError(
            f"{path} holds a zero byte in line {_line_of(data, zero)}: it is binary or "
            "damaged, so give a text file with one JSON object per line"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise AssetError(
            f"{path} holds the byte 0x{data[error.start]:02X} in line "
            f"{_line_of(data, error.start)}, which is no UTF-8: save the file as UTF-8 (iconv "
            "-f LATIN1 -t UTF-8 does it, if it is in Latin-1)"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")  # in strings JSON allows neither


def _bytes(path: Path) -> bytes:
    if path.is_dir():
        raise AssetError(f"{path} is a folder: name the file in it")
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise AssetError(f"{path} does not exist: look at the name and the folder") from None
    except OSError as error:
        raise AssetError(f"{path} cannot be read ({error.strerror}): look at it") from error
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    if suffixes and suffixes[-1] in _OTHER_SUFFIXES:
        raise AssetError(
            f"{path} is a {suffixes[-1]} file: convert it to JSON Lines, for example with "
            "pandas' to_json(orient='records', lines=True)"
        )
    if data.startswith(b"\x1f\x8b"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise AssetError(
                f"{path} is compressed with gzip and damaged ({error}): copy it again"
            ) from error
    return data


def _line_of(data: bytes, position: int) -> int:
    before = data[:position].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return before.count(b"\n") + 1


# --- from text to rows ---


class _Decoder(json.JSONDecoder):
    """A strict decoder: it notes what JSON has no word for, and goes on."""

    def __init__(self) -> None:
        self.fault: str | None = None
        super().__init__(parse_constant=self._constant, object_pairs_hook=self._object)

    def read(self, text: str, start: int) -> tuple[Any, int, str | None]:
        """Return a value, where it ends, and what is wrong with it."""
        self.fault = None
        try:
            value, end = self.raw_decode(text, start)
        except json.JSONDecodeError:
            raise
        except RecursionError:
            raise json.JSONDecodeError("Nested too deeply", text, start) from None
        except ValueError as error:  # a whole number of thousands of digits
            raise json.JSONDecodeError(str(error), text, start) from None
        return value, end, self.fault

    def _constant(self, name: str) -> None:
        self.fault = self.fault or f"{name} is no number in JSON"

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self.fault = self.fault or f"the key {twice!r} stands twice in one object"
        return found


class _Document:
    """The text of a file, and the ways to find rows in it."""

    def __init__(self, path: Path, text: str) -> None:
        self._path, self._text = path, text
        self._decoder = _Decoder()
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def listed(self, start: int) -> list[JsonRow] | None:
        """Read the list that begins at a position; None if it is not all of the file."""
        try:
            _, end, _ = self._decoder.read(self._text, start)
        except json.JSONDecodeError as error:
            raise AssetError(
                f"{self._path} begins with '[', but is no JSON list ({_reason(error)} in line "
                f"{error.lineno}, column {error.colno}): mend it, or write one object per line"
            ) from None
        return list(self._elements(start)) if self._is_end(end) else None

    def contained(self, start: int) -> list[JsonRow] | None:
        """Read the list in the object that begins at a position; None if there is none."""
        try:
            value, end, _ = self._decoder.read(self._text, start)
        except json.JSONDecodeError:
            return None
        if not self._is_end(end) or not isinstance(value, dict):
            return None
        found = [key for key in CONTAINERS if isinstance(value.get(key), list)]
        if not found:
            return None
        others = [key for key, held in value.items() if _has_rows(held) and key != found[0]]
        if others := list(dict.fromkeys([*found[1:], *others])):
            names = ", ".join(map(repr, [found[0], *others]))
            raise AssetError(
                f"{self._path} is one object with several lists ({names}): write each to a "
                "file of its own"
            )
        return list(self._elements(self._member(start, found[0])))

    def values(self, start: int) -> list[JsonRow]:
        """Read values that follow each other, each on a line or on many."""
        rows = []
        while not self._is_end(start):
            row, start = self._value(_skip(self._text, start))
            rows.append(row)
        return rows

    def _value(self, start: int) -> tuple[JsonRow, int]:
        """Read one value; return its row, and where to read on."""
        line = self._line(start)
        text = self._text[start : self._line_end(line)]
        try:
            value, length, fault = self._decoder.read(text, 0)
            end = start + length
        except json.JSONDecodeError as error:
            if error.pos < len(text.rstrip()):  # else the value goes on in the next line
                column = start - self._line_starts[line - 1] + error.colno
                return _no_json(line, error, f"column {column}"), self._line_end(line)
            try:
                value, end, fault = self._decoder.read(self._text, start)
            except json.JSONDecodeError as error:
                place = f"line {error.lineno}, column {error.colno}"
                return _no_json(line, error, place), self._next_row(start, line)
        last = self._line_end(self._line(end))
        if rest := self._text[end:last].strip():
            if rest[0] not in "{[":
                problem = f"{rest[:20]!r} follows the value, where the line should end"
                return JsonRow(line, None, f"line {line} is no JSON: {problem}"), last
        return _row(line, value, fault), end

    def _elements(self, start: int) -> Iterator[JsonRow]:
        """Read the elements of a list that is known to be JSON."""
        at = _skip(self._text, start + 1)
        while self._text[at] != "]":
            value, end, fault = self._decoder.read(self._text, at)
            yield _row(self._line(at), value, fault)
            at = _skip(self._text, end)
            if self._text[at] == ",":
                at = _skip(self._text, at + 1)

    def _member(self, start: int, wanted: str) -> int:
        """Say where the value of a key begins, in an object that is known to be JSON."""
        at = start
        while True:
            at = _skip(self._text, at + 1)  # after the brace, or the comma
            key, end, _ = self._decoder.read(self._text, at)
            at = _skip(self._text, _skip(self._text, end) + 1)  # after the colon
            if key == wanted:
                return at
            _, end, _ = self._decoder.read(self._text, at)
            at = _skip(self._text, end)

    def _next_row(self, start: int, line: int) -> int:
        """After a broken value of many lines, find the next one that is indented no deeper."""
        indent = start - self._line_starts[line - 1]
        for begin in self._line_starts[line:]:
            at = _skip(self._text, begin)
            if self._text[at : at + 1] in ("{", "[") and at - begin <= indent:
                return at
        return len(self._text)

    def _is_end(self, position: int) -> bool:
        return _skip(self._text, position) == len(self._text)

    def _line(self, position: int) -> int:
        return bisect_right(self._line_starts, position)

    def _line_end(self, line: int) -> int:
        """Return where a line ends, before the line break."""
        return self._line_starts[line] - 1 if line < len(self._line_starts) else len(self._text)


def _skip(text: str, position: int) -> int:
    found = _SPACE.match(text, position)
    return found.end() if found else position


def _row(line: int, value: Any, fault: str | None) -> JsonRow:
    if fault is None:
        return JsonRow(line, value)
    return JsonRow(line, None, f"line {line} cannot be taken: {fault}")


def _no_json(line: int, error: json.JSONDecodeError, place: str) -> JsonRow:
    return JsonRow(line, None, f"line {line} is no JSON: {_reason(error)} at {place}")


def _reason(error: json.JSONDecodeError) -> str:
    return error.msg.removesuffix(" at")  # of "Invalid control character at"


def _has_rows(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(element, dict) for element in value)
