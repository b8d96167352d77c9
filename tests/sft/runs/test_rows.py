"""posttrain.sft.runs.rows: the rows of a run, and what is held out."""

import json
from pathlib import Path

import pytest

from posttrain.sft.presets import CPU
from posttrain.sft.runs.rows import load_run_rows


def write(path: Path, pairs: list[tuple[str, str]]) -> str:
    rows = [{"prompt": question, "completion": answer} for question, answer in pairs]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_tenth_is_held_out(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [(f"{n}?", "Yes") for n in range(40)])
    found = load_run_rows(CPU, file, None, "error", seed=0)
    assert (len(found.train), len(found.validation), found.leaks) == (36, 4, 0)
    assert "of the same file held out" in "\n".join(found.lines())
    same, other = (load_run_rows(CPU, file, None, "error", seed=seed) for seed in (0, 1))
    assert same == found and other.validation != found.validation
    assert found.train_sha256 != found.validation_sha256
    facts = found.facts()
    assert facts["train_rows"] == 36 and facts["sha256"] == found.train_sha256


def test_one_question_is_not_split(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [("Hi", "Ho"), ("Hi", "Hey")])
    found = load_run_rows(CPU, file, None, "error", seed=0)
    assert len(found.train) == 2 and not found.validation


def test_leaks_between_files_are_said(tmp_path: Path) -> None:
    train = write(tmp_path / "a.jsonl", [("Two and two?", "4"), ("Three and four?", "7")])
    val = write(tmp_path / "b.jsonl", [("two and TWO?", "4"), ("Nine and one?", "10")])
    found = load_run_rows(CPU, train, val, "error", seed=0)
    assert found.leaks == 1 and "1 held-out rows ask what" in "\n".join(found.lines())


def test_the_presets_own_rows() -> None:
    found = load_run_rows(CPU, None, None, "error", seed=0)
    assert len(found.train) == 600 and found.source == "reckoning" and found.validation
    with pytest.raises(ValueError, match="--val without --data"):
        load_run_rows(CPU, None, "x.jsonl", "error", seed=0)


def test_dropped_rows_are_counted(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [(f"{n}?", "Yes" if n else " ") for n in range(20)])
    with pytest.raises(ValueError, match="line 1"):
        load_run_rows(CPU, file, None, "error", seed=0)
    found = load_run_rows(CPU, file, None, "drop", seed=0)
    assert sum(found.dropped.values()) == 1
    assert any(line.startswith("dropped:") for line in found.lines())
