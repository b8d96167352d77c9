"""Rows of real files: every form and encoding gives the same rows, and nothing is lost."""

import gzip
import itertools
import json
import os
import random
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import JsonRow, read_json_rows

ROWS = [
    {"instruction": "Say it.", "output": "a\u2028b\u2029c\u0085d\x0be\ufeff"},
    {"instruction": "é ☃ 👍 日本", "output": "x\ny\r\nz", "nested": [{"a": [1, 2.5, None]}]},
    {},
    {"messages": [{"role": "user", "content": "[{}]"}], "n": 10**20},
]


def write(folder: Path, content: str | bytes, name: str = "rows.jsonl") -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def read(folder: Path, content: str | bytes) -> list[JsonRow]:
    return read_json_rows(write(folder, content))


def dumped(rows: list, ascii_only: bool = False, indent: int | None = None) -> list[str]:
    return [json.dumps(row, ensure_ascii=ascii_only, indent=indent) for row in rows]


def compare(found: list[JsonRow], rows: list) -> None:
    assert [row.problem for row in found] == [None] * len(rows)
    assert [row.value for row in found] == rows


# --- forms and encodings ---

VARIANTS = list(itertools.product([False, True], repeat=5))


@pytest.mark.parametrize(("bom", "crlf", "packed", "blank", "ascii_only"), VARIANTS)
def test_encodings_change_nothing(
    tmp_path: Path, bom: bool, crlf: bool, packed: bool, blank: bool, ascii_only: bool
):
    lines = dumped(ROWS, ascii_only)
    gaps = ["", "  ", "\t"] if blank else []
    text = "\n".join([*gaps, *itertools.chain(*([line, *gaps] for line in lines))])
    text = text.replace("\n", "\r\n") if crlf else text
    for end in ("", "\n"):
        data = (text + end).encode("utf-8-sig" if bom else "utf-8")
        found = read(tmp_path, gzip.compress(data) if packed else data)
        compare(found, ROWS)
        step = 1 + len(gaps)
        assert [row.line for row in found] == [1 + len(gaps) + step * i for i in range(4)]


