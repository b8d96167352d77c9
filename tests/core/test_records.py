"""posttrain.core.records: the form of a record, what it says of its code, where it is found."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.core import records
from posttrain.core.errors import RecordError
from posttrain.core.records import (
    SCHEMA,
    Record,
    describe_changes,
    find_fault,
    read_record,
    record_file,
    write_record,
)
from posttrain.core.storage.code_hash import module_hashes

MODULE = "posttrain.core.errors"


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "schema": SCHEMA, "stage": "sft", "name": "toy", "title": "A toy", "commit": "a" * 40,
        "clean": True, "created": "2026-11-30T12:00:00+00:00", "seconds": 754.0,
        "machine": {"cpu": "AMD EPYC, 2 cores"}, "module": MODULE, "config": {"rate": 1e-3},
        "seeds": [0, 1], "code": module_hashes([MODULE]), "repeated": None,
        "summary": {"mean": 1.5},
        "outcomes": [{"seed": 0, "loss": 1.0}, {"seed": 1, "loss": 2.0}],
    }  # fmt: skip
    return Record(**(values | changes))


def content(**changes: Any) -> dict[str, Any]:
    made = record()
    return {name: getattr(made, name) for name in Record.__dataclass_fields__} | changes


def test_a_record_is_read_as_it_was_written(tmp_path: Path):
    file = tmp_path / "sft" / "toy.json"
    write_record(record(), file)
    assert read_record("sft", "toy", tmp_path) == record()
    lines = file.read_text(encoding="utf-8").splitlines()
    assert '  {"seed": 0, "loss": 1.0},' in lines  # one outcome a line, for a readable diff


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"schema": 0}, "its schema is 0 and this package reads 1"),
        ({"extra": 1}, "'extra' is not known"),
        ({"seeds": []}, "its seeds are []"),
        ({"seeds": [0.5]}, "its seeds are [0.5]"),
        ({"clean": "yes"}, "clean is 'yes'"),
        ({"created": "yesterday"}, "'yesterday' is no time"),
        ({"commit": "abc"}, "its commit is 'abc'"),
        ({"machine": {}}, "its machine has no cpu"),
        ({"code": {"posttrain.core.errors": "1"}}, "its code has no hashes"),
        ({"name": "../x"}, "its name is sft/../x"),
        ({"outcomes": []}, "it has no outcomes, or one of them is no row"),
        ({"outcomes": [{"a": 1}, {"b": 1}]}, "outcome 1 has other keys than outcome 0"),
        ({"outcomes": [{"a": [1.0, float("nan")]}]}, "outcomes[0].a[1] is nan"),
        ({"summary": {"mean": float("inf")}}, "summary.mean is inf"),
        ({"repeated": {"created": 3}}, "3 is no time"),
    ],
)
def test_each_fault_is_named(changes: dict[str, Any], fault: str):
    assert find_fault(content(**changes)) == fault


def test_a_missing_field_is_named():
    made = content()
    del made["machine"]
    assert find_fault(made) == "'machine' is missing"
    assert find_fault([]) == "it holds no object"


def test_what_is_not_a_record_is_refused_and_nothing_is_written(tmp_path: Path):
    with pytest.raises(RecordError, match="cannot be written: outcomes"):
        write_record(record(outcomes=[{"loss": float("nan")}]), tmp_path / "a.json")
    assert not list(tmp_path.iterdir())
    file = tmp_path / "sft" / "toy.json"
    with pytest.raises(RecordError, match="no record sft/toy: make it with posttrain record"):
        read_record("sft", "toy", tmp_path)
    write_record(record(name="other"), file)
    with pytest.raises(RecordError, match="is the record sft/other"):
        read_record("sft", "toy", tmp_path)
    file.write_text("{")
    with pytest.raises(RecordError, match="is no JSON"):
        read_record("sft", "toy", tmp_path)
    file.write_text(json.dumps(content(seeds=[])))
    with pytest.raises(RecordError, match="is not a record: its seeds are"):
        read_record("sft", "toy", tmp_path)
    with pytest.raises(ValueError, match="names no record"):
        read_record("sft", "../toy", tmp_path)


def test_a_changed_module_is_seen():
    assert record().stale == ()
    assert str(record().label) == (
        "Recorded run: 30 November 2026, AMD EPYC, 2 cores, 2 seeds, 13 min; "
        "its code is unchanged since."
    )
    code = record().code
    changed = record(code={**code, MODULE: "0" * 64})
    assert changed.stale == (MODULE,) and changed.label.stale
    assert str(changed.label).endswith("its code has changed since: core.errors.")
    assert "pt-record-stale" in changed.label._repr_html_()
    gone = record(code={**code, "posttrain.core.gone": "0" * 64})
    assert gone.stale == ("posttrain.core.gone",)
    assert record(module="posttrain.no_such_module").stale == ("posttrain.no_such_module",)
    many = record(code={**code, **{f"posttrain.a{i}": "0" * 64 for i in range(5)}})
    assert str(many.label).endswith("since: a0, a1, a2 and 2 more.")
    assert describe_changes(record()) == "sft/toy: its code is unchanged since"


def test_a_repeated_record_says_so():
    again = {"created": "2026-12-01T12:00:00+00:00", "commit": None, "clean": True, "parts": 2}
    assert str(record(repeated=again).label).endswith(
        "its code is unchanged since 1 December 2026, when 2 parts were run again with the "
        "same outcomes."
    )


def test_the_label_is_escaped_on_a_page():
    label = record(machine={"cpu": "<b>"}).label
    assert "&lt;b&gt;" in label._repr_html_() and "<b>," in label._repr_markdown_()
    assert record()._repr_html_() == record().label._repr_html_()


def test_outcomes_are_picked_by_their_values():
    assert record().select(seed=1) == [{"seed": 1, "loss": 2.0}]
    assert record().select() == record().outcomes
    with pytest.raises(ValueError, match="have no 'rank': they have seed, loss"):
        record().select(rank=1)


def test_without_a_checkout_the_readers_own_comes_before_that_of_the_wheel(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert record_file("sft", "toy") is None  # here is a checkout, and it has none
    shipped = tmp_path / "shipped.json"
    write_record(record(title="of the wheel"), shipped)

    class Shipped:
        def as_posix(self) -> str:
            return "../../../share/posttrain/results/sft/toy.json"

        def locate(self) -> Path:
            return shipped

    monkeypatch.setattr(records.importlib.metadata, "files", lambda name: [Shipped()])
    assert record_file("sft", "toy") is None
    monkeypatch.setattr(records, "checkout", lambda: None)
    assert read_record("sft", "toy").title == "of the wheel"
    write_record(record(title="own"), store / "records" / "sft" / "toy.json")
    assert read_record("sft", "toy").title == "own"
    assert record_file("sft", "other") is None


def test_a_change_makes_no_other_record():
    assert replace(record(), seconds=1.0) != record()
