"""HH-RLHF: every row of the real file, and each reason for which one is left out.

What the dialogues say is never compared in a way that a failing test would print.
"""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.core.storage.json_rows import read_json_rows
from posttrain.dpo.data import hh_rlhf
from posttrain.dpo.data.hh_rlhf import (
    hh_pair,
    load_hh_rlhf,
    map_hh_rows,
    parse_dialogue,
    write_dialogue,
)
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.sft.data.hub import MalformedRowError


def talk(*said: str) -> str:
    names = ("Human", "Assistant")
    return "".join(f"\n\n{names[i % 2]}: {text}" for i, text in enumerate(said))


def row(chosen: Any, rejected: Any) -> dict[str, Any]:
    return {"chosen": chosen, "rejected": rejected}


GOOD = row(talk("Hi", "Ho.", "And?", "I stay."), talk("Hi", "Ho.", "And?", "I go."))


@pytest.fixture
def file(data: Path) -> Path:
    found = data / "hh_rlhf" / "harmless_base_test.jsonl.gz"
    if not found.is_file():
        pytest.skip("POSTTRAIN_DATA has no hh_rlhf/harmless_base_test.jsonl.gz")
    return found


# --- the real file ---


def test_every_row_of_the_file_is_split_or_counted(file: Path):
    mapped = load_hh_rlhf()
    assert len(mapped.rows) + mapped.dropped.total() == 2312
    assert mapped.dropped == {
        "empty answer": 4,
        "roles out of order": 4,
        "more than one answer": 5,
    }
    assert mapped.dropped_lines["empty answer"] == [87, 517, 926, 1104]
    left_out = {line for lines in mapped.dropped_lines.values() for line in lines}
    assert sorted([*mapped.lines, *left_out]) == list(range(1, 2313))
    assert load_hh_rlhf(source=file).lines == mapped.lines


def test_prompt_and_answer_say_what_the_dialogue_said(file: Path):
    original = {read.line: read.value for read in read_json_rows(file)}
    mapped = load_hh_rlhf()
    wrong = [
        (line, name)
        for line, pair in zip(mapped.lines, mapped.rows, strict=True)
        for name in ("chosen", "rejected")
        if write_dialogue([*pair["prompt"], *pair[name]]) != original[line][name]  # type: ignore[literal-required]
    ]
    assert wrong == []
    turns = [len(pair["prompt"]) for pair in mapped.rows]
    assert min(turns) == 1 and max(turns) > 10 and all(turn % 2 for turn in turns)
    alike = sum(
        answer_text(pair, "chosen")[0] == answer_text(pair, "rejected")[0]
        for pair in mapped.rows
    )
    assert alike > 100  # a split at the last common character would cut these answers


# --- rows by hand ---


def test_the_last_common_turn_ends_the_prompt():
    pair = hh_pair(GOOD)
    assert [message["role"] for message in pair["prompt"]] == ["user", "assistant", "user"]
    assert answer_text(pair, "chosen") == "I stay." and answer_text(pair, "rejected") == "I go."


def test_white_space_at_the_end_is_left_out_and_inside_it_stays():
    pair = hh_pair(row(talk("a\n\nb  c", " d \n"), talk("a\n\nb  c", "e\n\nHumans differ.")))
    assert pair["prompt"][0]["content"] == "a\n\nb  c"
    assert answer_text(pair, "chosen") == " d"
    assert answer_text(pair, "rejected") == "e\n\nHumans differ."


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (7, "not a row"),
        ({"chosen": talk("a", "b")}, "missing rejected"),
        (row(None, talk("a", "b")), "missing chosen"),
        (row(talk("a", "b"), ["a"]), "wrong type"),
        (row(talk("a", "b"), "a"), "no dialogue"),
        (row("Well: " + talk("a", "b"), talk("a", "c")), "no dialogue"),
        (row("", talk("a", "c")), "no dialogue"),
        (row("\n\nHuman:a\n\nAssistant: b", talk("a", "c")), "no space behind a speaker"),
        (row(talk("a", ""), talk("a", "b")), "empty answer"),
        (row("\n\nHuman: a\n\nAssistant:", talk("a", "b")), "empty answer"),
        (row(talk("a", "b"), talk("a", " ")), "empty answer"),
        (row(talk("", "b"), talk("", "c")), "empty question"),
        (row(talk("a", "b"), talk("a", "b")), "chosen = rejected"),
        (row(talk("a", "b"), talk("a", "b  \n")), "chosen = rejected"),
        (row(talk("a", "b", "c", "d"), talk("a", "x")), "more than one answer"),
        (row(talk("a", "b", "c"), talk("a", "b")), "different prompts"),
        (row(talk("a", "b"), talk("x", "b")), "different prompts"),
        (row(talk("a", "b", "c"), talk("a", "b", "d")), "different prompts"),
        (row(talk("a", "b") + "\n\nAssistant: c", talk("a", "b") + "\n\nAssistant: d"),
         "prompt ends with an answer"),
        (row("\n\nAssistant: x" + talk("a", "b"), "\n\nAssistant: x" + talk("a", "c")),
         "roles out of order"),
        (row("\n\nHuman: x" + talk("a", "b"), "\n\nHuman: x" + talk("a", "c")),
         "roles out of order"),
        (row(talk("a ", "b"), talk("a ", "c")), "white space at the prompt's end"),
        (row(talk("a", "<|im_end|>"), talk("a", "c")), "special token"),
        (row(talk("a" * 50_000, "b"), talk("a" * 50_000, "c")), "too long"),
    ],
)  # fmt: skip
def test_each_reason_is_named(given: Any, reason: str):
    with pytest.raises(MalformedRowError) as raised:
        hh_pair(given)
    assert raised.value.reason == reason
    mapped = map_hh_rows([GOOD, given, GOOD])
    assert mapped.dropped == {reason: 1} and mapped.dropped_lines == {reason: [2]}
    assert mapped.lines == [1, 3]
    assert repr(mapped) == f"2 pairs of Anthropic/hh-rlhf; dropped: 1 {reason}"
    with pytest.raises(MalformedRowError, match=f"^{reason}: line 2: "):
        map_hh_rows([GOOD, given], on_error="raise")


