"""Records of rebuilds: what they say, what is stale, what is malformed."""

import json
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.machine import INSTRUCTION_SETS
from posttrain.core.robustness import (
    Held,
    RobustnessRecord,
    environment_in_force,
    held_text,
    key_of_page,
    read_record,
    read_robustness,
    robustness_file,
    stale,
)


def run_of(errors: tuple[str, ...] = (), **passed: bool) -> dict[str, Any]:
    rows = [
        {"id": f"sft.{name}", "kind": "goal", "value": 1.0, "passed": ok}
        for name, ok in passed.items()
    ]
    return {"date": "2026-01-01", "seconds": 1.5, "machine": {}, "rows": rows,
            "errors": list(errors)}  # fmt: skip


def record_of(**runs: dict[str, Any]) -> RobustnessRecord:
    return RobustnessRecord("sft/lora", "key", runs)


def write(folder: Path, chapter: str, content: Any) -> Path:
    file = robustness_file(folder, chapter)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


GOOD = {"chapter": "sft/lora", "page_key": "key", "runs": {"native": run_of(parity=True)}}


def test_a_summary_counts_in_how_many_rebuilds_each_held():
    record = record_of(native=run_of(a=True, b=True), avx2=run_of(a=True, b=False))
    found = record.summary()
    assert found["sft.a"] == Held("sft.a", "goal", 2, 2)
    assert found["sft.b"] == Held("sft.b", "goal", 1, 2, ("avx2",))


def test_what_a_rebuild_did_not_reach_did_not_hold_there():
    record = record_of(native=run_of(a=True), avx2=run_of(("cell 3: ValueError: no",)))
    assert record.summary()["sft.a"] == Held("sft.a", "goal", 1, 2, ("avx2",))


def test_kinds_and_missed_aims_are_kept():
    run = run_of(a=False)
    run["rows"][0] |= {"kind": "claim", "missed_aim": True}
    held = record_of(native=run).summary()["sft.a"]
    assert held.kind == "claim" and held.missed_aim and held.held == 0


def test_records_are_read_by_chapter(tmp_path: Path):
    assert read_robustness(tmp_path / "missing") == ({}, [])
    write(tmp_path, "sft/lora", GOOD)
    records, faults = read_robustness(tmp_path)
    assert faults == [] and records == {"sft/lora": RobustnessRecord(**GOOD)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not JSON: remove it and run make robustness"),
        ([], "holds no runs: remove it"),
        ({**GOOD, "chapter": "sft/qlora"}, "is the record of 'sft/qlora': remove it"),
        ({**GOOD, "page_key": None}, "does not say which page was run"),
        ({**GOOD, "runs": {"native": []}}, "the run 'native' has no valid 'rows'"),
        ({**GOOD, "runs": {"native": {**run_of(), "seconds": "1"}}}, "no valid 'seconds'"),
        ({**GOOD, "runs": {"native": {**run_of(), "rows": [{"id": "a"}]}}}, "no valid 'kind'"),
    ],
)
def test_a_malformed_file_gets_one_sentence_and_hides_no_other(
    content: Any, said: str, tmp_path: Path
):
    broken = write(tmp_path, "sft/lora", content)
    write(tmp_path, "sft/other", {**GOOD, "chapter": "sft/other"})
    records, faults = read_robustness(tmp_path)
    assert list(records) == ["sft/other"]
    assert len(faults) == 1 and said in faults[0] and str(broken) in faults[0]
    with pytest.raises(ValueError, match=said.split(":")[0].replace("(", "")):
        read_record(broken, "sft/lora")


def test_a_record_is_stale_when_its_page_or_the_lock_has_changed(tmp_path: Path):
    page, lock = tmp_path / "book/sft/lora.md", tmp_path / "requirements.lock"
    page.parent.mkdir(parents=True)
    lock.write_text("torch==1\n")
    page.write_text("```{code-cell}\nx = 1\n```\n")
    record = RobustnessRecord("sft/lora", key_of_page(page, lock), {})
    assert not stale(record, tmp_path)
    page.write_text("```{code-cell}\nx = 2\n```\n")
    assert stale(record, tmp_path)
    page.write_text("```{code-cell}\nx = 1\n```\n")
    assert not stale(record, tmp_path)
    lock.write_text("torch==2\n")
    assert stale(record, tmp_path)
    page.unlink()
    assert stale(record, tmp_path)


def test_the_text_for_the_scoreboard():
    records = {"sft/lora": record_of(native=run_of(a=True, b=True), avx2=run_of(a=True))}
    assert held_text("sft.a", records) == "2 of 2 rebuilds"
    assert held_text("sft.b", records) == "1 of 2 rebuilds"
    assert held_text("sft.a", {"sft/lora": record_of(x=run_of(a=True))}) == "1 of 1 rebuild"
    assert held_text("sft.a", records, {"sft/lora"}) == "older than the page"
    assert held_text("sft.c", records) == held_text("sft.a", {}) == "not tried"


def test_what_is_in_force_is_asked_of_the_libraries(capfd: pytest.CaptureFixture[str]):
    found = environment_in_force()
    assert json.loads(json.dumps(found)) == found
    assert found["aten"] in ("DEFAULT", "AVX2", "AVX512") or found["aten"]
    if found["instruction_set"] in INSTRUCTION_SETS:
        assert "AVX" in found["onednn"] or "AMX" in found["onednn"]
    assert Path(found["package"]).name == "posttrain"
    assert capfd.readouterr().out == ""  # oneDNN's words do not reach the page
