"""The report on a training file: each planted fault is found, and a clean file has none."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from posttrain.cli import app
from posttrain.core.errors import AssetError
from posttrain.sft.chat.template import encode_chat
from posttrain.sft.data.own_rows import OwnRows, load_rows, split_rows
from posttrain.sft.data.report import check_command, check_data

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WORDS = (
    "river stone apple window garden silver morning paper engine candle forest market".split()
)


def pair(question: str, answer: str = "So.", **fields: Any) -> dict[str, Any]:
    return {"prompt": question, "completion": answer, **fields}


def clean(count: int = 60, seed: int = 0) -> list[dict[str, Any]]:
    """Rows with nothing to mend."""
    generator = random.Random(seed)
    rows = []
    for index in range(count):
        said = " ".join(generator.sample(WORDS, 6))
        rows.append(pair(f"Spell {seed} {index}: {said}", f"{said.split()[0]} is {index}."))
    return rows


def write(folder: Path, rows: list[Any], name: str = "my.jsonl") -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return str(folder / name)


def own(folder: Path, rows: list[Any], name: str = "my.jsonl") -> OwnRows:
    return load_rows(write(folder, rows, name), on_bad_row="drop")


def field(lines: list[str], label: str) -> list[str]:
    """The text of the fields with a label, one string each."""
    found: list[str] = []
    inside = False
    for line in lines:
        if line[:16].strip():
            inside = line[:16].strip() == label
            found += [""] if inside else []
        if inside:
            found[-1] = f"{found[-1]} {line[16:]}".strip()
    return found


# --- clean files ---


def test_a_clean_file_has_nothing_to_mend(tmp_path: Path):
    report = check_data(own(tmp_path, clean()), own(tmp_path, clean(9, 1), "val.jsonl"))
    assert not report.must_mend and not report.may_mend
    for found in (report.duplicates, report.alike, report.conflicts, report.leaks):
        assert found == []
    lines = report.lines()
    assert lines[-1] == "mend first      nothing stands out" and repr(report) == "\n".join(
        lines
    )
    assert field(lines, "rows") == ["60 of prompt / completion", "9 of prompt / completion"]
    assert field(lines, "leaks") == ["0 rows"] and field(lines, "dropped") == ["0 rows"] * 2


def test_split_rows_leave_nothing_to_mend(tmp_path: Path):
    rows = clean() + [pair(row["prompt"], row["completion"]) for row in clean(20)]
    report = check_data(*split_rows(own(tmp_path, rows)))
    assert report.leaks == [] and not report.must_mend


def test_alpacas_seed_tasks(data: Path, tokenizer: PreTrainedTokenizerBase):
    file = data / "alpaca_seed" / "seed_tasks.jsonl"
    if not file.is_file():
        pytest.skip("POSTTRAIN_DATA has no alpaca_seed/seed_tasks.jsonl")
    report = check_data(*split_rows(load_rows(file)), tokenizer, max_length=2000)
    assert not report.must_mend and report.train.roles == {"user": 157, "assistant": 157}
    assert max(map(len, report.lines())) <= 80
    assert 0 < report.train.trained < report.train.lengths.total


# --- planted faults ---


def test_leaks_are_found(tmp_path: Path):
    train = own(tmp_path, ["", *clean(), pair("How FAR is it, to Rome?")])
    held = own(tmp_path, [*clean(3, 1), pair("how far is it to rome"), *clean(1)], "val.jsonl")
    report = check_data(train, held)
    assert report.leaks == [(2, 5), (62, 4)]
    assert report.must_mend == ["take out of one file what stands in both: 2 questions"]
    assert field(report.lines(), "leaks") == [
        "2 rows: lines 5 (training, line 2), 4 (training, line 62)"
    ]


def test_every_held_out_copy_of_a_question_is_a_leak(tmp_path: Path):
    train = own(tmp_path, [pair("Why not?"), pair("why not"), *clean()])
    held = own(tmp_path, [pair("Why, not?"), pair("Not why")], "val.jsonl")
    assert {line for _, line in check_data(train, held).leaks} == {1, 2}


def test_sums_and_signs_are_told_apart(tmp_path: Path):
    asked = ["3 - 5?", "3 + 5", "5 - 3", "3 -5", "👍", "👎", "On 2024-05-01?", "On 2024-01-05?"]
    rows = [pair(q, f"Answer {i}") for i, q in enumerate(asked)]
    report = check_data(own(tmp_path, rows), own(tmp_path, [pair("3-5")], "val.jsonl"))
    assert [train for train, _ in report.leaks] == [1]
    report = check_data(own(tmp_path, rows), own(tmp_path, [pair(" 👎")], "val.jsonl"))
    assert [train for train, _ in report.leaks] == [6]
    assert report.duplicates == []


def test_near_leaks_and_near_repeats_are_found(tmp_path: Path):
    text = " ".join(WORDS)
    rows = [*clean(), pair(text), pair(f"{text} sky", "Ja.")]
    held = own(tmp_path, [pair(f"{text} sea")], "val.jsonl")
    report = check_data(own(tmp_path, rows), held)
    assert report.alike == [(61, 62)] and report.leaks == []
    assert report.near_leaks in ([(61, 1)], [(62, 1)]) and not report.must_mend
    assert report.may_mend == ["read what is nearly asked in training too: 1 question"]


def test_repeated_rows_are_found(tmp_path: Path):
    rows = clean()
    report = check_data(own(tmp_path, [*rows, rows[3], pair(rows[5]["prompt"], "Else.")]))
    assert report.duplicates == [(4, 61)] and report.alike == []
    assert report.may_mend == ["remove what repeats another row of training: 1 row"]
    assert field(report.lines(), "repeated") == ["1 row: line 61 (as line 4)"]


def test_answers_that_disagree_are_found(tmp_path: Path):
    asked = [
        pair("Capital of France?", "Paris"),
        pair("capital  of France", " paris. "),  # the same
        pair("Capital of France?", "Lyon"),
        pair("Capital of Italy?", "Rome"),
        pair("CAPITAL of Italy?", "Milan"),
        pair("What is 3 - 5?", "-2"),
        pair("What is 3 + 5?", "8"),  # another question
        pair("Is it so?", "-1"),
        pair("Is it so?", "1"),
        pair("Capital of France?", "A river.", system="Be wrong."),  # of another system message
    ]
    report = check_data(own(tmp_path, [*clean(), *asked]))
    assert report.conflicts == [(61, 63), (64, 65), (68, 69)]
    assert report.must_mend[0] == "keep one answer to each of 3 questions with several"
    assert field(report.lines(), "several answers") == [
        "3 questions: lines 61 and 63, 64 and 65, 68 and 69"
    ]


def test_only_the_same_course_of_a_conversation_can_disagree(tmp_path: Path):
    def talk(*texts: str, weight: int = 1) -> dict[str, Any]:
        roles = ["user", "assistant"] * len(texts)
        messages: list[dict] = [
            {"role": role, "content": text} for role, text in zip(roles, texts, strict=False)
        ]
        messages[-1]["weight"] = weight
        return {"messages": messages}

    rows = [talk("Hi", "Hello", "Sum?", "5"), talk("Hi", "Hey", "Sum?", "6"), talk("Hi", "Ho")]
    assert check_data(own(tmp_path, rows)).conflicts == []
    rows += [talk("hi", "hello", "sum", "7"), talk("Hi", "Hello", "And?", "So", "Why", "No")]
    assert check_data(own(tmp_path, rows)).conflicts == [(1, 4)]
    asked = {"role": "user", "content": "Hi"}
    quiet = [asked, {"role": "assistant", "content": "No", "weight": 0}]
    loud = [asked, {"role": "assistant", "content": "Ha", "weight": 1}]
    # An answer that is context can be another one: nobody learns it.
    rows = [{"messages": loud}, {"messages": [*loud, *quiet]}, {"messages": [*loud, *loud]}]
    assert check_data(own(tmp_path, rows)).conflicts == []


def test_bad_rows_must_be_mended(tmp_path: Path):
    rows = [*clean(), pair("Why?", ""), '{"prompt": "cut', pair("Why?", " ")]
    report = check_data(own(tmp_path, rows), own(tmp_path, [*clean(1, 1), "5"], "val.jsonl"))
    assert report.must_mend == [
        "mend or remove 3 bad rows of my.jsonl",
        "mend or remove 1 bad row of val.jsonl",
    ]
    dropped = field(report.lines(), "dropped")
    assert dropped[0].startswith("3 rows 2 x line 61: empty answer: message 1 (assistant)")
    assert "1 x line 62: broken JSON: Unterminated string" in dropped[0]


def test_letters_that_are_broken_are_found(tmp_path: Path):
    rows = [*clean(), pair("a\u200bb"), pair("c\ufffd"), pair("d\u200b\u0007 e")]
    rows += [
        pair(text.encode().decode("cp1252")) for text in ("Überall", "né", "it\u2019s", "“ no")
    ]
    rows += [pair("naïve Ævi 👩‍👩‍👧 ½ ÂRBOL Ã À “so” — שלום")]
    report = check_data(own(tmp_path, rows))
    assert report.train.mojibake == [64, 65, 66, 67]
    assert report.train.odd == {"\u200b": 2, "\ufffd": 1, "\u0007": 1}
    assert "U+200B in 2 rows" in field(report.lines(), "not printed")[0]
    assert "in lines 64, 65, 66, 67" in report.may_mend[0] and len(report.may_mend) == 2
    assert all(line.isprintable() for line in report.lines())


def test_few_rows_are_few(tmp_path: Path):
    report = check_data(own(tmp_path, clean(1)))
    assert report.may_mend == ["add rows, of more kinds: 1 row to train on"]
    assert check_data(own(tmp_path, clean(50))).may_mend == []


# --- what is counted ---


def test_messages_are_counted(tmp_path: Path):
    turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Yes, it is so"}]
    off = {"role": "assistant", "content": "No", "weight": 0}
    rows = [{"messages": turn}, {"messages": turn[:1] + [off] + turn * 2, "system": "S"}]
    report = check_data(own(tmp_path, rows)).train
    assert report.roles == {"user": 4, "assistant": 4, "system": 1}
    assert (report.exchanges.least, report.exchanges.most, report.context) == (1, 3, 1)
    assert (report.systems, report.without_system) == (1, 1)
    assert report.openings == {"Yes, it is": 3}
    assert report.unit == "characters"
    assert (report.lengths.least, report.lengths.most, report.lengths.total) == (14, 32, 46)
    assert report.trained == 39
    lines = check_data(own(tmp_path, rows)).lines()
    assert field(lines, "answers") == [
        "4, 1 to 3 in a row 1 of them are context and not trained"
    ]
    assert field(lines, "first words") == ["1 different in 3 answers 3 x Yes, it is"]
    assert field(lines, "trained") == ["39 characters, 85% of all"]


def test_tokens_are_counted(tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    rows = own(tmp_path, clean())
    chats = [encode_chat(row["messages"], tokenizer) for row in rows.rows]
    lengths = [len(chat.input_ids) for chat in chats]
    limit = sorted(lengths)[30]
    report = check_data(rows, None, tokenizer, max_length=limit).train
    assert report.unit == "tokens" and report.lengths.total == sum(lengths)
    assert report.trained == sum(sum(chat.assistant_mask) for chat in chats)
    long = [line for line, n in zip(rows.lines, lengths, strict=True) if n > limit]
    assert report.too_long == long and 0 < len(long) < 30
    plain = check_data(rows, None, tokenizer, "chatml").train
    assert plain.lengths.total < report.lengths.total  # without the default system message


def test_rows_that_are_too_long(tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    rows = own(tmp_path, [*clean(), pair("Why?", "because " * 200)])
    report = check_data(rows, None, tokenizer, max_length=128)
    assert not report.must_mend
    assert report.may_mend == ["leave out or shorten what is over 128 tokens in my.jsonl: 1"]
    assert field(report.lines(), "over 128") == ["1 row: line 61"]
    report = check_data(rows, None, tokenizer, max_length=9)
    assert report.must_mend == [
        "every row of my.jsonl is longer than 9 tokens: raise the limit"
    ]


def test_rows_that_the_tokenizer_refuses(tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    rows = own(tmp_path, [*clean(), pair("cp <filename>"), pair("\x04")])
    assert not check_data(rows).must_mend
    report = check_data(rows, None, tokenizer)
    assert list(report.train.refused) == [61, 62]
    assert report.must_mend[0].startswith(
        "2 rows of my.jsonl cannot be encoded, line 61 first: message 0 (user) contains '<file"
    )
    assert report.train.lengths.least > 0


def test_long_texts_keep_the_width(tmp_path: Path):
    rows = [pair("Why?", "x" * 300), pair("Who?", "x" * 300), pair("y" * 900, "日本語" * 90)]
    rows += [pair("Why?", "", **{f"a_long_name_of_a_field_{i}": 1 for i in range(9)})]
    report = check_data(own(tmp_path, rows), own(tmp_path, rows, "v" * 90 + ".jsonl"))
    assert max(map(len, report.lines())) <= 80


def test_what_cannot_be_examined_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerBase):
    rows = own(tmp_path, clean())
    with pytest.raises(ValueError, match="max_length is 9: give at least 1 token, and a token"):
        check_data(rows, max_length=9)
    with pytest.raises(ValueError, match="max_length is 0: give at least 1 token"):
        check_data(rows, None, tokenizer, max_length=0)
    with pytest.raises(ValueError, match="chat_format is 'alpaca': choose one of"):
        check_data(rows, None, tokenizer, "alpaca")
    with pytest.raises(ValueError, match=r"has no special token '<\|begin_of_text\|>'"):
        check_data(rows, None, tokenizer, "llama-3")
    with pytest.raises(ValueError, match=r"held out holds no rows to look at"):
        check_data(*split_rows(rows, 0))


# --- the command ---


def run(*arguments: str):
    return CliRunner().invoke(app, ["data", "check", *arguments])


def test_the_command_exits_with_0_on_a_clean_file(tmp_path: Path):
    file = write(tmp_path, clean())
    result = run(file)
    assert result.exit_code == 0 and result.output.startswith(f"file            {file[:9]}")
    assert result.output.endswith("mend first      nothing stands out\n")
    assert run(file, "--on-bad-row", "error").exit_code == 0


def test_the_command_exits_with_1_where_something_must_be_mended(tmp_path: Path):
    file, held = write(tmp_path, clean()), write(tmp_path, clean(1), "val.jsonl")
    result = run(file, "--val", held)
    assert result.exit_code == 1 and "mend first      take out of one file" in result.output
    bad = write(tmp_path, [*clean(), pair("Why?", "")], "bad.jsonl")
    assert run(bad).exit_code == 1


def test_the_command_exits_with_2_where_it_cannot_read(tmp_path: Path):
    bad = write(tmp_path, [*clean(), pair("Why?", "")])
    for arguments in (
        (bad, "--on-bad-row", "error"),
        (str(tmp_path / "missing.jsonl"),),
        (bad, "--max-length", "9"),
        (bad, "--chat-format", "chatml"),
        (bad, "--model", str(tmp_path)),
    ):
        result = run(*arguments)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, arguments
        assert result.stderr.startswith("posttrain: ")
    assert run(bad, "--on-bad-row", "skip").exit_code == 2
    assert run(bad, "--max-length", "0").exit_code == 2


def test_the_command_takes_the_models_own_format(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
):
    file = write(tmp_path, clean(3))
    report = check_command(file, None, "smollm2-135m-instruct", None, None, "drop")
    own_format = check_data(load_rows(file), None, tokenizer, "smollm2")
    assert report.train.lengths == own_format.train.lengths
    report = check_command(file, None, "smollm2-135m-instruct", "chatml", 999, "drop")
    assert report.train.lengths.total < own_format.train.lengths.total
    other = copy.deepcopy(tokenizer)
    other.chat_template = "{{ messages }}"
    other.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"the chat template of .* is none of chatml, smollm"):
        check_command(file, None, str(tmp_path / "model"), None, None, "drop")


def test_a_tokenizer_of_the_hub_that_is_not_there(tmp_path: Path, monkeypatch):
    def from_pretrained(name: str, **options: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", from_pretrained)
    with pytest.raises(
        AssetError, match=r"the tokenizer of a/b could not be read .*\(OSError\)"
    ):
        check_command(write(tmp_path, clean(3)), None, "a/b", None, None, "drop")
