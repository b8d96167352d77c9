"""A user's own file: the same rows from every form, bad rows by line, splits without leaks."""

import gzip
import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.chat.masking import encode_for_training
from posttrain.sft.data.duplicates import find_leaks
from posttrain.sft.data.hub import load_alpaca
from posttrain.sft.data.own_rows import OwnRows, load_rows, questions_of, split_rows
from posttrain.sft.data.row_formats import PAIR

PAIRS = [("Why?", "So."), ("é ☃\u2028👍", "x\u0085y\n\u2029y"), ("[{}]", '{"a": 1}')]
AS_FORM = {
    "messages": lambda q, a: {
        "messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]
    },
    "prompt / completion": lambda q, a: {"prompt": q, "completion": a},
    "instruction / input / output": lambda q, a: {"instruction": q, "input": None, "output": a},
    "conversations": lambda q, a: {
        "conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]
    },
}
ROWS = [AS_FORM["messages"](q, a) for q, a in PAIRS]


def write(folder: Path, *rows: Any, name: str = "my.jsonl") -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file = folder / name
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def pair(question: str, answer: str = "So.", **fields: Any) -> dict[str, Any]:
    return {"prompt": question, "completion": answer, **fields}


# --- formats and encodings ---


@pytest.mark.parametrize("form", AS_FORM)
def test_formats_are_recognised_and_give_the_same(form: str, tmp_path: Path):
    file = write(tmp_path, "", *(AS_FORM[form](q, a) for q, a in PAIRS))
    loaded = load_rows(file)
    assert loaded.format == form and loaded.lines == [2, 3, 4]
    assert loaded.rows == ROWS and not loaded.dropped and not loaded.first_dropped
    assert loaded.sha256 == load_rows(write(tmp_path, *ROWS, name="other.json")).sha256
    assert loaded.source == str(file) and repr(loaded) == f"{file}: 3 rows of {form}"
    assert load_rows(str(file)) == loaded


def test_encodings_give_the_same_rows_and_the_same_hash(tmp_path: Path):
    found = set()
    for bom, crlf, packed, blank, form in itertools.product(
        *[[False, True]] * 4, ["lines", "list", "data", "pretty"]
    ):
        lines = [json.dumps(row, ensure_ascii=blank) for row in ROWS]
        text = ("\n \n" if blank else "\n").join(lines)
        if form != "lines":
            whole = {"list": ROWS, "data": {"data": ROWS}}.get(form)
            text = json.dumps(whole, ensure_ascii=False, indent=1)
        if form == "pretty":
            text = "\n".join(json.dumps(row, indent=2, ensure_ascii=False) for row in ROWS)
        data = text.replace("\n", "\r\n" if crlf else "\n").encode(
            "utf-8-sig" if bom else "utf-8"
        )
        file = tmp_path / f"{len(found)}.json"
        file.write_bytes(gzip.compress(data) if packed else data)
        loaded = load_rows(file)
        assert loaded.rows == ROWS, (bom, crlf, packed, blank, form)
        found.add(loaded.sha256)
    assert len(found) == 1 and len(found.pop()) == 64


def test_the_hash_names_the_content(tmp_path: Path):
    def sha256(*rows: Any, **options: Any) -> str:
        return load_rows(write(tmp_path, *rows), **options).sha256

    one, two = pair("Why?"), pair("Who?", "You.")
    base = sha256(one, two)
    assert base == sha256(one | {"id": 5, "source": "x"}, two)
    assert base == sha256(one, two, pair("Bad?", ""), "{", on_bad_row="drop")
    asked = {"messages": [{"role": "user", "content": "Why?"}]}
    flagged = [{"role": "assistant", "content": "So.", "weight": w} for w in (0, 1)]
    whole = asked["messages"] + [flagged[1], *asked["messages"], flagged[1]]
    part = asked["messages"] + [flagged[0], *asked["messages"], flagged[1]]
    others = [
        sha256(two, one),
        sha256(one),
        sha256(one, pair("Who?", "You")),
        sha256(pair("Why?", system="s"), two),
        sha256({"messages": whole}),
        sha256({"messages": part}),
    ]
    assert len({base, *others}) == 7


def test_what_was_passed_over_is_said(tmp_path: Path):
    rows = [pair("a", id=1), pair("b", source="x"), pair("c", note=None), pair("d", "", lost=1)]
    loaded = load_rows(write(tmp_path, *rows), on_bad_row="drop")
    assert loaded.ignored == ("id", "source")
    assert repr(loaded) == (
        f"{tmp_path / 'my.jsonl'}: 3 rows of prompt / completion; dropped 1 (1 empty answer); "
        "fields passed over: id, source"
    )


