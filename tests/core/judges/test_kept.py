"""Rows that are kept: half of one is passed over, and files of others are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.judges.kept import appending, kept_rows

START = b'{"request": "'


def is_own(row) -> bool:
    return isinstance(row["request"], str)


def read(file: Path) -> list:
    return kept_rows(file, START, is_own, "the test")


def write(file: Path, *keys: str) -> None:
    with appending(file, "ask again") as out:
        for key in keys:
            out.write(json.dumps({"request": key}).encode() + b"\n")


def test_rows_come_back_in_order(tmp_path: Path):
    file = tmp_path / "new" / "rows.jsonl"
    assert read(file) == []
    write(file, "a", "b")
    write(file, "é\u2028")
    assert [row["request"] for row in read(file)] == ["a", "b", "é\u2028"]


def test_wherever_it_was_cut_the_whole_rows_are_read(tmp_path: Path):
    file = tmp_path / "rows.jsonl"
    write(file, "a", "b")
    data = file.read_bytes()
    for end in range(len(data) + 1):
        file.write_bytes(data[:end])
        found = [row["request"] for row in read(file)]
        assert found == ["a", "b"][: data[:end].count(b"\n")]
        write(file, "c")
        assert [row["request"] for row in read(file)] == [*found, "c"]


@pytest.mark.parametrize("row", ["x", "3", '{"other": 1}', '{"request": 1}', "[]", '"request"'])
@pytest.mark.parametrize("end", ["", "\n"])
def test_other_rows_are_named(tmp_path: Path, row: str, end: str):
    file = tmp_path / "rows.jsonl"
    file.write_text('{"request": "a"}\n' + row + end)
    with pytest.raises(ValueError, match="the test did not write, the first in line 2: give"):
        read(file)


def test_files_that_are_none(tmp_path: Path):
    with pytest.raises(ValueError, match=r"give the name of a \.jsonl file"):
        read(tmp_path / "rows.txt")
    (tmp_path / "x.jsonl").mkdir()
    with pytest.raises(AssetError, match="is a folder"):
        read(tmp_path / "x.jsonl")
    (tmp_path / "file").write_text("")
    with pytest.raises(AssetError, match=r"make room or mend the path and ask again$"):
        write(tmp_path / "file" / "x.jsonl", "a")