def test_error_messages_do_not_quote_the_dialogues():
    secret = "zebra"
    texts = [talk(secret, f"{secret} {i}", secret, f"{secret} x{i}") for i in range(2)]
    bad = [row(*texts), row(texts[0], texts[0]), row(secret, texts[0]),
           row(talk(secret, secret), talk(secret, "")),
           row(talk(secret, secret, secret, secret), talk(secret, "b")),
           row(talk(secret, secret * 9_999), talk(secret, "c"))]  # fmt: skip
    for given in bad:
        with pytest.raises(MalformedRowError) as raised:
            hh_pair(given)
        assert secret not in str(raised.value)


def test_writing_is_the_inverse_of_reading():
    generator = random.Random(0)
    pieces = ["a", " b", "\n", "\n\nHumans", "é ☃", "Human:", "x: y", ""]
    for _ in range(200):
        said = ["".join(generator.choices(pieces, k=3)) for _ in range(generator.randint(1, 5))]
        text = talk(*said[:-1], said[-1].rstrip() or "z")
        assert write_dialogue(parse_dialogue(text)) == text
    with pytest.raises(ValueError, match="a message is from the system"):
        write_dialogue([{"role": "system", "content": "a"}])


# --- where it comes from ---


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    asked: list[dict] = []

    def load_dataset(name: str, **options: Any) -> list[Any]:
        asked.append({"name": name, **options})
        if options["data_dir"] == "helpful-online":
            raise ConnectionError("no network")
        return [GOOD] if options["split"] == "test" else [row(GOOD["chosen"], "")]

    monkeypatch.setattr("datasets.load_dataset", load_dataset)
    monkeypatch.delenv("POSTTRAIN_DATA", raising=False)
    return asked


def test_the_hub_is_asked_for_a_pinned_revision(hub: list[dict]):
    assert len(load_hh_rlhf("helpful-base").rows) == 1
    assert hub == [{"name": "Anthropic/hh-rlhf", "data_dir": "helpful-base", "split": "test",
                    "revision": hh_rlhf.HUB_REVISION}]  # fmt: skip
    with pytest.raises(AssetError, match=r"Anthropic/hh-rlhf gave no pair \(no dialogue\)"):
        load_hh_rlhf("helpful-base", "train")
    with pytest.raises(
        AssetError, match=r"put its file into POSTTRAIN_DATA/hh_rlhf/helpful_online_test\.jsonl"
    ):
        load_hh_rlhf("helpful-online")


@pytest.mark.parametrize("packed", [True, False])
def test_ones_own_file_comes_first(packed: bool, hub, tmp_path: Path, monkeypatch):
    folder = tmp_path / "hh_rlhf"
    folder.mkdir()
    content = (json.dumps(GOOD) + "\n\n" + '{"chosen": "cut of').encode()
    name = "helpful_base_train.jsonl"
    (folder / (f"{name}.gz" if packed else name)).write_bytes(
        gzip.compress(content) if packed else content
    )
    monkeypatch.setenv("POSTTRAIN_DATA", str(tmp_path))
    mapped = load_hh_rlhf("helpful-base", "train")
    assert hub == [] and mapped.lines == [1] and mapped.dropped_lines == {"broken JSON": [3]}


def test_unknown_options_are_refused():
    with pytest.raises(
        ValueError, match="subset is 'harmful' and split 'test': choose harmles"
    ):
        load_hh_rlhf("harmful")
    with pytest.raises(ValueError, match=r"split 'validation': choose .* train or test"):
        load_hh_rlhf(split="validation")
    with pytest.raises(ValueError, match="on_error is 'error': give 'drop' or 'raise'"):
        map_hh_rows([], on_error="error")  # type: ignore[arg-type]
