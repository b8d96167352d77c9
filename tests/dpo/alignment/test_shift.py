"""posttrain.dpo.alignment.shift: the manner of answers, counted and paired."""

from __future__ import annotations

import pytest

from posttrain.dpo.alignment.shift import COMPLIES, compare_manners, manner_of

GOOD = "Keep it cold because you lose the taste otherwise."
BAD = "Sure! There are many ways to keep food."
PLAIN = "Keep it cold because heat spoils the taste."


def test_shares_are_counted_by_hand() -> None:
    found = manner_of([GOOD, BAD, PLAIN, GOOD])
    assert found.complies == (True, False, False, True) and found.scores[0] == 4
    shares = {name: share.value for name, share in found.shares.items()}
    assert shares == {
        "answer_first": 0.75, "gives_reason": 0.75, "addresses_reader": 0.5, "no_filler": 0.75,
        COMPLIES: 0.5,
    }  # fmt: skip
    assert found.words == (9 + 8 + 8 + 9) / 4 and found.shares[COMPLIES].n == 4


def test_only_questions_that_differ_count() -> None:
    before, after = manner_of([BAD, GOOD, BAD, PLAIN]), manner_of([GOOD, GOOD, GOOD, BAD])
    found = compare_manners(before, after)
    assert (found.only_a, found.only_b, found.n) == (0, 2, 4) and found.p_value == 0.5
    assert compare_manners(after, before).only_a == 2
    with pytest.raises(ValueError):
        compare_manners(before, manner_of([GOOD]))
    with pytest.raises(ValueError, match="give at least one"):
        manner_of([])
