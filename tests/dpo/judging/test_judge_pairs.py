"""The judge's pairs: balanced, apart from the prompts of Stage 2, and checked line by line."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.dpo.data.prompts import everyday_prompts
from posttrain.dpo.judging import judge_pairs as module
from posttrain.dpo.judging.judge_pairs import (
    CONTENT,
    WAYS,
    JudgePair,
    judge_pairs,
    read_judge_pairs,
    training_rows,
)
from posttrain.sft.data.duplicates import in_words, same_words_key

PAIRS = judge_pairs()
ROW: dict[str, Any] = {
    "id": "train-1", "part": "train", "question": "Is it late?",
    "better": "Yes, you should go.", "worse": "It is said to be late.", "why": ["impersonal"],
}  # fmt: skip


def key(question: str) -> str:
    return same_words_key(in_words(question))


def test_there_are_enough_of_each_way():
    assert len(PAIRS) == 241
    assert len(judge_pairs("train")) == 169 and len(judge_pairs("test")) == 72
    assert judge_pairs("train") + judge_pairs("test") == PAIRS
    ways = Counter(way for pair in PAIRS for way in pair.why)
    assert set(ways) == set(WAYS) and min(ways.values()) >= 20
    tested = Counter(way for pair in judge_pairs("test") for way in pair.why)
    assert min(tested[way] for way in WAYS) >= 8
    assert sum(pair.in_form for pair in PAIRS) >= 40


def test_no_question_is_asked_twice_or_by_stage_2():
    asked = [key(pair.question) for pair in PAIRS]
    assert len(set(asked)) == len(asked)
    train, test = everyday_prompts(600, 300)
    assert not set(asked) & {key(prompt.text) for prompt in train + test}
    assert key(train[0].text) == key(train[0].text.upper())  # the key would have found it


def test_no_answer_stands_twice():
    texts = [text for pair in PAIRS for text in (pair.better, pair.worse)]
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("part", [None, "train", "test"])
def test_length_says_nothing(part: Any):
    pairs = judge_pairs(part)
    longer = [len(pair.better.split()) - len(pair.worse.split()) for pair in pairs]
    assert abs(sum(longer) / len(longer)) < 1.5  # of about 33 words
    assert 0.4 < sum(words > 0 for words in longer) / len(longer) < 0.6


def test_answers_are_a_few_sentences():
    for pair in PAIRS:
        for text in (pair.better, pair.worse):
            assert 18 <= len(text.split()) <= 60, text
            assert text == text.strip() and text.isascii() and "\n" not in text
            assert re.search(r"[.!?]$", text) and not re.search(r"^\s*[-*\d]+[.)]? ", text)


def test_no_single_word_decides():
    """How often is it right that the answer with a certain word is better, or worse?"""
    held = [
        tuple(set(re.findall(r"[a-z']+", text.lower())) for text in (pair.better, pair.worse))
        for pair in PAIRS
    ]
    for word in set().union(*(better | worse for better, worse in held)):
        gain = sum((word in better) - (word in worse) for better, worse in held)
        assert abs(gain) < 0.35 * len(PAIRS), word
    openings = Counter(pair.better.split()[0].strip(",.:").lower() for pair in PAIRS)
    assert max(openings.values()) < 0.2 * len(PAIRS) and len(openings) > 80
    assert sum("because" in pair.better.lower() for pair in PAIRS) < 0.05 * len(PAIRS)


def test_the_judge_shares_no_module_with_the_rules():
    """What judges must not import what builds."""
    for file in Path(module.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert not re.search("persona|building", node.module or ""), file
            if isinstance(node, ast.Import):
                assert not any("persona" in alias.name for alias in node.names), file


def test_a_changed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "judge_pairs.jsonl"
    file.write_bytes(module.FILE.read_bytes().replace(b'"test"', b'"train"', 1))
    monkeypatch.setattr(module, "FILE", file)
    with pytest.raises(AssetError, match="Install the package again"):
        judge_pairs()


def test_a_part_that_is_none():
    part: Any = "held_out"
    with pytest.raises(ValueError, match="part is 'held_out': give 'train', 'test' or None"):
        judge_pairs(part)


def written(folder: Path, *rows: Any) -> Path:
    file = folder / "pairs.jsonl"
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def test_own_pairs_are_read(tmp_path: Path):
    second = {**ROW, "id": "b", "why": ["late", "filler"]}
    found = read_judge_pairs(written(tmp_path, ROW, second))
    assert found[0] == JudgePair(**{**ROW, "why": ("impersonal",)})
    assert found[1].why == ("late", "filler") and not found[1].in_form
    alone = replace(found[0], why=("wrong", "repeats"))
    assert alone.in_form and CONTENT.issuperset(alone.why)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": " "}, r"question is ' ': give a text that is not blank"),
        ({"better": None}, r"better is None: give a text"),
        ({"id": ""}, r"id is '': give a text"),
        ({"part": "dev"}, r"part is 'dev': give 'train' or 'test'"),
        ({"worse": "Yes, you should go."}, r"both answers are 'Yes, you should go\.'"),
        ({"why": []}, r"why is \(\): give one or two of late, no reason"),
        ({"why": ["late", "late"]}, r"why is \('late', 'late'\): give one or two"),
        ({"why": ["late", "wrong", "vague"]}, r"give one or two"),
        ({"why": ["slow"]}, r"why is \('slow',\): give one or two"),
        ({"why": "late"}, r"why is 'late': give one or two"),
        ({"why": [["late"]]}, r"give one or two"),
        ({"note": "x"}, r"the row has .*: give an object with id, part, question"),
    ],
)
def test_a_row_that_is_no_pair_is_named_by_its_line(
    tmp_path: Path, changed: dict[str, Any], message: str
):
    file = written(tmp_path, {**ROW, "id": "first"}, "", {**ROW, **changed})
    with pytest.raises(AssetError, match=rf"pairs\.jsonl, line 3: .*{message}"):
        read_judge_pairs(file)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW, r"line 2: the id 'train-1' stands in line 1 already"),
        ({**ROW, "id": "b", "part": "test", "question": "is  it LATE?"},
         r"line 2: 'is it LATE\?' is a question of the part 'train' in line 1"),
        ('{"id": "b", ', r"line 2: "),
        ([1, 2], r"line 2: the row has \[1, 2\]"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_each_other(tmp_path: Path, row: Any, message: str):
    with pytest.raises(AssetError, match=message):
        read_judge_pairs(written(tmp_path, ROW, row))


def test_rows_to_train_on():
    train = judge_pairs("train")
    assert training_rows(train[::-1]) == sorted(train, key=lambda pair: pair.id)
    with pytest.raises(ValueError, match="there are no pairs"):
        training_rows([])
    with pytest.raises(ValueError, match="two pairs have the id 'train-001'"):
        training_rows([*train, train[0]])
    with pytest.raises(
        ValueError, match="is a pair of the part 'test': train on 'train' alone"
    ):
        training_rows([*train, judge_pairs("test")[0]])
