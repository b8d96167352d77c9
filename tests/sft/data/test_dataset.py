import json
import subprocess
import sys
from collections import Counter

import pytest

from posttrain.sft.chat.template import encode_chat
from posttrain.sft.data import dataset as data
from posttrain.sft.data.answer_format import parse_answer, write_answer
from posttrain.sft.data.checks import find_leaks
from posttrain.sft.data.tasks import BY_NAME, KINDS


@pytest.fixture(scope="module")
def splits() -> dict[str, list[data.Row]]:
    return data.build_dataset()


def test_sizes_are_as_promised_and_kinds_share_them(splits):
    assert {name: len(rows) for name, rows in splits.items()} == data.SPLITS
    assert sum(data.SPLITS.values()) >= 1_000 and data.SPLITS["test"] >= 300
    for rows in splits.values():
        per_kind = Counter(row["kind"] for row in rows)
        assert set(per_kind) == set(BY_NAME) and len(set(per_kind.values())) == 1
        assert len({row["kind"] for row in rows[:40]}) == 8  # mixed


def test_every_row_is_verified_and_in_the_format(splits):
    for row in (row for rows in splits.values() for row in rows):
        assert [m["role"] for m in row["messages"]] == ["system", "user", "assistant"]
        assert row["messages"][0]["content"] == data.SYSTEM
        parsed = parse_answer(row["messages"][2]["content"])
        assert parsed is not None and parsed.answer == row["answer"]
        assert parsed.confidence == row["confidence"]
        assert data.verify(row, parsed.answer)


def test_no_row_repeats_another_in_any_split(splits):
    rows = [row for part in splits.values() for row in part]
    assert len({row["id"] for row in rows}) == len(rows)
    questions = {
        name: [row["messages"][1]["content"] for row in part] for name, part in splits.items()
    }
    assert find_leaks(questions) == []
    everything = [q for part in questions.values() for q in part]
    assert len({" ".join(sorted(q.lower().split())) for q in everything}) == len(everything)


