"""posttrain label: blind, written at once, resumed where it stopped, and read by load_pairs."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from posttrain.cli import app
from posttrain.core.errors import AssetError
from posttrain.dpo.data.labelling import HELP, LabelSummary, label_pairs
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.data.pairs import OwnPairs, load_pairs


@pytest.fixture
def pairs(tmp_path: Path) -> OwnPairs:
    rows = [
        {"prompt": f"q{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(8)
    ]
    file = tmp_path / "given.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    return load_pairs(file)


class Screen:
    """What is shown, and a person who answers by it."""

    def __init__(self, decide: Callable[[str, str], str | None]) -> None:
        self.lines: list[str] = []
        self._decide = decide

    def say(self, line: str) -> None:
        self.lines.append(line)

    def read(self) -> str | None:
        first, second = (line for line in self.lines[-5:] if re.match(r"\([12]\) ", line))
        return self._decide(first[4:], second[4:])

    def label(self, pairs: OwnPairs, out: Path, seed: int = 0) -> LabelSummary:
        return label_pairs(pairs, out, seed=seed, read=self.read, say=self.say)


def good(first: str, second: str) -> str:
    return "1" if first.startswith("good") else "2"


def bad(first: str, second: str) -> str:
    return "2" if first.startswith("good") else "1"


def test_a_person_who_agrees_gives_the_same_pairs(pairs: OwnPairs, tmp_path: Path):
    out = tmp_path / "mine.jsonl"
    summary = Screen(good).label(pairs, out)
    assert load_pairs(out).rows == pairs.rows
    assert summary.agreement is not None and summary.agreement.share.value == 1
    assert summary.lines()[0] == "8 pairs decided, 0 ties, 0 skipped, 0 left"
    assert summary.lines()[1].startswith("agreement with the file's labels: same label: 1 [")
    assert summary.lines()[2] == f"your pairs: {out}"


def test_a_person_who_disagrees_gives_them_swapped(pairs: OwnPairs, tmp_path: Path):
    summary = Screen(bad).label(pairs, tmp_path / "mine.jsonl")
    mine = load_pairs(tmp_path / "mine.jsonl").rows
    assert all(answer_text(pair, "chosen").startswith("bad") for pair in mine)
    assert all(answer_text(pair, "rejected").startswith("good") for pair in mine)
    assert summary.agreement is not None and summary.agreement.share.value == 0
    assert summary.agreement.kappa is None or summary.agreement.kappa.value < 0


def test_the_order_is_drawn_and_not_shown(pairs: OwnPairs, tmp_path: Path):
    orders = set()
    for seed in range(20):
        screen = Screen(good)
        screen.label(pairs, tmp_path / f"{seed}.jsonl", seed)
        text = "\n".join(screen.lines)
        assert not re.search("chosen|rejected", text) and HELP in text
        orders.add(tuple(line[4:8] for line in screen.lines if line.startswith("(1)")))
    assert len(orders) > 15
    firsts = [word for order in orders for word in order]
    assert 0.3 < firsts.count("good") / len(firsts) < 0.7


def test_it_goes_on_where_it_stopped_in_the_same_order(pairs: OwnPairs, tmp_path: Path):
    whole = Screen(good)
    whole.label(pairs, tmp_path / "whole.jsonl", 5)
    replies = iter(["t", "s", None])
    out = tmp_path / "mine.jsonl"
    first = Screen(lambda a, b: next(replies))
    summary = first.label(pairs, out, 5)
    assert summary.lines() == ["0 pairs decided, 1 ties, 1 skipped, 6 left"]
    assert summary.agreement is None and not out.exists()
    second = Screen(good)
    summary = second.label(pairs, out, 5)
    assert second.lines[0] == "2 pairs have a verdict already; 6 are left"
    assert summary.lines()[0] == "6 pairs decided, 1 ties, 1 skipped, 0 left"
    answers = [[x for x in s.lines if re.match(r"\([12]\)", x)] for s in (whole, second)]
    assert answers[0][4:] == answers[1]
    assert load_pairs(out).rows == pairs.rows[2:]
    third = Screen(lambda a, b: pytest.fail("nothing is left to ask"))
    assert third.label(pairs, out, 5).lines()[0] == summary.lines()[0]


def test_each_verdict_is_on_the_disk_before_the_next_question(pairs: OwnPairs, tmp_path: Path):
    out, log = tmp_path / "mine.jsonl", tmp_path / "mine.verdicts.jsonl"
    seen = []

    def decide(first: str, second: str) -> str | None:
        seen.append(len(log.read_text().splitlines()) if log.exists() else 0)
        if len(seen) == 4:
            raise KeyboardInterrupt
        return good(first, second)

    with pytest.raises(KeyboardInterrupt):
        Screen(decide).label(pairs, out)
    assert seen == [0, 1, 2, 3] and len(load_pairs(out).rows) == 3
    out.unlink()  # lost, but the verdicts are there
    assert Screen(lambda a, b: "q").label(pairs, out).left == 5
    assert load_pairs(out).rows == pairs.rows[:3]


def test_other_input_is_asked_again(pairs: OwnPairs, tmp_path: Path):
    replies = iter(["", "3", "\x1b[2J", "1 ", "T", "Q"])
    screen = Screen(lambda a, b: None)
    summary = label_pairs(
        pairs, tmp_path / "mine.jsonl", read=lambda: next(replies), say=screen.say
    )
    assert summary.verdicts.total() == 2 and summary.left == 6
    assert f"'3' is none of these. {HELP}" in screen.lines
    assert not any("\x1b" in line for line in screen.lines)


def test_a_terminal_is_not_told_anything(tmp_path: Path):
    row = {"prompt": "a\nb", "chosen": "\x1b[31mred", "rejected": "\x07bell\u202e"}
    (tmp_path / "given.jsonl").write_text(json.dumps(row))
    screen = Screen(lambda a, b: "q")
    screen.label(load_pairs(tmp_path / "given.jsonl"), tmp_path / "mine.jsonl")
    text = "\n".join(screen.lines)
    assert "a\nb" in text and "\ufffd[31mred" in text
    assert not re.search("[\x07\x1b\u202e]", text)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "no verdict of posttrain label"),
        ("[1]", "no verdict of posttrain label"),
        ('{"pair": "x", "line": 1, "shown_first": "chosen", "verdict": "best"}', "no verdict"),
        ('{"pair": "x", "line": 1, "shown_first": "chosen", "verdict": "tie"}',
         "on a pair that the file does not hold: give the file that it was made from"),
    ],
)  # fmt: skip
def test_verdicts_that_do_not_fit_are_an_error(
    line: str, said: str, pairs: OwnPairs, tmp_path: Path
):
    (tmp_path / "mine.verdicts.jsonl").write_text(line)
    with pytest.raises(AssetError, match=rf"mine\.verdicts\.jsonl, line 1: .*{said}"):
        Screen(good).label(pairs, tmp_path / "mine.jsonl")
    assert (tmp_path / "mine.verdicts.jsonl").read_text() == line


def test_the_file_that_is_shown_is_not_overwritten(pairs: OwnPairs, tmp_path: Path):
    for out in (Path(pairs.source), tmp_path / "mine.json"):
        with pytest.raises(
            ValueError, match=r"give another file, with a name that ends in \.js"
        ):
            Screen(good).label(pairs, out)


# --- the command ---


def run(*arguments: str, typed: str = "") -> Any:
    return CliRunner().invoke(app, ["label", *arguments], input=typed)


def test_the_command_works_from_a_pipe(pairs: OwnPairs, tmp_path: Path):
    out = tmp_path / "mine.jsonl"
    done = run(pairs.source, "--out", str(out), "--seed", "3", typed="1\n2\nt\n")
    assert done.exit_code == 0, done.output
    assert "[user] q0" in done.output and "(2) " in done.output
    assert "2 pairs decided, 1 ties, 0 skipped, 5 left" in done.output
    assert "agreement with the file's labels: same label: " in done.output
    assert len(load_pairs(out).rows) == 2
    again = run(pairs.source, "--out", str(out), "--seed", "3", typed="q\n")
    assert again.output.startswith("3 pairs have a verdict already; 5 are left")


def test_the_command_says_what_is_wrong_in_one_line(pairs: OwnPairs, tmp_path: Path):
    file = tmp_path / "bad.jsonl"
    file.write_text('{"prompt": "a", "chosen": "b", "rejected": "b"}')
    done = run(str(file), "--out", str(tmp_path / "mine.jsonl"))
    assert done.exit_code == 2
    assert done.output.startswith(f"posttrain: {file}, line 1: chosen = rejected: ")