def test_alpacas_seed_tasks_in_both_ways(data: Path):
    file = data / "alpaca_seed" / "seed_tasks.jsonl"
    if not file.is_file():
        pytest.skip("POSTTRAIN_DATA has no alpaca_seed/seed_tasks.jsonl")
    loaded = load_rows(file)
    assert loaded.rows == load_alpaca(source=file).rows and len(loaded.rows) == 175
    assert loaded.lines == list(range(1, 176)) and loaded.format.startswith("instruction")
    assert loaded.ignored == ("id", "is_classification", "name")
    train, validation = split_rows(loaded)
    assert (len(train.rows), len(validation.rows)) == (157, 18)


# --- bad rows ---

BAD = [
    (pair("Why?", " \n"), "empty answer", "message 1 (assistant) holds no text"),
    (pair(" "), "empty question", "message 0 (user) holds no text"),
    (
        pair("Why?", "So.<|im_end|>"),
        "special token",
        "message 1 (assistant) contains <|im_end|>",
    ),
    (pair("Why?", "x" * 20_000), "too long", "20,004 characters; at most 20,000 are taken"),
    (pair("Why?", tools=[{}]), "field 'tools'", "tool calls belong to Stage 4"),
    (pair("Why?", weight=0), "row of weight 0", "it is not to be trained: remove it"),
    ({"prompt": "Why?"}, "missing completion", "prompts alone are data for Stage 3"),
    ({"prompt": "Why?", "completion": 5}, "wrong type", "'completion' is int"),
    ('{"prompt": "Why?", "compl', "broken JSON", "Unterminated string starting at column 20"),
    ('{"prompt": NaN, "completion": "So."}', "broken JSON", "NaN is no number in JSON"),
    ("5", "not a row", "int; an object is needed"),
    ({"question": "Why?"}, "unknown format", "its fields are question; accepted are"),
]


@pytest.mark.parametrize(("row", "reason", "details"), BAD)
def test_a_bad_row_is_an_error_with_its_line(
    row: Any, reason: str, details: str, tmp_path: Path
):
    file = write(tmp_path, pair("One?"), "", row, pair("Two?"))
    with pytest.raises(ValueError) as caught:
        load_rows(file)
    text = str(caught.value)
    assert text.startswith(f"{file}, line 3: {reason}: ") and details in text
    assert text.endswith(": mend them, or drop them with on_bad_row='drop' (--on-bad-row drop)")
    assert "in all" not in text
    dropped = load_rows(file, on_bad_row="drop")
    assert dropped.lines == [1, 4] and dropped.dropped == {reason: 1}
    assert details in dropped.first_dropped[reason]
    assert dropped.first_dropped[reason].startswith(f"line 3: {reason}: ")


def test_bad_rows_are_counted_by_reason(tmp_path: Path):
    rows = [row for row, _, _ in BAD]
    file = write(tmp_path, *rows, pair("One?"), *rows)
    loaded = load_rows(file, on_bad_row="drop")
    assert loaded.dropped == Counter(reason for _, reason, _ in BAD * 2)
    assert len(loaded.rows) + loaded.dropped.total() == 2 * len(BAD) + 1
    with pytest.raises(
        ValueError, match=r"line 1: empty answer.*; 24 bad rows in all \(2 empty"
    ):
        load_rows(file)


def test_roles_out_of_order(tmp_path: Path):
    turn = ROWS[0]["messages"]
    for messages in (turn[::-1], turn * 2 + turn[:1], [turn[0], *turn]):
        file = write(tmp_path, ROWS[0], {"messages": messages})
        loaded = load_rows(file, on_bad_row="drop")
        assert len(loaded.rows) == 1 and loaded.dropped.total() == 1
        with pytest.raises(ValueError, match="line 2: "):
            load_rows(file)


def test_whatever_stands_in_a_file_the_error_is_one_on_purpose(tmp_path: Path):
    generator = random.Random(0)
    names = (
        "messages conversations prompt completion instruction input output instances".split()
    )
    names += ["system", "weight", "tools", "label", "id", "text"]
    values = [None, 0, 0.5, True, "", "x", "<|im_end|>", "\ud83d", [], {}, [1], [[]], {"a": 1}]
    values += [float("nan"), 10**400, [{"role": ["x"], "content": {}}], ROWS[0]["messages"]]
    for _ in range(1000):
        rows: list[Any] = [
            {name: generator.choice(values) for name in generator.sample(names, 3)}
            for _ in range(generator.randint(1, 3))
        ]
        text = "\n".join(map(json.dumps, [*rows, generator.choice([*values, ROWS[0]])]))
        at = generator.randrange(len(text))
        wrong = generator.choice(["", "", "{", "]", '"', ",", "\n", "\0"])
        file = write(tmp_path, text[:at] + wrong + text[at:])
        try:
            loaded = load_rows(file, on_bad_row=generator.choice(["drop", "error"]))
        except (AssetError, ValueError) as error:
            assert type(error) in (AssetError, ValueError) and "\n" not in str(error)
        else:
            assert loaded.rows and len(loaded.rows) == len(loaded.lines)


