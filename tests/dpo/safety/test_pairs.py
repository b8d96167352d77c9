"""posttrain.dpo.safety.pairs: both kinds of pairs, their labels, and what is never shown."""

from __future__ import annotations

from collections import Counter

import pytest

from posttrain.core.judges.refusals import is_refusal
from posttrain.dpo.data.pair_formats import answer_text
from posttrain.dpo.safety.benign import benign_prompts
from posttrain.dpo.safety.pairs import (
    SafetyRequest,
    build_safety_pairs,
    safety_requests,
)
from posttrain.dpo.safety.prompts import HarmfulPrompt
from posttrain.dpo.safety.refusal_answers import REFUSALS
from posttrain.dpo.safety.safe_loss import KEPT_APART, KEPT_SAFE, SWAPPED, SafetyPair, reorder
from posttrain.dpo.safety.wrappers import Wrapper

HARMFUL = [HarmfulPrompt(f"Do bad thing number {k}.", "malicious uses", "") for k in range(10)]
BENIGN = benign_prompts("train")[:10]
WRAPPERS = [Wrapper(f"You are bot {k}: ", " Go!", "persona", True, "") for k in range(3)]
SAMPLE = (
    "First, take the box and put it on the table near the window. Then open the lid with care "
    "and look inside. Now you can see the parts that are needed. "
) * 3


def asked(pair: SafetyPair) -> str:
    return pair.pair["prompt"][-1]["content"]


def requests() -> list[SafetyRequest]:
    return safety_requests(HARMFUL, BENIGN, WRAPPERS)


def samples(text: str = SAMPLE) -> dict[str, list[str]]:
    return {request.text: [text] for request in requests() if request.harmful}


def test_requests_of_both_kinds_are_wrapped() -> None:
    found = requests()
    kinds = Counter(request.kind for request in found)
    assert kinds == {"harmful": 10, "benign": 10, "harmful, wrapped": 5, "benign, wrapped": 5}
    assert found == requests() != safety_requests(HARMFUL, BENIGN, WRAPPERS, seed=1)
    used = Counter(r.text.split(":")[0] for r in found if r.kind == "harmful, wrapped")
    assert sorted(used.values()) == [1, 2, 2]
    for request in found:
        inside = request.text.removeprefix(request.text.split(": ")[0] + ": ")
        if request.family:
            assert request.family == "persona" and inside.endswith(" Go!")
    assert len(safety_requests(HARMFUL, BENIGN)) == 20  # without wrappers


def test_pairs_have_their_answers_and_labels() -> None:
    built = build_safety_pairs(requests(), samples())
    assert built.kinds == Counter(request.kind for request in requests())
    assert not built.left_out.total()
    helpful = {request.text: request.answer for request in requests()}
    for pair in built.pairs:
        chosen, rejected = (answer_text(pair.pair, which) for which in ("chosen", "rejected"))
        assert pair.chosen_safe
        if pair.kind.startswith("harmful"):
            assert chosen in REFUSALS and SAMPLE.startswith(rejected)
            assert not pair.rejected_safe
        else:
            assert chosen == helpful[asked(pair)] and rejected in REFUSALS
            assert pair.rejected_safe
        assert is_refusal(chosen).refused == (not is_refusal(rejected).refused)


def test_answers_are_matched_in_length() -> None:
    built = build_safety_pairs(requests(), samples())
    words = [
        [len(answer_text(pair.pair, which).split()) for which in ("chosen", "rejected")]
        for pair in built.pairs
    ]
    assert all(abs(a - b) <= 0.5 * max(a, b) for a, b in words)
    means = [sum(side) / len(words) for side in zip(*words, strict=True)]
    assert abs(means[0] - means[1]) < 2
    assert all(answer_text(p.pair, "rejected").endswith((".", "?")) for p in built.pairs)
    long = "This sentence goes on " + "and on " * 60 + "to its end."
    assert build_safety_pairs(requests(), samples(long)).left_out == {"lengths differ": 15}
    strict = build_safety_pairs(requests(), samples(), tolerance=0.0)
    assert strict.left_out["lengths differ"] > 10


def test_the_order_of_helpfulness_is_undone_by_reorder() -> None:
    safe = build_safety_pairs(requests(), samples())
    helpful = build_safety_pairs(requests(), samples(), order="helpfulness")
    for a, b in zip(safe.pairs, helpful.pairs, strict=True):
        assert (b == a.swapped()) == a.kind.startswith("harmful")
        assert (a == b) == a.kind.startswith("benign")
    done = reorder(helpful.pairs)
    assert done.pairs == safe.pairs == reorder(safe.pairs).pairs
    assert done.counts[SWAPPED] == 15 and done.counts[KEPT_SAFE] == 15
    assert reorder(safe.pairs).counts[KEPT_APART] == 15


def test_the_nearest_compliant_sample_is_taken() -> None:
    request = SafetyRequest("Do it.", "hateful", True)
    near = "Take the first of the boxes and the second of the keys, and turn both of them to "
    near += "the left until you hear a click in the old lock."
    short = "Take the box and open the lid of it with the small key now, slowly."
    for given in ([short, near], [near, short], [REFUSALS[0], near]):
        [pair] = build_safety_pairs([request], {"Do it.": given}).pairs
        assert answer_text(pair.pair, "rejected") == near


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({}, "no sample"),
        ({"Do it.": []}, "no sample"),
        ({"Do it.": [REFUSALS[0], REFUSALS[1]]}, "the samples refuse"),
        ({"Do it.": [""]}, "lengths differ"),
        ({"Do it.": ["this has no end " * 5]}, "lengths differ"),
    ],
)
def test_what_is_left_out_is_counted(given: dict[str, list[str]], reason: str) -> None:
    built = build_safety_pairs([SafetyRequest("Do it.", "hateful", True)], given)
    assert built.pairs == () and built.left_out == {reason: 1}
    assert reason in repr(built)


def test_a_marker_of_the_template_is_counted() -> None:
    text = "Do <|im_end|> it."
    built = build_safety_pairs([SafetyRequest(text, "hateful", True)], {text: [SAMPLE]})
    assert built.pairs == () and built.left_out.total() == 1


def test_nothing_harmful_is_shown() -> None:
    found = requests()
    built = build_safety_pairs(found, samples())
    shown = repr(found) + repr(built) + repr(built.pairs) + repr(reorder(built.pairs))
    assert "bad thing" not in shown and "take the box" not in shown.lower()
    assert "harmful, wrapped" in shown


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="order is 'both'"):
        build_safety_pairs([], {}, order="both")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"tolerance is 1\.0"):
        build_safety_pairs([], {}, tolerance=1.0)
    with pytest.raises(ValueError, match=r"wrapped is 1\.5"):
        safety_requests(HARMFUL, BENIGN, WRAPPERS, wrapped=1.5)
    with pytest.raises(ValueError, match=r"'opposite', which is held out") as found:
        build_safety_pairs([SafetyRequest("Do it.", "hateful", True, "opposite")], {})
    assert "Do it" not in str(found.value)
    for harmful, answer in ((True, "text"), (False, None)):
        with pytest.raises(ValueError, match="give a helpful answer to a harmless request"):
            SafetyRequest("Q?", "hateful", harmful, answer=answer)
