"""posttrain data check on pairs: what is wrong with a file comes first, by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from posttrain.cli import app
from posttrain.dpo.data.pairs import load_pairs
from posttrain.dpo.data.report import check_pairs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def row(prompt: str, chosen: str = "So it is.", rejected: str = "It is not.") -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def write(folder: Path, *rows: Any, name: str = "my.jsonl") -> str:
    file = folder / name
    file.write_text("\n".join(map(json.dumps, rows)))
    return str(file)


def clean(n: int) -> list[dict[str, str]]:
    """Pairs whose answers are equally long and say each something else."""
    return [row(f"q {i}?", f"yes {i} a", f"no {i} b") for i in range(n)]


def check(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["data", "check", *arguments])


def test_a_good_file_has_nothing_to_mend(tmp_path: Path):
    done = check(write(tmp_path, *clean(200)))
    assert done.exit_code == 0
    lines = done.output.splitlines()
    assert lines[lines.index("dropped         0 rows") - 1 :] == [
        "pairs           200 of prompt / chosen / rejected",
        "dropped         0 rows",
        "words           chosen - rejected: 0 [0, 0], n = 200, p = 1",
        "longer wins     all are equally long",
        "repeated        0 pairs",
        "contradicted    0 pairs",
        "same prompt     0 pairs",
        "",
        "mend first      nothing stands out",
    ]


def test_what_is_wrong_is_said_by_line(tmp_path: Path):
    file = write(
        tmp_path, row("a"), row("b"), row("a"), row("b", "It is not.", "So it is."),
        row("c", "So.", "So. Or not."), row("d", "", "x"), row("e "), row("f", "x"),
    )  # fmt: skip
    held = write(tmp_path, row("g"), row("B?"), name="held.jsonl")
    done = check(file, "--val", held)
    assert done.exit_code == 1
    text = " ".join(done.output.split())
    for said in (
        "pairs 6 of prompt / chosen / rejected dropped 2 rows",
        "1 x line 6: empty answer: in the prompt with 'chosen'",
        "1 x line 7: white space at the prompt's end",
        "repeated 1 pair: 3 (as line 1)",
        "contradicted 1 pair: 4 (as line 2)",
        "same prompt 2 pairs",
        "leaks 1 pair: 2 (training, line 2)",
        "mend first take out of one file the prompts that stand in both: 1 pair of those held",
        "then decide which answer is better: 1 pair with an earlier one's answers swapped",
        "then mend or remove 2 bad rows of my.jsonl",
        "then look at 1 pair of which one answer begins the other: lines 5",
        "then remove what repeats another pair: 1 pair",
        "then add pairs: 6 pairs to train on",
    ):
        assert said in text, said
    assert all(len(line) <= 80 for line in done.output.splitlines() if "/" not in line)


def test_length_that_tells_the_label_is_said(tmp_path: Path):
    rows = [row(f"q {i}?", f"yes {i} and much more", "no") for i in range(200)]
    report = check_pairs(load_pairs(write(tmp_path, *rows)))
    assert not report.must_mend
    assert report.may_mend[0].startswith(
        "length alone predicts the label: the longer answer is"
    )
    assert "longer wins     right in 1 [0.981, 1], n = 200" in report.lines()
    assert repr(report) == "\n".join(report.lines())


def test_tokens_are_counted_with_a_tokenizer(
    tmp_path: Path, tokenizer: PreTrainedTokenizerBase
):
    rows = [*clean(5), row("long", "word " * 90, "other " * 90), row("x", "a <repo_name>", "b")]
    pairs = load_pairs(write(tmp_path, *rows))
    report = check_pairs(pairs, None, tokenizer, "smollm2", 80)
    assert report.encoded is not None and len(report.encoded.pairs) == 5
    assert report.lengths is not None and report.lengths.unit == "tokens"
    assert any(line.startswith("too long        1 pair, the first: pair 5: ") for line in
               report.lines())  # fmt: skip
    assert report.must_mend == ["mend or remove 1 pair that cannot be encoded"]
    with pytest.raises(ValueError, match="max_length is 80: give a tokenizer"):
        check_pairs(pairs, max_length=80)


def test_the_command_knows_pairs_from_rows(tmp_path: Path):
    rows = [{"prompt": f"q {i}", "completion": f"a {i}"} for i in range(3)]
    shown = check(write(tmp_path, *rows)).output
    assert "rows            3 of prompt / completion" in shown and "longer wins" not in shown
    one = check(write(tmp_path, row("a")), "--on-bad-row", "error")
    assert one.exit_code == 0 and "pairs           1 of" in one.output
    bad = check(write(tmp_path, row("a", "")), "--on-bad-row", "error")
    assert bad.exit_code == 2 and bad.output.startswith("posttrain: ")
    limit = check(write(tmp_path, row("a")), "--max-length", "9")
    assert limit.exit_code == 2 and "name the model with --model" in limit.output
