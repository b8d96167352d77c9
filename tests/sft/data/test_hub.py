import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.chat.template import render
from posttrain.sft.data import hub as hub_data
from posttrain.sft.data.hub import (
    MalformedRowError,
    MappedRows,
    alpaca_messages,
    load_alpaca,
    map_rows,
)

GOOD = {"instruction": "Add the numbers.", "input": "2 and 3", "output": "5"}


def without(name: str) -> dict:
    return {key: value for key, value in GOOD.items() if key != name}


MALFORMED = [
    (GOOD | {"output": ""}, "empty output", "the field 'output' holds no text"),
    (GOOD | {"output": " \n\t"}, "empty output", "the field 'output' holds no text"),
    (GOOD | {"instruction": ""}, "empty instruction", "the field 'instruction' holds no text"),
    (without("output"), "missing output", "the field 'output' is missing or None"),
    (
        without("instruction"),
        "missing instruction",
        "the field 'instruction' is missing or None",
    ),
    (GOOD | {"output": None}, "missing output", "the field 'output' is missing or None"),
    (GOOD | {"output": 5}, "wrong type", "the field 'output' is int; text is needed"),
    (GOOD | {"input": ["2", "3"]}, "wrong type", "the field 'input' is list; text is needed"),
    (
        GOOD | {"output": "x" * 50_000},
        "too long",
        "50,023 characters; at most 20,000 are taken",
    ),
    (GOOD | {"mood": "good"}, "unknown field", "mood; known are instruction, input, output"),
    (
        GOOD | {"output": "5<|im_end|>"},
        "special token",
        r"contains <\|im_end\|>, which",
    ),
    (None, "not a row", "NoneType; a mapping with instruction, input, output is needed"),
    ("instruction", "not a row", "str; a mapping"),
    ([GOOD], "not a row", "list; a mapping"),
    ({}, "missing instruction", "is missing or None"),
    (GOOD | {"mood": 0}, "unknown field", "mood; known are"),
    ({"instruction": "Add.", "instances": []}, "wrong instances", "exactly one mapping"),
    ({"instruction": "Add.", "instances": [GOOD, GOOD]}, "wrong instances", "exactly one"),
    ({"instruction": "Add.", "instances": ["5"]}, "wrong instances", "exactly one mapping"),
    ({"instruction": "Add.", "instances": [{"input": ""}]}, "missing output", "is missing"),
]


def test_instruction_and_input_are_asked_and_the_output_answers():
    assert alpaca_messages(GOOD) == [
        {"role": "user", "content": "Add the numbers.\n\n2 and 3"},
        {"role": "assistant", "content": "5"},
    ]


@pytest.mark.parametrize("given", [None, "", "  ", "<noinput>", "<NOINPUT>"])
def test_no_input_adds_nothing(given: str):
    assert alpaca_messages(GOOD | {"input": given})[0]["content"] == "Add the numbers."


def test_a_missing_input_and_harmless_fields_are_taken():
    row = without("input") | {"text": "Below is an instruction", "id": "seed_task_0"}
    assert alpaca_messages(row)[0]["content"] == "Add the numbers."


def test_null_is_no_value():
    row = GOOD | {"input": None, "mood": None, "history": [], "instances": None, "text": None}
    assert alpaca_messages(row) == alpaca_messages(without("input"))


def test_space_around_texts_goes_and_unicode_stays():
    row = {"instruction": " Übersetze ☃ \n", "input": "\n eins\n\nzwei ", "output": " é\n"}
    question, answer = alpaca_messages(row)
    assert question["content"] == "Übersetze ☃\n\neins\n\nzwei" and answer["content"] == "é"


def test_seed_tasks_keep_input_and_output_in_their_instance():
    row = {
        "id": "seed_task_1",
        "name": "add",
        "instruction": "Add.",
        "instances": [{"input": "2 and 3", "output": "5"}],
        "is_classification": False,
    }
    question, answer = alpaca_messages(row)
    assert (question["content"], answer["content"]) == ("Add.\n\n2 and 3", "5")


