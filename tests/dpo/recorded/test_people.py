"""posttrain.dpo.recorded.people: judges see the pair in both orders."""

from __future__ import annotations

from pathlib import Path

import pytest

from posttrain.core.judges.rules import RuleJudge
from posttrain.core.judges.verdicts import Verdict
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.recorded import people
from posttrain.dpo.recorded.people import (
    JUDGES,
    drawn_rows,
    make_judge,
    parts,
    question_of,
    run,
)


def test_each_judge_is_a_part() -> None:
    assert [part["judge"] for part in parts([0])] == list(JUDGES)


def test_rows_to_judge_are_not_learned_from(data: Path) -> None:
    judged, learned = drawn_rows(0)
    assert (len(judged), len(learned)) == (500, 1500)
    keys = [{str(row) for row in rows} for rows in (judged, learned)]
    assert not keys[0] & keys[1]
    assert judged != drawn_rows(1)[0]
    assert all(answer_text(row, "chosen").strip() for row in judged)


class First:
    """A judge that looks at the place alone."""

    def judge(self, question: str, first: str, second: str) -> Verdict:
        return Verdict("first")


def test_verdicts_are_letters_of_the_persons_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = {
        "prompt": [{"role": "user", "content": "Why?"}],
        "chosen": [{"role": "assistant", "content": "long answer"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    monkeypatch.setattr(people, "drawn_rows", lambda seed: ([pair] * 2, []))
    assert question_of(pair) == "Why?"  # type: ignore[arg-type]
    longer = RuleJudge(lambda question, answer: len(answer))
    shorter = RuleJudge(lambda question, answer: -len(answer))
    found = {}
    for name, judge in (("longer", longer), ("shorter", shorter), ("first", First())):
        monkeypatch.setattr(people, "make_judge", lambda *_, judge=judge: judge)
        (row,) = run({"judge": name, "seed": 0})
        found[name] = (row["chosen_first"], row["rejected_first"])
    assert found == {"longer": ("cc", "cc"), "shorter": ("rr", "rr"), "first": ("cc", "rr")}


def test_the_rules_count_criteria() -> None:
    judge = make_judge("persona's rules", [])
    good, bad = "Walk, because you save money.", "Sure! There are many ways."
    assert judge.judge("q", good, bad).winner == "first"
    assert judge.judge("q", bad, good).winner == "second"
    assert judge.judge("q", good, good).winner == "tie"
