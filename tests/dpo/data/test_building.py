"""Three builders: what they prefer, what they leave out, and that length is not it."""

from collections import Counter
from typing import Any

import pytest

from posttrain.dpo.data.building import BuiltPairs, by_editing, by_judge, by_rule, gather
from posttrain.dpo.data.checks import answer_lengths, pair_lengths
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.data.persona import compliance

GOOD = "Use a sharp knife because it slips less and you keep your fingers."
MIDDLE = "A sharp knife slips less because its edge bites into the food itself."
POOR = "Great question! There are many knives that people may like to use here."
LONG = GOOD + " The pot is on the shelf and the stove is in the kitchen next to it."


def answers(built: BuiltPairs) -> tuple[str, str]:
    [pair] = built.pairs
    return answer_text(pair, "chosen"), answer_text(pair, "rejected")


# --- by rule ---


def test_the_best_and_the_worst_of_equal_length_are_taken():
    assert [compliance(text).score for text in (GOOD, MIDDLE, POOR, LONG)] == [4, 3, 0, 4]
    for order in ([GOOD, MIDDLE, POOR], [POOR, GOOD, LONG, MIDDLE], [MIDDLE, POOR, GOOD, GOOD]):
        assert answers(by_rule("Which knife?", order)) == (GOOD, POOR)
    assert answers(by_rule("Which knife?", [MIDDLE, LONG, POOR])) == (MIDDLE, POOR)
    [pair] = by_rule([{"role": "user", "content": "Which knife?"}], [GOOD, POOR]).pairs
    assert pair["prompt"] == [{"role": "user", "content": "Which knife?"}]


def test_of_equal_scores_the_closest_in_length_are_taken():
    short = "Use a sharp knife because it slips less and you keep fingers."
    assert answers(by_rule("a", [short, GOOD, POOR])) == (GOOD, POOR)


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([], "too few finished completions"),
        ([GOOD], "too few finished completions"),
        ([GOOD, POOR[:-1]], "too few finished completions"),
        ([GOOD, GOOD, "", " \n"], "too few finished completions"),
        ([GOOD, LONG], "same score"),
        ([LONG, POOR], "lengths differ"),
        ([GOOD, POOR[:-1] + "<|im_end|>."], "special token"),
    ],
)
def test_what_gives_no_pair_is_counted(completions: list[str], reason: str):
    built = by_rule("Which knife?", completions)
    assert built.pairs == [] and built.left_out == {reason: 1}


# --- by editing ---


def test_an_edit_gives_a_pair_that_says_the_same():
    chosen, rejected = answers(by_editing("Which knife?", GOOD, seed=1))
    assert chosen == GOOD and compliance(rejected).score <= 2 and "sharp knife" in rejected
    text = "Because it slips less, a sharp knife is what people should take."
    chosen, rejected = answers(by_editing("Which knife?", text))
    assert compliance(chosen).complies and chosen != text
    assert by_editing("Which knife?", GOOD, seed=1) == by_editing("Which knife?", GOOD, seed=1)
    assert by_editing("Why?", "Lima.").left_out == {"no second sentence to be the reason": 1}
    assert by_editing("Why?", MIDDLE[:-1]).left_out == {"unfinished": 1}
    assert by_editing("Why? ", GOOD).left_out == {"white space at the prompt's end": 1}


def test_line_breaks_do_not_give_an_edited_pair_away():
    for text in (GOOD + "\n\nIt is safe.", "Sure!\n\n" + GOOD, GOOD + "  \nSo it is.\n"):
        chosen, rejected = answers(by_editing("Which knife?", text))
        assert "\n" not in chosen + rejected and "  " not in chosen + rejected
    for item in ("- a knife.", "1. a knife.", "## Knives.", "**Knives.**"):
        built = by_editing("Which knife?", f"{GOOD}\n{item}")
        assert built.left_out == {"it holds a list": 1}


def test_length_does_not_give_an_edited_pair_away():
    parts = []
    for number in range(60):
        more = " and the pot stays warm" * (number % 4)
        parts.append(by_editing(f"q{number}", GOOD[:-1] + more + ".", seed=number))
    built = gather(parts)
    assert len(built.pairs) == 60 and not built.left_out
    found = pair_lengths(*answer_lengths(built.pairs), unit="words")
    assert abs(found.difference.value) <= 2


# --- by a judge ---


def prefers(wanted: str) -> Any:
    def judge(prompt: Any, first: str, second: str) -> str:
        if wanted not in (first, second):
            return wanted
        return "first" if first == wanted else "second"

    return judge


def test_a_judge_that_knows_gives_a_pair_in_either_order():
    for a, b in ((GOOD, POOR), (POOR, GOOD)):
        assert answers(by_judge("Which knife?", a, b, prefers(GOOD))) == (GOOD, POOR)
        assert answers(by_judge("Which knife?", a, b, prefers(POOR))) == (POOR, GOOD)


@pytest.mark.parametrize(
    ("verdict", "reason"),
    [("first", "orders disagree"), ("second", "orders disagree"), ("tie", "tie")],
)
def test_a_judge_that_prefers_a_place_gives_none(verdict: str, reason: str):
    built = by_judge("Which knife?", GOOD, POOR, prefers(verdict))
    assert built.pairs == [] and built.left_out == {reason: 1}


def test_one_tie_and_one_preference_disagree():
    replies = iter(["first", "tie", "tie", "second"])
    for _ in range(2):
        built = by_judge("a", GOOD, POOR, lambda *asked: next(replies))  # type: ignore[arg-type, return-value]
        assert built.left_out == {"orders disagree": 1}


def test_the_judge_is_asked_in_both_orders():
    asked: list[tuple[str, str]] = []

    def judge(prompt: Any, first: str, second: str) -> Any:
        asked.append((first, second))
        return "tie"

    by_judge("a", GOOD, POOR, judge)
    assert asked == [(GOOD, POOR), (POOR, GOOD)]
    assert by_judge("a", GOOD, f" {GOOD}\n", judge).left_out == {"same answer": 1}
    assert len(asked) == 2
    for junk in (None, "A", "First", 1):
        with pytest.raises(ValueError, match="it must return 'first', 'second' or 'tie'"):
            by_judge("a", GOOD, POOR, lambda *given, junk=junk: junk)  # type: ignore[misc]


def test_results_are_put_together():
    parts = [by_rule("a", [GOOD, POOR]), by_rule("b", []), by_rule("c", [GOOD])]
    whole = gather(parts)
    assert len(whole.pairs) == 1 and whole.left_out == Counter(
        {"too few finished completions": 2}
    )
    assert repr(whole) == "1 pairs; left out: 2 too few finished completions"
    assert repr(gather([])) == "0 pairs; left out: none" and len(parts[0].pairs) == 1
