"""posttrain.sft.data.sources: a file or a set of the hub, and one format in it."""

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.data.hub import MalformedRowError
from posttrain.sft.data.sources import (
    bad_rows_text,
    check_on_bad_row,
    check_one_format,
    read_source,
)


def test_a_file_is_read_by_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"a": 1}\n\n{"a": 2}\n', encoding="utf-8")
    word, rows = read_source(file, "train")
    assert word == "line"
    assert [(row.line, row.value) for row in rows] == [(1, {"a": 1}), (3, {"a": 2})]
    with pytest.raises(AssetError, match=r"split is 'test', but .* is a file"):
        read_source(file, "test")


def test_a_name_is_read_from_the_hub_with_its_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, split: str, revision: str | None) -> list[dict[str, int]]:
        asked.append((name, split, revision))
        if name == "owner/none":
            raise OSError("no network")
        return [{"a": 1}, {"a": 2}]

    hub = SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", hub)
    word, rows = read_source("owner/set@abc", "test")
    assert word == "row" and [row.line for row in rows] == [1, 2]
    read_source("owner/set", "train")
    assert asked == [("owner/set", "test", "abc"), ("owner/set", "train", None)]
    with pytest.raises(AssetError, match="owner/none is no file here, and its split 'train'"):
        read_source("owner/none", "train")


def test_options_and_formats_are_checked() -> None:
    for good in ("error", "drop"):
        check_on_bad_row(good)
    with pytest.raises(ValueError, match="on_bad_row is 'skip': give 'error' or 'drop'"):
        check_on_bad_row("skip")
    check_one_format("x.jsonl", "line", {"messages": [1, 2]})
    with pytest.raises(ValueError) as caught:
        check_one_format("x.jsonl", "line", {"messages": [1, 4], "alpaca": [2]})
    assert "messages (line 1 and 1 more), alpaca (line 2)" in str(caught.value)


def test_the_first_bad_row_is_told_in_full() -> None:
    bad = [
        (3, MalformedRowError("no answer", "it is empty")),
        (9, MalformedRowError("no question", "it is empty")),
    ]
    text = bad_rows_text("x.jsonl", "line", bad, Counter({"no answer": 1, "no question": 1}))
    assert "x.jsonl" in text and "line 3" in text and "no answer" in text