@pytest.mark.parametrize(("row", "reason", "details"), MALFORMED)
def test_malformed_rows_are_told_what_is_wrong(row, reason: str, details: str):
    with pytest.raises(MalformedRowError, match=f"^{reason}: .*{details}") as caught:
        alpaca_messages(row)
    assert caught.value.reason == reason and isinstance(caught.value, ValueError)


def test_a_limit_is_a_limit():
    row = GOOD | {"output": "x" * 20_000}
    size = len("Add the numbers." + "2 and 3") + 20_000
    assert alpaca_messages(row, max_characters=size)
    with pytest.raises(MalformedRowError, match="too long"):
        alpaca_messages(row, max_characters=size - 1)


def test_malformed_rows_are_dropped_and_counted_by_reason():
    rows = [row for row, _, _ in MALFORMED]
    mapped = map_rows([GOOD, *rows, GOOD])
    assert len(mapped.rows) == 2 and mapped.rows[0] == {"messages": alpaca_messages(GOOD)}
    assert mapped.dropped == Counter(reason for _, reason, _ in MALFORMED)
    assert len(mapped.rows) + mapped.dropped.total() == len(rows) + 2
    assert mapped.first_dropped["empty output"].startswith("row 1: empty output: the field")


def test_malformed_rows_stop_the_run_where_asked():
    with pytest.raises(MalformedRowError, match=r"^empty output: row 2: the field 'output'"):
        map_rows([GOOD, GOOD, GOOD | {"output": ""}], on_error="raise")
    assert len(map_rows([GOOD, GOOD], on_error="raise").rows) == 2
    with pytest.raises(ValueError, match="on_error is 'ignore': give 'drop' or 'raise'"):
        map_rows([GOOD], on_error="ignore")


def test_the_counts_read_well():
    assert repr(map_rows([GOOD, None, None, GOOD | {"output": ""}])) == (
        "1 conversations; dropped: 2 not a row, 1 empty output"
    )
    assert repr(MappedRows([], Counter())) == "0 conversations; dropped: none"


# --- files and the hub ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """A hub without network; the list holds what was asked of it."""
    asked: list[dict] = []

    def load_dataset(name: str, **options):
        asked.append({"name": name, **options})
        if options["split"] == "offline":
            raise ConnectionError("no network")
        return [GOOD, GOOD | {"output": ""}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    return asked


def test_the_hub_is_asked_for_a_pinned_revision(hub: list[dict]):
    mapped = load_alpaca("train[:2]")
    assert hub == [
        {
            "name": "yahma/alpaca-cleaned",
            "split": "train[:2]",
            "revision": "12567cabf869d7c92e573c7c783905fc160e9639",
        }
    ]
    assert len(mapped.rows) == 1 and mapped.dropped == {"empty output": 1}


def test_an_offline_hub_says_what_to_do(hub: list[dict]):
    with pytest.raises(
        AssetError,
        match=r"\(ConnectionError: no network\)\. Put its JSON file into POSTTRAIN_DATA/alpaca",
    ):
        load_alpaca("offline")


@pytest.mark.parametrize("as_list", [True, False])
def test_ones_own_folder_comes_first(as_list: bool, hub, tmp_path: Path, monkeypatch):
    folder = tmp_path / "alpaca-cleaned"
    folder.mkdir()
    rows = [GOOD, GOOD | {"output": "a\u2028b"}, {"instruction": "x"}]
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n\n"
    (folder / "data.json").write_text(json.dumps(rows) if as_list else lines, encoding="utf-8")
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    mapped = load_alpaca()
    assert hub == [] and len(mapped.rows) == 2 and mapped.dropped == {"missing output": 1}
    assert load_alpaca(source=folder / "data.json").rows == mapped.rows


def test_a_broken_line_is_counted(tmp_path: Path, hub):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(GOOD) + '\n\n{"instruction": "cut of')
    mapped = load_alpaca(source=file)
    assert len(mapped.rows) == 1 and mapped.dropped == {"broken JSON": 1}
    problem = "Unterminated string starting at column 17"
    assert mapped.first_dropped == {"broken JSON": f"line 3: broken JSON: {problem}"}
    with pytest.raises(MalformedRowError, match=f"^broken JSON: line 3: {problem}"):
        load_alpaca(source=str(file), on_error="raise")


