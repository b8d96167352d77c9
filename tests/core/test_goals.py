"""posttrain.core.goals: what passes, what is stored, what is shown, what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from posttrain.core.claims import Claims
from posttrain.core.goals import Goal, check_goals, collect_goals, goals_file, rows_of
from posttrain.core.goals_table import (
    GoalsTable,
    failure_text,
    is_accepted,
    measured_text,
    result_text,
    wanted_text,
)
from posttrain.core.stats import Interval

ROW_KEYS = {
    "id",
    "kind",
    "stage",
    "chapter",
    "goal",
    "value",
    "ci",
    "n",
    "threshold",
    "passed",
    "attempts",
    "preset",
}
CHAPTER = "pretraining/attention"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("POSTTRAIN_GOALS", str(tmp_path / "goals"))
    return tmp_path / "goals"


def goal(value: Any = 1.0, threshold: Any = 2.0, op: str = "<", **more: Any) -> Goal:
    return Goal(**{"id": "pretraining.loss", "goal": "loss, nats"} | more, value=value,
                threshold=threshold, op=op)  # fmt: skip


@pytest.mark.parametrize(
    ("op", "below", "equal", "above"),
    [
        ("<", True, False, False),
        ("<=", True, True, False),
        (">", False, False, True),
        (">=", False, True, True),
        ("==", False, True, False),
    ],
)
def test_comparisons(op: str, below: bool, equal: bool, above: bool) -> None:
    assert [goal(v, 2.0, op).passed for v in (1.9, 2.0, 2.1)] == [below, equal, above]


@pytest.mark.parametrize("op", ["<", "<=", ">", ">=", "=="])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_what_is_not_finite_never_passes(op: str, value: float) -> None:
    row = goal(value, 2.0, op, ci=(math.nan, math.nan)).row(CHAPTER, "cpu")
    assert row["passed"] is False and row["value"] is None and row["ci"] is None
    assert measured_text(row) == "not a number"


def test_yes_or_no_goals() -> None:
    assert goal(True, True, "==").passed
    assert not goal(False, True, "==").passed
    row = goal(np.bool_(True), True, "==").row(CHAPTER, "cpu")
    assert row["value"] is True and row["threshold"] == "== True"
    assert (measured_text(row), wanted_text(row)) == ("yes", "yes")


def test_row_has_the_published_form() -> None:
    row = goal(np.float32(1.5), 1.75, "<=", n=np.int64(3), ci=Interval(1.25, 1.625)).row(
        CHAPTER, "t4"
    )
    assert row.keys() == ROW_KEYS
    assert json.loads(json.dumps(row)) == {
        "id": "pretraining.loss",
        "kind": "goal",
        "stage": "pretraining",
        "chapter": CHAPTER,
        "goal": "loss, nats",
        "value": 1.5,
        "ci": [1.25, 1.625],
        "n": 3,
        "threshold": "<= 1.75",
        "passed": True,
        "attempts": [],
        "preset": "t4",
    }


def test_check_goals_stores_and_returns_the_rows(folder: Path) -> None:
    table = check_goals([goal(), goal(3, 2, ">", id="pretraining.count")], chapter=CHAPTER)
    assert isinstance(table, GoalsTable)
    assert [path.name for path in folder.iterdir()] == ["pretraining__attention.json"]
    assert collect_goals() == list(table.rows)


def test_a_second_check_replaces_the_first() -> None:
    check_goals([goal(), goal(id="pretraining.other")], chapter=CHAPTER)
    check_goals([goal(0.5)], chapter=CHAPTER)
    assert [row["value"] for row in collect_goals()] == [0.5]


def test_missed_goals_are_stored_and_shown_and_stop_nothing() -> None:
    goals = [
        goal(1.0, id="pretraining.good"),
        goal(3.0, id="pretraining.bad"),
        goal(False, True, "==", id="pretraining.worse"),
    ]
    table = check_goals(goals, chapter=CHAPTER)
    assert [row["passed"] for row in collect_goals()] == [True, False, False]
    assert [result_text(row) for row in table.rows] == ["✓ met", "✗ not met", "✗ not met"]
    assert [is_accepted(row) for row in table.rows] == [True, False, False]
    assert failure_text(table.rows[1]) == (
        "pretraining/attention: pretraining.bad: loss, nats: measured 3, wanted < 2"
    )


def test_a_missed_aim_stays_red_and_is_accepted() -> None:
    tried = ("A larger rank.", "A longer run.", "More data.")
    table = check_goals([goal(3.0, attempts=tried)], chapter=CHAPTER)
    (row,) = collect_goals()
    assert row["attempts"] == list(tried) and not row["passed"] and is_accepted(row)
    assert result_text(row) == "✗ missed aim" and "pt-missed" in table._repr_html_()
    for text in (repr(table), table._repr_html_(), table._repr_markdown_()):
        assert "Missed aim pretraining.loss; tried: A larger rank. A longer run." in text
    met = check_goals([goal(1.0, attempts=tried)], chapter=CHAPTER)
    assert "tried" not in repr(met) and result_text(met.rows[0]) == "✓ met"


@pytest.mark.parametrize("tried", [("once",), ("a", "b"), ("a", "b", " ")])
def test_a_missed_aim_needs_three_documented_attempts(tried: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="documents at least 3 attempts, a sentence each"):
        goal(attempts=tried)


def test_goals_leave_claims_alone() -> None:
    claim = Claims(CHAPTER)
    claim("rises", "slope", 2, ">", 1)
    check_goals([goal()], chapter=CHAPTER)
    check_goals([goal(0.5)], chapter=CHAPTER)
    assert [row["kind"] for row in rows_of(CHAPTER)] == ["goal", "claim"]
    assert [row["value"] for row in rows_of(CHAPTER, "goal")] == [0.5]
    assert rows_of("sft/lora") == []


@pytest.mark.parametrize(
    "id", ["loss", "Pretraining.loss", "pretraining.", "a.b.c", "a.b c", ""]
)
def test_malformed_ids(id: str) -> None:
    with pytest.raises(ValueError, match=r"is malformed: write stage\.name in lower case"):
        goal(id=id)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"op": "!="}, ValueError, "unknown comparison '!=': use one of <, <=, >, >=, =="),
        ({"goal": " "}, ValueError, "the goal is empty"),
        ({"threshold": math.nan}, ValueError, "the threshold nan is not a finite number"),
        ({"n": 0}, ValueError, "n is 0: give a count of at least 1"),
        ({"n": 2.5}, ValueError, "n is 2.5"),
        ({"ci": (2.0, 1.0)}, ValueError, "is reversed"),
        ({"value": "1.0"}, TypeError, "the value is '1.0' of type str: give one number"),
        ({"value": [1.0]}, TypeError, "of type list"),
        ({"value": np.ones(2)}, TypeError, "of type ndarray"),
        ({"threshold": None}, TypeError, "the threshold is None"),
    ],
)
def test_bad_goals(change: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        goal(**change)


def test_bad_calls(folder: Path) -> None:
    with pytest.raises(ValueError, match="the list of goals is empty"):
        check_goals([], chapter=CHAPTER)
    with pytest.raises(ValueError, match=r"occur twice, name one anew: pretraining\.loss$"):
        check_goals([goal(), goal()], chapter=CHAPTER)
    for chapter in ("", "/etc/passwd", "../up", "Pretraining/a", "pretraining/attention.md"):
        with pytest.raises(ValueError, match="is malformed: write its path below book/"):
            check_goals([goal()], chapter=chapter)
    assert not folder.exists()


def test_collect_goals_over_chapters(tmp_path: Path, folder: Path) -> None:
    assert collect_goals() == []
    check_goals([goal(id="sft.loss")], chapter="sft/lora")
    check_goals([goal()], chapter=CHAPTER)
    (folder / ".attention.0123.tmp.json").write_text("half a fi")  # left by a killed process
    assert [row["id"] for row in collect_goals()] == ["pretraining.loss", "sft.loss"]
    assert collect_goals(tmp_path / "nowhere") == []


def test_two_chapters_may_not_claim_one_id() -> None:
    check_goals([goal()], chapter=CHAPTER)
    check_goals([goal()], chapter="pretraining/gpt")
    with pytest.raises(ValueError, match=r"both hold pretraining\.loss"):
        collect_goals()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"id": 1}', '[{"id": "a.b"}]'])
def test_a_file_without_rows(folder: Path, text: str) -> None:
    folder.mkdir()
    goals_file(CHAPTER).write_text(text)
    with pytest.raises(ValueError, match=r"attention\.json holds no goals: remove it and run"):
        collect_goals()


def rows(*goals: Goal) -> GoalsTable:
    return GoalsTable([g.row(CHAPTER, "cpu") for g in goals])


def test_the_value_never_looks_equal_to_a_threshold_it_misses() -> None:
    (near,) = rows(goal(1.7500001, 1.75, "<=")).rows
    assert (measured_text(near), wanted_text(near)) == ("1.7500001", "≤ 1.75")
    (exact,) = rows(goal(1.75, 1.75, "<=")).rows
    assert measured_text(exact) == "1.75"


def test_table_as_text() -> None:
    table = rows(goal(0.931, 0.9, ">", n=200, ci=(0.88, 0.96)), goal(9, id="pretraining.b"))
    assert repr(table).replace("\u00a0", " ").splitlines() == [
        "goal        measured                     wanted  result",
        "loss, nats  0.931 [0.88, 0.96], n = 200  > 0.9   ✓ met",
        "loss, nats  9                            < 2     ✗ not met",
    ]


def test_table_as_markdown_and_html() -> None:
    table = rows(goal(goal="a|b <i>"), goal(5.0, id="pretraining.b"))
    markdown = table._repr_markdown_().splitlines()
    assert markdown[0] == "| goal | measured | wanted | result |"
    assert markdown[2] == "| a\\|b <i> | 1 | < 2 | ✓ met |"
    page = table._repr_html_()
    assert "a|b &lt;i&gt;" in page and "<i>" not in page and "&lt; 2" in page
    # The result is a word and a symbol, so color is not the only difference.
    assert page.count("✓ met") == 1 and page.count("✗ not met") == 1
