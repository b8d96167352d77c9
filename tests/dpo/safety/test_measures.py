"""posttrain.dpo.safety.measures: rates, their groups, and paired comparisons."""

from __future__ import annotations

import random
import re

import pytest

from posttrain.core.stats import wilson_interval
from posttrain.dpo.safety.benign import benign_prompts
from posttrain.dpo.safety.measures import (
    NO_WRAPPER,
    compare_safety,
    safety_score,
    trade_off,
)
from posttrain.dpo.safety.pairs import SafetyRequest
from posttrain.dpo.safety.refusal_answers import REFUSALS

NO, YES = REFUSALS[0], "Take the box and open it."


def harmful(k: int, category: str = "hateful", family: str | None = None) -> SafetyRequest:
    return SafetyRequest(f"Do bad thing {k}.", category, True, family)


def benign(k: int) -> SafetyRequest:
    return SafetyRequest(f"Good question {k}?", "hateful", False, answer="Yes.")


def test_the_two_rates_are_over_their_own_requests() -> None:
    requests = [harmful(0), benign(0), harmful(1), benign(1), harmful(2), benign(2), benign(3)]
    score = safety_score(requests, [NO, NO, YES, YES, YES, YES, YES])
    assert score.attack_success == wilson_interval(2, 3)
    assert score.over_refusal == wilson_interval(1, 4)
    assert score.not_refused == (False, True, True)
    assert score.refused == (True, False, False, False)


def test_extremes() -> None:
    requests = [*(harmful(k) for k in range(5)), *(benign(k) for k in range(5))]
    refuses_all, answers_all = (safety_score(requests, [text] * 10) for text in (NO, YES))
    assert (refuses_all.attack_success.value, refuses_all.over_refusal.value) == (0, 1)
    assert (answers_all.attack_success.value, answers_all.over_refusal.value) == (1, 0)


def test_groups() -> None:
    requests = [
        harmful(0, "hateful"), harmful(1, "misinformation", "DAN"),
        harmful(2, "misinformation"), harmful(3, "hateful", "DAN"), benign(0),
    ]  # fmt: skip
    score = safety_score(requests, [NO, YES, YES, YES, YES])
    assert {k: x.value for k, x in score.by_category.items()} == {
        "hateful": 0.5,
        "misinformation": 1.0,
    }
    assert {k: (x.value, x.n) for k, x in score.by_family.items()} == {
        NO_WRAPPER: (0.5, 2),
        "DAN": (1.0, 2),
    }
    assert re.search(r"attack success +75\.0% \[.*\], n = 4", str(score))


def test_groups_add_up_over_drawn_outcomes() -> None:
    generator = random.Random(0)
    for _ in range(25):
        requests = [
            harmful(k, generator.choice("ab"), generator.choice([None, "x", "y"]))
            for k in range(generator.randint(1, 30))
        ]
        answers = [generator.choice([NO, YES]) for _ in requests]
        score = safety_score([*requests, benign(0)], [*answers, YES])
        for groups in (score.by_category, score.by_family):
            assert sum(x.n for x in groups.values()) == len(requests)
            successes = sum(round(x.value * x.n) for x in groups.values())
            assert successes == sum(text == YES for text in answers)


def test_illegal_in_a_compliant_answer_is_no_refusal() -> None:
    told = "Open the lock from below. It is illegal, and you need a thin wire for it."
    score = safety_score([harmful(0), benign(0)], [told, YES])
    assert score.attack_success.value == 1


def test_an_empty_answer_is_counted() -> None:
    score = safety_score([harmful(0), harmful(1), benign(0)], [" ", NO, ""])
    assert score.empty == 1 and score.attack_success.value == 0.5


def test_paired_comparison() -> None:
    requests = [*(harmful(k) for k in range(20)), *(benign(k) for k in range(20))]
    base = safety_score(requests, [YES] * 40)
    safe = safety_score(requests, [NO] * 15 + [YES] * 5 + [NO] * 2 + [YES] * 18)
    found = compare_safety(base, safe)
    assert (found.attack_test.only_a, found.attack_test.only_b) == (15, 0)
    assert found.attack_test.p_value == pytest.approx(2 * 0.5**15)
    assert (found.over_refusal_test.only_a, found.over_refusal_test.only_b) == (0, 2)
    assert found.over_refusal_test.p_value == pytest.approx(0.5)
    assert found.attack_success.value == pytest.approx(-0.75)
    assert found.attack_success.high < 0
    assert found.over_refusal.value == pytest.approx(0.1)
    assert found.over_refusal.low <= 0.1 <= found.over_refusal.high
    turned = compare_safety(safe, base)
    assert turned.attack_success.value == pytest.approx(0.75)


def test_other_requests_or_another_order_are_refused() -> None:
    requests = [harmful(0), harmful(1), benign(0)]
    score = safety_score(requests, [NO, YES, YES])
    other = safety_score([requests[1], requests[0], requests[2]], [NO, YES, YES])
    with pytest.raises(ValueError, match="not the same") as found:
        compare_safety(score, other)
    assert "bad thing" not in str(found.value)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="1 requests and 2 answers"):
        safety_score([harmful(0)], [NO, NO])
    for requests in ([harmful(0)], [benign(0)]):
        with pytest.raises(ValueError, match="give both kinds"):
            safety_score(requests, [NO])


def test_the_detector_can_be_exchanged() -> None:
    score = safety_score([harmful(0), benign(0)], ["yes", "no"], refuses=lambda x: x == "no")
    assert score.attack_success.value == 1 and score.over_refusal.value == 1


def test_written_answers_and_refusals_have_the_rates_they_should() -> None:
    prompts = benign_prompts()
    requests = [SafetyRequest(p.text, p.category, False, answer=p.answer) for p in prompts] + [
        harmful(k) for k in range(len(REFUSALS))
    ]
    score = safety_score(requests, [*(p.answer for p in prompts), *REFUSALS])
    assert score.over_refusal.value == 0 and score.attack_success.value == 0


def test_nothing_harmful_is_shown() -> None:
    score = safety_score([harmful(0), benign(0)], ["secret words.", YES])
    shown = repr(score) + str(score) + repr(trade_off("model", score))
    assert "bad thing" not in shown and "secret" not in shown
    assert trade_off("model", score).attack_success == score.attack_success
