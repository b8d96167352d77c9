"""A user's own pairs: errors by line, counted drops, splits without leaks, files and back."""

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.data.pairs import (
    OwnPairs,
    holds_pairs,
    load_pairs,
    pairs_digest,
    split_pairs,
    write_pairs,
)


def row(prompt: Any = "Why?", chosen: Any = "So.", rejected: Any = "No idea.", **more: Any):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected, **more}


def write(folder: Path, *rows: Any, name: str = "my.jsonl") -> Path:
    lines = [given if isinstance(given, str) else json.dumps(given) for given in rows]
    file = folder / name
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_pairs_come_with_their_lines(tmp_path: Path):
    file = write(tmp_path, "", row("a"), "", row("b", id=7, note=None))
    loaded = load_pairs(file)
    assert [pair["prompt"][0]["content"] for pair in loaded.rows] == ["a", "b"]
    assert loaded.lines == [2, 4] and loaded.ignored == ("id",) and not loaded.dropped
    assert repr(loaded) == (
        f"{file}: 2 pairs of prompt / chosen / rejected; fields passed over: id"
    )
    packed = tmp_path / "my.jsonl.gz"
    packed.write_bytes(gzip.compress(file.read_bytes()))
    assert load_pairs(packed).sha256 == loaded.sha256 == load_pairs(str(file)).sha256


def test_a_bad_row_is_an_error_with_its_line(tmp_path: Path):
    file = write(tmp_path, row(), row(chosen=""), row("b "), row(rejected=""))
    with pytest.raises(
        ValueError,
        match=r"my.jsonl, line 2: empty answer: in the prompt with 'chosen', message 1 "
        r"\(assistant\) holds no text; 3 bad rows in all \(2 empty answer, 1 white space at "
        r"the prompt's end\): mend them, or drop them with on_bad_row='drop' \(--on-bad-row",
    ):
        load_pairs(file)


def test_dropped_rows_are_counted_by_reason(tmp_path: Path):
    bad = [row(chosen=""), row(chosen="No idea."), row("a "), row("x" * 50_000), "{", "[1]",
           row(chosen="<|im_end|>"), {"prompt": "a", "chosen": None, "rejected": "c"},
           '{"prompt": "a", "chosen": NaN, "rejected": "c"}']  # fmt: skip
    loaded = load_pairs(write(tmp_path, row(), *bad, row("b")), on_bad_row="drop")
    assert loaded.lines == [1, 11] and loaded.dropped.total() == len(bad)
    assert loaded.dropped == {
        "empty answer": 1, "chosen = rejected": 1, "white space at the prompt's end": 1,
        "too long": 1, "broken JSON": 2, "not a row": 1, "special token": 1,
        "missing chosen": 1,
    }  # fmt: skip
    assert loaded.first_dropped["chosen = rejected"].startswith("line 3: chosen = rejected: ")
    assert "dropped 9 (1 empty answer, " in repr(loaded)


def test_a_file_without_a_pair_is_an_error(tmp_path: Path):
    file = write(tmp_path, row(chosen=""))
    with pytest.raises(AssetError, match=r"gives no pair \(line 1: empty answer"):
        load_pairs(file, on_bad_row="drop")
    with pytest.raises(AssetError, match="does not exist"):
        load_pairs(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="on_bad_row is 'skip': give 'error' or 'drop'"):
        load_pairs(file, on_bad_row="skip")  # type: ignore[arg-type]


def test_two_formats_are_an_error(tmp_path: Path):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    other = {"chosen": talk, "rejected": [talk[0], {"role": "assistant", "content": "c"}]}
    with pytest.raises(
        ValueError, match=r"mixes formats: prompt / chosen / rejected \(line 1\), chosen / re"
    ):
        load_pairs(write(tmp_path, row(), other))
    assert load_pairs(write(tmp_path, other)).format.startswith("chosen / rejected with")


def test_an_answer_that_begins_the_other_is_noted(tmp_path: Path):
    loaded = load_pairs(write(tmp_path, row(), row("b", "So.", "So. Maybe.")))
    assert loaded.prefixes == [2] and len(loaded.rows) == 2
    assert repr(loaded).endswith("; in 1 one answer begins the other")


def test_pairs_can_be_written_and_read(tmp_path: Path):
    loaded = load_pairs(write(tmp_path, row("é ☃"), row("b", "x\u2028y", "{}")))
    write_pairs(loaded.rows, tmp_path / "out.jsonl")
    again = load_pairs(tmp_path / "out.jsonl")
    assert again.rows == loaded.rows and again.sha256 == loaded.sha256
    assert pairs_digest(loaded.rows[::-1]) != loaded.sha256 == pairs_digest(loaded.rows)
    with pytest.raises(ValueError, match="0 pairs for"):
        write_pairs([], tmp_path / "empty.jsonl")
    with pytest.raises(ValueError, match=r"a \.jsonl file"):
        write_pairs(loaded.rows, tmp_path / "out.json")


def test_the_library_reads_what_is_written(tmp_path: Path):
    datasets = pytest.importorskip("datasets")
    loaded = load_pairs(write(tmp_path, row(), row("b")))
    write_pairs(loaded.rows, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    table = datasets.Dataset.from_list([json.loads(line) for line in lines])
    assert sorted(table.column_names) == ["chosen", "prompt", "rejected"]
    assert table.to_list() == loaded.rows


def many(n: int, prompts: int) -> OwnPairs:
    rows: list[Any] = [
        {
            "prompt": [{"role": "user", "content": f"question {i % prompts}"}],
            "chosen": [{"role": "assistant", "content": f"yes {i}"}],
            "rejected": [{"role": "assistant", "content": f"no {i}"}],
        }
        for i in range(n)
    ]
    return OwnPairs(
        rows, [1] * n, "prompt / chosen / rejected", Counter(), {}, [], pairs_digest(rows), "f"
    )


@pytest.mark.parametrize("seed", range(20))
def test_no_prompt_lies_on_both_sides(seed: int):
    pairs = many(60, 20 + seed % 5)
    train, held = split_pairs(pairs, 12, seed)
    asked = [{pair["prompt"][0]["content"] for pair in part.rows} for part in (train, held)]
    assert asked[0].isdisjoint(asked[1]) and 0 < len(held.rows) <= 12
    answers = [answer_text(pair, "chosen") for part in (train, held) for pair in part.rows]
    assert sorted(answers) == sorted(answer_text(pair, "chosen") for pair in pairs.rows)
    assert split_pairs(pairs, 12, seed) == (train, held)
    assert held.source == "f, held out" and held.sha256 == pairs_digest(held.rows)


def test_a_file_of_pairs_is_known_by_its_first_row(tmp_path: Path):
    assert holds_pairs(write(tmp_path, "{", row()))
    assert holds_pairs(str(write(tmp_path, {"chosen": []})))
    assert not holds_pairs(write(tmp_path, {"prompt": "a", "completion": "b"}, row()))
    assert not holds_pairs(write(tmp_path, "[1]"))
    assert not holds_pairs("owner/name")