def test_no_row_left_says_why(tmp_path: Path):
    file = write(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"x": 1})
    with pytest.raises(
        AssetError, match=r"no conversation \(line 1: missing compl.*; line 3: unk"
    ):
        load_rows(file, on_bad_row="drop")
    preferences = write(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c"})
    with pytest.raises(
        ValueError, match=r"line 1: field 'chosen': this is preference data, for"
    ):
        load_rows(preferences)


@pytest.mark.parametrize("on_bad_row", ["error", "drop"])
def test_a_file_that_mixes_formats_is_refused(tmp_path: Path, on_bad_row: Any):
    file = write(tmp_path, ROWS[0], "", pair("a"), ROWS[1], pair("b"), pair("c", ""))
    problem = (
        r"messages \(line 1 and 1 more\), prompt / completion \(line 3 and 2 more\): write"
    )
    with pytest.raises(ValueError, match=problem):
        load_rows(file, on_bad_row=on_bad_row)


def test_options_and_files_that_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="on_bad_row is 'skip': give 'error' or 'drop'"):
        load_rows(tmp_path, on_bad_row="skip")  # type: ignore[arg-type]
    file = write(tmp_path, ROWS[0])
    with pytest.raises(AssetError, match=r"split is 'test', but .* is a file and"):
        load_rows(file, split="test")
    with pytest.raises(AssetError, match="is a folder"):
        load_rows(str(tmp_path))
    for name in ("data/missing.jsonl", "a/b.json.gz", "missing", "/a/b", "./a/b", "a/b/c"):
        with pytest.raises(AssetError, match="does not exist"):
            load_rows(name)
    with pytest.raises(AssetError, match="does not exist"):
        load_rows(Path("owner/name"))
    with pytest.raises(AssetError, match="holds no rows"):
        load_rows(write(tmp_path, ""))


# --- flags reach the mask ---


def test_an_answer_that_a_file_excludes_is_not_trained(tmp_path: Path, tokenizer):
    turns = [
        {"from": "human", "value": "Why?"},
        {"from": "gpt", "value": "So.", "train": False},
    ]
    turns += [{"from": "human", "value": "Who?"}, {"from": "gpt", "value": "You."}]
    [row] = load_rows(write(tmp_path, {"conversations": turns})).rows
    encoded = encode_for_training(row["messages"], tokenizer)
    trained = [t for t, m in zip(encoded.input_ids, encoded.assistant_mask, strict=True) if m]
    assert tokenizer.decode(trained) == "You.<|im_end|>"


# --- the hub ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[tuple]:
    asked: list[tuple] = []

    def load_dataset(name: str, *, split: str, revision: str | None):
        asked.append((name, split, revision))
        if split == "offline":
            raise ConnectionError("no network")
        return [*ROWS, {"messages": None, "text": "x"}, ROWS[0] | {"prompt": None}]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    return asked


def test_a_set_of_the_hub_is_numbered_by_rows(hub: list[tuple]):
    loaded = load_rows("owner/na.me-1@v1.0", split="train[:9]", on_bad_row="drop")
    assert hub == [("owner/na.me-1", "train[:9]", "v1.0")]
    assert loaded.lines == [1, 2, 3, 5] and loaded.rows == [*ROWS, ROWS[0]]
    assert loaded.first_dropped == {
        "unknown format": "row 4: unknown format: its fields are text; accepted are messages, "
        "prompt and completion, instruction and output, or conversations"
    }
    assert loaded.source == "owner/na.me-1@v1.0"
    with pytest.raises(ValueError, match=r"^owner/name, row 4: unknown format: "):
        load_rows("owner/name")
    assert hub[1] == ("owner/name", "train", None)


def test_an_offline_hub_says_what_to_do(hub: list[tuple]):
    problem = (
        r"^owner/name is no file here, and its split 'offline' \(revision v1\) could not be "
        r"read from the hub \(ConnectionError: no network\): look at name and network, or give"
    )
    with pytest.raises(AssetError, match=problem):
        load_rows("owner/name@v1", split="offline")
    assert hub == [("owner/name", "offline", "v1")]


def test_a_file_comes_before_the_hub(hub: list[tuple], tmp_path: Path, monkeypatch):
    (tmp_path / "owner").mkdir()
    write(tmp_path / "owner", *ROWS, name="name")
    monkeypatch.chdir(tmp_path)
    assert load_rows("owner/name").lines == [1, 2, 3] and hub == []


