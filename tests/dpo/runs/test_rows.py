"""posttrain.dpo.runs.rows: no prompt on both sides, no answer cut, no pair lost."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from posttrain.dpo.data.checks import find_prompt_leaks
from posttrain.dpo.data.tokenizing import EncodedPair
from posttrain.dpo.runs.rows import by_pair_length, encode_run_pairs, load_run_pairs
from tests.dpo.runs.conftest import pair_rows, write_rows


def test_no_prompt_lies_on_both_sides(tmp_path: Path) -> None:
    for seed in range(20):
        rng = random.Random(seed)
        rows = [{**rng.choice(pair_rows(12)), "chosen": f"{i}"} for i in range(40)]
        file = write_rows(tmp_path / "pairs.jsonl", rows)
        found = load_run_pairs(str(file), None, "error", seed)
        splits = {"train": found.train.rows, "validation": found.validation.rows}
        assert find_prompt_leaks(splits) == [] and found.validation.rows
        assert len(found.train.rows) + len(found.validation.rows) == 40
        again = load_run_pairs(str(file), None, "error", seed)
        assert again.train.sha256 == found.train.sha256 and found.held_out_here


def test_facts_and_lines(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{**row, "score_chosen": 9} for row in pair_rows(20)]
    file = write_rows(tmp_path / "pairs.jsonl", [*rows, {"prompt": "a"}])
    found = load_run_pairs(str(file), None, "drop", 0)
    facts = found.facts()
    assert facts["train_rows"] == 18 and facts["held_out_rows"] == 2
    assert facts["sha256"] == found.train.sha256 and sum(facts["dropped"].values()) == 1
    json.dumps(facts)
    told = "\n".join(found.lines())
    for part in ("18 to train on, 2 of the same file", "dropped:    1 ", "score_chosen"):
        assert part in told, part


def test_the_line_of_a_pair_that_is_too_long_is_named(tmp_path: Path, tokenizer: Any) -> None:
    rows = pair_rows(5)
    rows[3]["rejected"] = "well " * 60
    file = write_rows(tmp_path / "pairs.jsonl", rows)
    own = load_run_pairs(str(file), None, "error", 0)
    part = next(p for p in (own.train, own.validation) if 4 in p.lines)
    with pytest.raises(ValueError, match=r"line 4: \d+ tokens; at most 70 are taken: raise"):
        encode_run_pairs(part, tokenizer, "smollm2", 70, "error")
    pairs, kept, dropped = encode_run_pairs(own.train, tokenizer, "smollm2", 200, "error")
    assert len(pairs) == len(kept) == len(own.train.rows) and not dropped


def test_pairs_of_a_batch_are_of_nearly_the_same_length() -> None:
    rng = random.Random(0)
    for _ in range(20):
        pairs = [
            EncodedPair((1,) * rng.randint(1, 90), (2, i), (3, i))
            for i in range(rng.randint(4, 60))
        ]
        size = rng.randint(1, 4)
        found = by_pair_length(pairs, size, seed=1)
        assert sorted(found, key=hash) == sorted(pairs, key=hash)
        full = len(found) - len(found) % size
        longest = [max(p.longest for p in found[i : i + size]) for i in range(0, full, size)]
        assert longest[0] == max(longest)

        def padding(order: list[EncodedPair], size: int = size, full: int = full) -> int:
            batches = [order[i : i + size] for i in range(0, full, size)]
            return sum(max(p.longest for p in b) * size for b in batches)

        assert padding(found) <= padding(pairs) + max(p.longest for p in pairs) * size
