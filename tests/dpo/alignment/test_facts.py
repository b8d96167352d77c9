"""posttrain.dpo.alignment.facts: questions that anybody can check."""

from __future__ import annotations

import pytest

from posttrain.core.judges.rules import correctness
from posttrain.dpo.alignment.facts import FACTS, Fact, is_right
from posttrain.dpo.data.prompts import everyday_prompts


def test_each_question_stands_once_and_in_no_pair() -> None:
    asked = [fact.question for fact in FACTS]
    assert len(asked) == len(set(asked)) == 120
    trained = {prompt.text for part in everyday_prompts() for prompt in part}
    assert not trained & set(asked)


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact.question)
def test_its_own_answer_is_right_and_another_is_not(fact: Fact) -> None:
    word = fact.answer.split("|")[0]
    assert is_right(fact.question, f"It is {word.upper()}, because it is so. Nothing else.")
    assert not is_right(fact.question, f"It is x{word}x.")
    assert not is_right(fact.question, f"It is something else. Some say {word}.")
    assert not is_right(fact.question, "")


def test_a_model_that_repeats_the_question_knows_nothing() -> None:
    asked = [fact.question for fact in FACTS]
    assert correctness(is_right, asked, asked).share.value < 0.02


def test_an_unknown_question_is_refused() -> None:
    with pytest.raises(ValueError, match="ask one of FACTS"):
        is_right("What is up?", "The sky.")