@pytest.mark.parametrize("indent", [None, 0, 1, 2, 4])
@pytest.mark.parametrize("form", ["lines", "list", "data", "rows", "examples", "train"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_forms_change_nothing(tmp_path: Path, indent: int | None, form: str, line_end: str):
    if form == "lines":
        text = "\n".join(dumped(ROWS, indent=indent))
    else:
        whole = ROWS if form == "list" else {"version": 1, "tags": ["a", "[{"], form: ROWS}
        text = dumped([whole], indent=indent)[0]
    found = read(tmp_path, "\ufeff" + text.replace("\n", line_end))
    compare(found, ROWS)
    lines = text.split("\n")
    for row in found:
        rest = "\n".join(lines[row.line - 1 :])
        at = min(i for i in range(len(rest)) if starts(rest[i:], row.value))
        assert "\n" not in rest[:at]


def starts(text: str, value: object) -> bool:
    try:
        return text[0] == "{" and json.JSONDecoder().raw_decode(text)[0] == value
    except ValueError:
        return False


def test_drawn_rows_come_back_from_any_form(tmp_path: Path):
    generator = random.Random(0)
    letters = 'a"\\{}[]:,\n\r\t \u2028\u2029\u0085\ufeffé👍\x0c\x1c'
    for _ in range(60):
        rows = [
            {
                "".join(generator.choices(letters, k=3)): "".join(
                    generator.choices(letters, k=generator.randrange(9))
                )
                for _ in range(generator.randrange(1, 4))
            }
            for _ in range(generator.randrange(1, 6))
        ]
        indent = generator.choice([None, 0, 3])
        text = generator.choice(["\n", "\n\n", " ", ""]).join(
            dumped(rows, generator.random() < 0.5, indent)
        )
        compare(read(tmp_path, generator.choice(["", "\ufeff"]) + text), rows)


def test_files_that_were_joined_have_byte_order_marks_inside(tmp_path: Path):
    compare(read(tmp_path, '\ufeff{"a": 1}\n\ufeff{"a": 2}\n'), [{"a": 1}, {"a": 2}])
    compare(read(tmp_path, '{"a": 1}{"a": 2} [3]'), [{"a": 1}, {"a": 2}, [3]])


def test_one_row_is_a_row(tmp_path: Path):
    row = {"messages": [{"role": "user", "content": "hi"}], "tags": ["a"]}
    for text in (*dumped([row]), *dumped([row], indent=2), *dumped([[row]])):
        compare(read(tmp_path, text), [row])
    compare(read(tmp_path, '{"data": "no list"}'), [{"data": "no list"}])
    compare(read(tmp_path, '{"data": [1]}\n{"data": [2]}'), [{"data": [1]}, {"data": [2]}])


def test_values_of_any_type_are_handed_on(tmp_path: Path):
    compare(read(tmp_path, '1\n"two"\nnull\n[3]'), [1, "two", None, [3]])
    compare(read(tmp_path, "[[1], [2]]"), [[1], [2]])
    compare(read(tmp_path, "[1]\n[2]"), [[1], [2]])


# --- rows with a problem ---


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        ('{"instruction": "cut of', "Unterminated string starting at column 17"),
        ('{"a": 1', "Expecting ',' delimiter at line 4, column 1"),
        ('{"a": ', "Expecting ',' delimiter at line 5, column 1"),
        ('{"a": 1,', "Expecting property name enclosed in double quotes at line 4, column 1"),
        ("{", "Expecting property name enclosed in double quotes at line 4, column 1"),
        ("{'a': 1}", "Expecting property name enclosed in double quotes at column 2"),
        ('  {"a" 1}', "Expecting ':' delimiter at column 8"),
        ("hello", "Expecting value at column 1"),
        ('{"a": 1},', "',' follows the value, where the line should end"),
        ('{"a": 1} # note', "'# note' follows the value, where the line should end"),
        ('{"a": "tab\there"}', "Invalid control character at column 11"),
        ('{"a": yes}', "Expecting value at column 7"),
        (r'{"a": "\x41"}', "Invalid \\escape at column 8"),
        ("{" + '"a": {' * 200_000, "Nested too deeply at column 1"),
    ],
)
def test_a_broken_line_is_a_row_with_a_problem(tmp_path: Path, broken: str, problem: str):
    good = '{"ok": true}'
    found = read(tmp_path, f"{good}\n\n{broken}\n{good}\n{good}\n")
    assert [row.line for row in found] == [1, 3, 4, 5]
    assert [row.value for row in found] == [{"ok": True}, None, {"ok": True}, {"ok": True}]
    assert found[1].problem == f"line 3 is no JSON: {problem}"
    assert [row.problem for row in found if row.line != 3] == [None] * 3
    alone = read(tmp_path, broken)
    assert len(alone) == 1 and alone[0].problem and "line 1 is no JSON" in alone[0].problem


def test_a_broken_object_of_many_lines_is_one_problem(tmp_path: Path):
    good = '{\n  "a": {\n    "b": 1\n  }\n}'
    broken = '{\n  "a": {\n    "b": 1\n  \n}'
    found = read(tmp_path, "\n".join([good, broken, good, good]))
    assert [row.line for row in found] == [1, 6, 11, 16]
    assert found[1].problem == "line 6 is no JSON: Expecting ',' delimiter at line 11, column 1"
    assert [row.value for row in found if not row.problem] == [{"a": {"b": 1}}] * 3


def test_two_broken_lines_are_two_rows(tmp_path: Path):
    found = read(tmp_path, "one\ntwo\n")
    assert [(row.line, row.value) for row in found] == [(1, None), (2, None)]