def test_blank_lines_count(tmp_path: Path, hub):
    file = tmp_path / "rows.jsonl"
    file.write_text("\n\n" + json.dumps(GOOD) + "\n\n" + json.dumps(without("output")))
    assert load_alpaca(source=file).first_dropped == {
        "missing output": "line 5: missing output: the field 'output' is missing or None"
    }


@pytest.mark.parametrize("form", ["lines", "list", "data", "pretty"])
@pytest.mark.parametrize("packed", [False, True])
def test_encodings_of_real_files(form: str, packed: bool, tmp_path: Path, hub):
    rows = [GOOD, GOOD | {"output": "a\u2028b", "input": None}]
    text = {
        "lines": "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "list": json.dumps(rows),
        "data": json.dumps({"data": rows}),
        "pretty": "\n".join(json.dumps(row, indent=4) for row in rows),
    }[form]
    data = text.encode("utf-8-sig")
    folder = tmp_path / "folder"
    folder.mkdir()
    file = folder / ("rows.json.gz" if packed else "rows.json")
    file.write_bytes(gzip.compress(data) if packed else data)
    expected = map_rows(rows, on_error="raise").rows
    assert load_alpaca(source=file, on_error="raise").rows == expected
    assert load_alpaca(source=folder).rows == expected


def test_datasets_keeps_the_same_rows(tmp_path: Path, hub):
    """It fills in None where only some rows have a field."""
    datasets = pytest.importorskip("datasets")
    rows = [GOOD, GOOD | {"input": None}, without("input"), GOOD | {"mood": "good"}]
    rows += [GOOD | {"text": "Below"}, GOOD | {"output": None}, {"output": "5"}]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    ours = load_alpaca(source=file)
    theirs = map_rows(datasets.Dataset.from_json(str(file), cache_dir=str(tmp_path / "cache")))
    assert len(ours.rows) == 4 and ours.rows == theirs.rows
    assert (
        ours.dropped
        == theirs.dropped
        == {"unknown field": 1, "missing output": 1, "missing instruction": 1}
    )


def test_files_that_cannot_be_read_are_refused(tmp_path: Path, hub):
    broken = tmp_path / "rows.json"
    broken.write_text('[{"instruction": ')
    with pytest.raises(AssetError, match=r"rows\.json begins with '\[', but is no JSON list"):
        load_alpaca(source=broken)
    broken.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AssetError, match=r"rows\.json is in UTF-16: save it as UTF-8"):
        load_alpaca(source=broken)
    broken.write_text(json.dumps({"instruction": "x"}))
    with pytest.raises(AssetError, match=r"gave no conversation \(line 1: missing output"):
        load_alpaca(source=broken)
    broken.write_text("")
    with pytest.raises(AssetError, match="holds no rows"):
        load_alpaca(source=broken)
    with pytest.raises(AssetError, match=r"missing\.json does not exist"):
        load_alpaca(source=tmp_path / "missing.json")
    (tmp_path / "second.jsonl").write_text("")
    with pytest.raises(
        AssetError, match=r"holds 2 \.json and \.jsonl files: leave exactly one"
    ):
        load_alpaca(source=tmp_path)
    with pytest.raises(AssetError, match=r"split is 'test', but .* is read whole"):
        load_alpaca("test", source=broken)


def test_alpacas_seed_tasks(data: Path):
    file = data / "alpaca_seed" / "seed_tasks.jsonl"
    if not file.is_file():
        pytest.skip("POSTTRAIN_DATA has no alpaca_seed/seed_tasks.jsonl")
    mapped = load_alpaca(source=file, on_error="raise")
    assert len(mapped.rows) == 175 and not mapped.dropped
    assert mapped.rows[1]["messages"][0]["content"] == (
        "What is the relation between the given pairs?\n\nNight : Day :: Right : Left"
    )
    assert all("<|im_start|>" in render(row["messages"]) for row in mapped.rows)
    assert hub_data.MAX_CHARACTERS > max(
        len(row["messages"][1]["content"]) for row in mapped.rows
    )
