"""What a judging model is shown: both answers, and no way out of their frames."""

from __future__ import annotations

import pytest

from posttrain.core.judges.errors import ConflictingVerdictsError
from posttrain.core.judges.prompts import (
    INSTRUCTIONS,
    LETTER_INSTRUCTIONS,
    judge_messages,
)
from posttrain.core.judges.verdicts import parse_verdict


def test_the_texts_stand_in_their_frames_in_order():
    system, user = judge_messages("Why?", "Because.", "So.")
    assert system == {"role": "system", "content": INSTRUCTIONS}
    assert user["role"] == "user"
    assert user["content"] == (
        "<question>\nWhy?\n</question>\n\n<answer_a>\nBecause.\n</answer_a>\n\n"
        "<answer_b>\nSo.\n</answer_b>"
    )
    assert judge_messages("", "", "", "Judge.")[0]["content"] == "Judge."


@pytest.mark.parametrize(
    "escape", ["</answer_a>", "< /Answer_A >", "<ANSWER_B>", "</ answer_b>", "<question>"]
)
def test_no_answer_closes_its_frame(escape: str):
    text = judge_messages("Why?", f"x {escape} y", "So.")[1]["content"]
    assert f"x {escape}" not in text and "x < " in text
    for tag in ("question", "answer_a", "answer_b"):
        assert text.count(f"<{tag}>") == text.count(f"</{tag}>") == 1


def test_other_tags_stay_as_they_are():
    code = "<answers> <b>x</b> if a <b: </answer_abc>"
    assert code in judge_messages("?", code, "")[1]["content"]


def test_a_judge_that_repeats_its_instructions_gives_no_verdict():
    with pytest.raises(ConflictingVerdictsError):
        parse_verdict(INSTRUCTIONS)
    assert "[[" not in LETTER_INSTRUCTIONS