@pytest.mark.parametrize("name", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize(
    "form",
    ['{}\n{"a": [@]}\n{}', '[{},\n{"a": @},\n{}]', '{"rows": [{},\n{"a":\n{"b": @}},\n{}]}'],
)
def test_numbers_that_json_has_not_are_refused(tmp_path: Path, name: str, form: str):
    good, bad, last = read(tmp_path, form.replace("@", name))
    assert (good.value, bad.value, last.value) == ({}, None, {})
    assert bad.problem == f"line 2 cannot be taken: {name} is no number in JSON"


def test_a_key_that_stands_twice_is_refused(tmp_path: Path):
    good, bad = read(tmp_path, '{"a": 1}\n{"x": {"role": "user", "role": "system"}}')
    assert good.problem is None
    assert bad.problem == "line 2 cannot be taken: the key 'role' stands twice in one object"


# --- files that are refused ---


def refused(problem: str) -> pytest.RaisesExc[AssetError]:
    return pytest.raises(AssetError, match=problem)


def test_files_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with refused(r"missing\.jsonl does not exist: look at the name and the folder$"):
        read_json_rows(tmp_path / "missing.jsonl")
    with refused("is a folder: name the file in it$"):
        read_json_rows(str(tmp_path))
    file = write(tmp_path, "{}")

    def forbidden(self: Path) -> bytes:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with refused(r"rows\.jsonl cannot be read \(Permission denied\)"):
        read_json_rows(file)


@pytest.mark.parametrize("content", ["", "\n \r\n\t", "\ufeff", "[]", '{"data": []}', "[\n]\n"])
def test_files_without_rows(tmp_path: Path, content: str):
    with refused("holds no rows: give a file with one JSON object per line$"):
        read(tmp_path, content)
    with refused("holds no rows"):
        read(tmp_path, gzip.compress(content.encode()))


@pytest.mark.parametrize("name", ["UTF-16", "UTF-32"])
@pytest.mark.parametrize("order", ["LE", "BE"])
@pytest.mark.parametrize("bom", [False, True])
@pytest.mark.parametrize("text", ['{"a": 1}\n', "\n\n[{}]"])
def test_wide_encodings_are_named(tmp_path: Path, name: str, order: str, bom: bool, text: str):
    data = (("\ufeff" if bom else "") + text).encode(f"{name}-{order}")
    for content in (data, gzip.compress(data)):
        with refused(rf"is in {name}: save it as UTF-8 \(iconv -f {name} -t UTF-8 does it\)$"):
            read(tmp_path, content)


def test_other_encodings_are_placed(tmp_path: Path):
    for end in (b"\n", b"\r\n", b"\r"):
        with refused(
            r"holds the byte 0xE9 in line 3, which is no UTF-8: save the file as UTF-8"
        ):
            read(tmp_path, b'{"a": 1}' + end + end + '{"a": "é"}'.encode("latin-1"))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "holds a zero byte in line 3: it is binary or damaged"),
        (b'{"a": 1}\n\x00\x00\x00\x00', "holds a zero byte in line 2: it is binary or damaged"),
        (b"PAR1\x15\x04", "is a Parquet file: unpack or convert it to JSON Lines"),
        (b"PK\x03\x04\x14", "is a zip archive: unpack or convert it"),
        (bytes(range(128, 256)), "holds the byte 0x80 in line 1, which is no UTF-8"),
    ],
)
def test_binary_files_are_refused(tmp_path: Path, content: bytes, problem: str):
    with refused(problem):
        read(tmp_path, content)


def test_a_damaged_archive_is_refused(tmp_path: Path):
    packed = gzip.compress("\n".join(dumped(ROWS)).encode())
    for damaged in (packed[:-9], packed[:12], packed[:20] + b"\0\0" + packed[22:]):
        with refused("is compressed with gzip and damaged"):
            read(tmp_path, damaged)


@pytest.mark.parametrize("name", ["a.parquet", "a.csv", "a.CSV", "a.csv.gz", "a.b.tsv"])
def test_other_formats_are_refused_by_name(tmp_path: Path, name: str):
    with refused("file: convert it to JSON Lines, for example with pandas"):
        read_json_rows(write(tmp_path, "a,b\n1,2\n", name))


def test_a_broken_list_is_refused_with_its_place(tmp_path: Path):
    with refused(
        r"begins with '\[', but is no JSON list \(Expecting value in line 2, column 7\)"
    ):
        read(tmp_path, '[{"a": 1},\n{"b": }]')


def test_several_lists_are_refused(tmp_path: Path):
    with refused(r"is one object with several lists \('train', 'test'\): write each to a file"):
        read(tmp_path, json.dumps({"test": [{}], "train": [{}]}))
    with refused(r"several lists \('data', 'train'\)"):
        read(tmp_path, json.dumps({"train": [], "data": []}))
    compare(read(tmp_path, json.dumps({"train": [{}], "labels": ["a", "b"]})), [{}])