# --- splits ---


def own(rows: list[dict[str, Any]], folder: Path) -> OwnRows:
    return load_rows(write(folder, *rows))


@pytest.mark.parametrize(
    ("count", "validation", "held"),
    [(2, None, 1), (12, None, 1), (30, None, 3), (3000, None, 200), (30, 7, 7), (30, 29, 29)],
)
def test_rows_are_held_out(count: int, validation: int | None, held: int, tmp_path: Path):
    rows = own([pair(f"How much is {i}?", id=i) for i in range(count)], tmp_path)
    train, val = split_rows(rows, validation)
    assert (len(train.rows), len(val.rows)) == (count - held, held)
    assert sorted(train.lines + val.lines) == rows.lines
    for part in (train, val):
        assert part.lines == sorted(part.lines) and part.format == PAIR
        assert part.rows == [rows.rows[line - 1] for line in part.lines]
        assert part.ignored == ("id",) and len(part.sha256) == 64
    assert train.source == rows.source and val.source == f"{rows.source}, held out"
    assert train.sha256 != val.sha256 and rows.sha256 not in (train.sha256, val.sha256)


def test_the_seed_decides(tmp_path: Path):
    rows = own([pair(f"How much is {i}?") for i in range(100)], tmp_path)
    first = split_rows(rows, seed=1)
    assert first == split_rows(rows, None, 1) != split_rows(rows)
    held = Counter(line for seed in range(60) for line in split_rows(rows, seed=seed)[1].lines)
    assert len(held) > 90 and max(held.values()) < 20  # every row is held out now and then


def test_nothing_is_held_out_where_that_is_asked(tmp_path: Path):
    rows = own([pair("a")], tmp_path)
    train, val = split_rows(rows, 0)
    assert train.rows == rows.rows and train.sha256 == rows.sha256 and not val.rows


def test_the_same_question_lies_on_one_side(tmp_path: Path):
    generator = random.Random(0)
    for trial in range(20):
        asked = [f"{a} and {b}?" for a in range(5) for b in "xyz"]
        drawn = generator.choices(asked, k=40)
        spoken = [generator.choice([q, q.upper(), " ".join(q.split()[::-1])]) for q in drawn]
        rows = own([pair(q, f"So {i}.") for i, q in enumerate(spoken)], tmp_path)
        train, val = split_rows(rows, generator.choice([None, 1, 8, 15]), trial)
        assert train.rows and val.rows
        parts = dict(zip(("train", "val"), questions_of(train.rows, val.rows), strict=True))
        assert not find_leaks(parts)


def test_conversations_that_open_alike_stay_together(tmp_path: Path):
    def talk(*questions: str) -> dict[str, Any]:
        turns = [[{"role": "user", "content": q}, ROWS[0]["messages"][1]] for q in questions]
        return {"messages": [message for turn in turns for message in turn]}

    rows = own([talk("Why?"), talk("Why?", "And?"), talk("Who?"), talk("Where?")], tmp_path)
    for seed in range(10):
        for part in split_rows(rows, 2, seed):
            assert (1 in part.lines) == (2 in part.lines)


def test_a_split_that_cannot_be_is_refused(tmp_path: Path):
    rows = own([pair("Why?"), pair("why"), pair("WHY")], tmp_path)
    with pytest.raises(
        ValueError, match=r"^all 3 rows of .* ask the same question, so none can"
    ):
        split_rows(rows)
    for number in (-1, 3, 4):
        with pytest.raises(ValueError, match=f"^validation is {number} and there are 3 rows: "):
            split_rows(rows, number)
    signs = own([pair("👍"), pair("👎")], tmp_path)  # no words, and yet two questions
    assert [len(part.rows) for part in split_rows(signs)] == [1, 1]


def test_a_group_that_does_not_fit_stays(tmp_path: Path):
    rows = own([pair("Why?")] * 8 + [pair("Who?")] * 2, tmp_path)
    for seed in range(5):
        train, val = split_rows(rows, 1, seed)
        assert (len(train.rows), len(val.rows)) == (8, 2)  # one row more, rather than none


def test_questions_include_a_system_message_that_differs(tmp_path: Path):
    same = own([pair("Why?", system="S"), pair("Who?", system="S")], tmp_path)
    assert questions_of(same.rows) == [["Why?", "Who?"]]
    differ = own([pair("Why?", system="S"), pair("Why?", system="T"), pair("Why?")], tmp_path)
    assert questions_of(differ.rows) == [["S\n\nWhy?", "T\n\nWhy?", "Why?"]]
    assert questions_of(same.rows, differ.rows)[0] == ["S\n\nWhy?", "S\n\nWho?"]