def test_the_same_seed_gives_the_same_rows_in_another_process(splits):
    code = (
        "from posttrain.sft.data.dataset import build_dataset, dataset_hash\n"
        "print(*[dataset_hash(rows) for rows in build_dataset().values()])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == [data.dataset_hash(rows) for rows in splits.values()]


def test_another_seed_gives_other_rows(splits):
    other = data.build_dataset(1)
    assert {row["id"] for row in other["train"]}.isdisjoint(
        row["id"] for row in splits["train"]
    )
    questions = [{row["messages"][1]["content"] for row in s["test"]} for s in (splits, other)]
    assert len(questions[0] & questions[1]) < 60  # small units and legs come again


def test_a_negative_seed_is_refused():
    with pytest.raises(ValueError, match="seed is -1: give 0 or a number above"):
        data.build_dataset(-1)


def test_an_answer_that_its_verifier_refuses_stops_the_build(monkeypatch):
    monkeypatch.setattr(data, "accepts", lambda kind, answer, entry: kind.name != "legs")
    with pytest.raises(AssertionError, match="the verifier of leg_counting refuses '"):
        data.build_dataset(seed=9)  # one that is not in the cache


def test_a_kind_that_runs_dry_stops_the_build(monkeypatch):
    monkeypatch.setattr(data, "entries", lambda kind, seed: iter(()))
    with pytest.raises(
        AssertionError, match=r"products has only 0 different instances, not \d{3}$"
    ):
        data.build_dataset(seed=9)  # one that is not in the cache


def test_wrong_answers_are_wrong(splits):
    for row in splits["validation"]:
        assert not any(data.verify(row, wrong) for wrong in ("", "x", row["answer"] + "1"))


def test_a_row_from_elsewhere_is_refused():
    with pytest.raises(ValueError, match="kind is 'poem'; known are unit_conversion, sum"):
        data.verify({"kind": "poem", "entry": "{}"}, "roses")


def test_rows_become_a_data_set_and_come_back(splits):
    rows = splits["validation"]
    dataset = data.to_dataset(rows)
    assert dataset.column_names == ["id", "kind", "messages", "answer", "confidence", "entry"]
    back = dataset.to_list()
    assert back == rows and data.dataset_hash(back) == data.dataset_hash(rows)
    assert data.verify(back[0], rows[0]["answer"])


def test_the_hash_sees_every_change(splits):
    rows = splits["validation"]
    changed = [*rows[:-1], {**rows[-1], "answer": rows[-1]["answer"] + " "}]
    hashes = [data.dataset_hash(r) for r in (rows, rows[::-1], rows[:-1], changed)]
    assert len(set(hashes)) == 4 and all(len(h) == 16 for h in hashes)


def test_few_shot_prompts_tell_the_format_and_never_the_answer(splits):
    for row in splits["validation"][:20]:
        prompt = data.few_shot_prompt(row, splits["train"], k=3)
        assert len(prompt) == 8 and prompt[-1] == row["messages"][1]
        assert all(word in prompt[0]["content"] for word in ("Answer:", "Why:", "Confidence:"))
        assert all(parse_answer(m["content"]) for m in prompt[2::2])
        questions = [m["content"] for m in prompt[1:-1:2]]
        kinds = [r["kind"] for r in splits["train"] if r["messages"][1]["content"] in questions]
        assert kinds == [row["kind"]] * 3 and prompt[-1]["content"] not in questions


def test_few_shot_examples_are_shared_by_a_kind_and_drawn_by_the_seed(splits):
    first, second = [r for r in splits["test"] if r["kind"] == "legs"][:2]
    train = splits["train"]
    assert data.few_shot_prompt(first, train)[:-1] == data.few_shot_prompt(second, train)[:-1]
    assert data.few_shot_prompt(first, train) != data.few_shot_prompt(first, train, seed=1)
    assert len(data.few_shot_prompt(first, [], k=0)) == 2
    only = [r for r in train if r["kind"] == "legs"][:1]
    with pytest.raises(
        ValueError, match="k is 1 and there are 0 other rows of the kind 'legs'"
    ):
        data.few_shot_prompt(only[0], only, k=1)


def test_the_format_prompt_describes_what_parses():
    lines = data.FORMAT_SYSTEM.split("\n")[1:4]
    assert parse_answer("\n".join([*lines[:2], "Confidence: low"])) is not None
    assert parse_answer(write_answer("1", "It is.", "medium")) is not None


def test_token_statistics_keep_the_budget(splits, tokenizer):
    statistics = data.describe(splits["train"], tokenizer)
    assert list(statistics) == [kind.name for kind in KINDS] + ["all"]
    total = statistics["all"]
    assert total.rows == sum(total.confidences.values()) == len(splits["train"])
    assert total.tokens <= 75 and total.trained <= 32 and total.longest <= 160
    assert min(total.confidences.values()) > 0.2 * total.rows
    row = max(
        splits["train"], key=lambda r: len(encode_chat(r["messages"], tokenizer).input_ids)
    )
    encoded = encode_chat(row["messages"], tokenizer)
    assert total.longest == len(encoded.input_ids) == statistics[row["kind"]].longest
    weighted = sum(s.tokens * s.rows for name, s in statistics.items() if name != "all")
    assert total.tokens == pytest.approx(weighted / total.rows)
    one = data.describe([row], tokenizer)[row["kind"]]
    assert one.trained == one.longest_trained == sum(encoded.assistant_mask)


def test_reasons_are_short(splits, tokenizer):
    whys = [parse_answer(r["messages"][2]["content"]).why for r in splits["train"]]
    lengths = [len(ids) for ids in tokenizer(whys)["input_ids"]]
    assert sum(lengths) / len(lengths) <= 16 and max(lengths) <= 28


def test_no_rows_are_refused(tokenizer):
    with pytest.raises(ValueError, match="there are no rows to describe"):
        data.describe([], tokenizer)


def test_entries_hold_what_the_verifier_needs_as_json(splits):
    for row in splits["validation"]:
        entry = json.loads(row["entry"])
        assert set(entry) == {"answer", "metadata"} and "difficulty" not in entry["metadata"]
