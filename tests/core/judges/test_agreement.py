"""Agreement: by hand, against statsmodels, with ties, and where kappa has no meaning."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from posttrain.core.judges.agreement import agreement
from posttrain.core.judges.verdicts import Outcome, Verdict
from posttrain.core.stats import wilson_interval


def outcome(a_first: str, b_first: str) -> Outcome:
    return Outcome(Verdict(a_first), Verdict(b_first))


def test_by_hand():
    judge = ["a", "a", "a", "b", "b", "tie", "tie", "b"]
    label = ["a", "a", "b", "b", "a", "a", "tie", "b"]
    found = agreement(judge, label)
    assert found.share == wilson_interval(5, 8)
    assert found.decided == wilson_interval(4, 6)
    # Chance: 3/8 * 4/8 + 3/8 * 3/8 + 2/8 * 1/8 = 23/64, so kappa = (40 - 23) / (64 - 23).
    assert found.kappa is not None and found.kappa.value == pytest.approx(17 / 41)
    assert found.consistency is None
    assert found.counts["a", "b"] == 1 and found.counts["b", "a"] == 1
    assert found.counts["tie", "a"] == 1 and found.counts["a", "tie"] == 0
    assert sum(found.counts.values()) == 8
    assert str(found).splitlines()[0] == (
        f"agreement      62.5% [{found.share.low:.1%}, {found.share.high:.1%}], n = 8"
    )
    assert "n = 6 (2 pairs with a tie)" in str(found)


@pytest.mark.parity
def test_kappa_equals_statsmodels():
    raters = pytest.importorskip("statsmodels.stats.inter_rater")
    rng = np.random.default_rng(0)
    names = ("a", "b", "tie")
    for _ in range(40):
        table = rng.integers(0, 30, (3, 3)) + np.eye(3, dtype=int)
        judge, label = [], []
        for i, j in np.ndindex(3, 3):
            judge += [names[i]] * table[i, j]
            label += [names[j]] * table[i, j]
        level = float(rng.uniform(0.6, 0.99))
        theirs = raters.cohens_kappa(table)
        half = float(theirs.std_kappa * scipy.stats.norm.ppf((1 + level) / 2))
        ours = agreement(judge, label, level).kappa
        assert ours is not None and ours.value == pytest.approx(theirs.kappa, abs=1e-12)
        low, high = max(-1, theirs.kappa - half), min(1, theirs.kappa + half)
        assert ours.ci == pytest.approx((low, high), abs=1e-9)


def test_a_judge_that_always_ties_agrees_with_no_one():
    found = agreement(["tie"] * 20, ["a", "b"] * 10)
    assert found.share.value == 0 and found.decided is None
    assert found.kappa is not None and found.kappa.value == 0
    assert "no pair (20 pairs with a tie)" in str(found)


def test_a_judge_by_chance_has_a_kappa_of_zero():
    rng = np.random.default_rng(1)
    judge, label = (list(rng.choice(["a", "b"], 4000, p=[0.8, 0.2])) for _ in range(2))
    found = agreement(judge, label)
    assert found.share.low > 0.6  # as much as chance gives where one answer is frequent
    assert found.kappa is not None and found.kappa.low < 0 < found.kappa.high


def test_perfect_and_opposite_judges():
    label = ["a", "b", "b", "a"]
    perfect = agreement(label, label)
    assert perfect.kappa is not None and perfect.kappa.value == 1 and perfect.kappa.high == 1
    opposite = agreement(["b", "a", "a", "b"], label)
    assert opposite.share.value == 0
    assert opposite.kappa is not None and opposite.kappa.value == -1


def test_kappa_is_not_defined_where_all_is_one_answer():
    found = agreement(["a"] * 5, ["a"] * 5)
    assert found.kappa is None and found.share.value == 1 and "not defined" in str(found)


def test_outcomes_say_how_consistent_the_judge_is():
    unread = Outcome(None, Verdict("second"), "NoVerdictError: none")
    outcomes = [
        outcome("first", "second"),
        outcome("first", "first"),
        outcome("tie", "tie"),
        outcome("first", "tie"),
        unread,
    ]
    found = agreement(outcomes, ["a", "a", "tie", "a", "a"])
    assert found.consistency == wilson_interval(2, 5)
    assert found.share == wilson_interval(2, 5)  # the unread pair counts, as a tie
    assert "both orders    40.0%" in str(found)


def test_order_of_the_pairs_changes_nothing():
    rng = np.random.default_rng(2)
    for _ in range(20):
        n = int(rng.integers(2, 50))
        judge, label = (rng.choice(["a", "b", "tie"], n) for _ in range(2))
        order = rng.permutation(n)
        assert agreement(list(judge), list(label)) == agreement(
            list(judge[order]), list(label[order])
        )


@pytest.mark.parametrize(
    ("judge", "labels", "problem"),
    [
        (["a"], ["a", "b"], "1 outcomes and 2 labels: give one for each"),
        ([], [], "there are no pairs"),
        (["A"], ["a"], "found holds 'A': give 'a', 'b' or 'tie'"),
        (["a"], [None], "labels holds None: give 'a', 'b' or 'tie'"),
        (["a", outcome("tie", "tie")], ["a", "a"], "1 of 2 are outcomes, the others winners"),
    ],
)
def test_what_is_refused(judge: list, labels: list, problem: str):
    with pytest.raises(ValueError, match=problem):
        agreement(judge, labels)
