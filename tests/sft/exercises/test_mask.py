"""posttrain.sft.exercises.mask: right answers, every named wrong one, and any dtype.

The wrong answers are written here as a reader would write them, not as the grader has them.
"""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.sft.chat.template import encode_chat
from posttrain.sft.exercises import mask as exercises_mask
from posttrain.sft.exercises.mask import ASSISTANT_MASK, CUT_OFF, grade_assistant_mask


def token_by_token(
    ids: Tensor,
    header: Tensor,
    stop: int,
    *,
    late: int = 0,
    train_stop: bool = True,
    stops: bool = True,
    train_header: int = 0,
    after_stop: bool = False,
    answers: int = 99,
    opens: Callable[[list[int], list[int]], bool] = lambda seen, header: (
        seen[-len(header) :] == header
    ),
    cut_off: bool = True,
) -> Tensor:
    """Walk through the tokens; the options are what a reader gets wrong."""
    mask, start, seen = [0] * len(ids), None, []
    for t, token in enumerate(ids.tolist()):
        if start is not None and t >= start + late:
            mask[t] = int(token != stop or train_stop)
        if start is not None and token == stop and stops:
            if after_stop and t + 1 < len(ids):
                mask[t + 1] = 1
            start, answers = None, answers - 1
        seen.append(token)
        if start is None and answers > 0 and opens(seen, header.tolist()):
            start = t + 1
            for back in range(train_header):
                mask[t - back] = 1
    if start is not None and stops and not cut_off:
        mask[start:] = [0] * (len(ids) - start)
    return torch.tensor(mask)


def wrong(**changes: Any) -> Callable[[Tensor, Tensor, int], Tensor]:
    return lambda ids, header, stop: token_by_token(ids, header, stop, **changes)


def moved_right(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    return torch.cat((mask[-1:], mask[:-1]))


def moved_left(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    return torch.cat((mask[1:], mask[:1]))


def last_only(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    h = len(header)
    begin = max(t for t in range(h, len(ids) + 1) if torch.equal(ids[t - h : t], header))
    end = begin + ids[begin:].tolist().index(stop)
    mask = torch.zeros(len(ids), dtype=torch.long)
    mask[begin : end + 1] = 1
    return mask


def labels(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    return ids.masked_fill(token_by_token(ids, header, stop) == 0, -100)


def to_the_last_but_one(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    mask[-1] = mask[-1] * (ids[-1] == stop)
    return mask


def reaching(
    ids: Tensor, header: Tensor, stop: int, which: Callable[[list[int]], int]
) -> Tensor:
    """Every answer ends at one of the stop tokens from its start on."""
    h, mask = len(header), torch.zeros(len(ids))
    for begin in range(h, len(ids) + 1):
        if torch.equal(ids[begin - h : begin], header):
            stops = [t for t in range(begin, len(ids)) if ids[t] == stop]
            mask[begin : which(stops) + 1] = 1
    return mask


def without_empty(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    for t in range(len(header), len(ids)):
        if ids[t] == stop and torch.equal(ids[t - len(header) : t], header):
            mask[t] = 0
    return mask


def first_two(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    h, mask, t = len(header), torch.zeros(len(ids)), 0
    while t < len(ids):
        if ids[t : t + 2].equal(header[:2]):
            t += h
            while t < len(ids) and ids[t] != stop:
                mask[t] = 1
                t += 1
            mask[t : t + 1] = 1
        t += 1
    return mask


WRONG_MASKS = [
    (wrong(late=1), "Your mask is off by one: it starts one token late, so the first token of"),
    (moved_right, "Your mask is off by one: all of it stands one token too far to the right"),
    (wrong(train_header=1), "Your mask is off by one: it starts one token early, so the last"),
    (moved_left, "Your mask is off by one: all of it stands one token too far to the left"),
    (wrong(train_stop=False), "Your stop token is not trained"),
    (wrong(after_stop=True), "Your mask goes one token too far"),
    (wrong(stops=False), "You train everything after the first header, the user's next turn"),
    (lambda ids, header, stop: torch.full_like(ids, 1), "You train the prompt too"),
    (lambda i, h, s: token_by_token(i, h, s, train_header=len(h)), "You train the header too"),
    (last_only, "You train the last answer only"),
    (wrong(answers=1), "You train the first answer only"),
    (
        wrong(opens=lambda seen, header: seen[-1] == header[0]),
        "You look for a part of the header",
    ),
    (
        wrong(opens=lambda seen, header: seen[-1] == header[-1]),
        "You look for a part of the header",
    ),
    (wrong(opens=lambda seen, header: seen[-2:] == header[-2:]), "You look for a part of the"),
    (first_two, "You look for a part of the header"),
    (lambda *a: torch.zeros(len(a[0])), "Your mask is 0 everywhere, so you found no header"),
    (lambda ids, h, s: token_by_token(ids, h, s).logical_or(ids == s), "You train every stop"),
    (lambda *a: reaching(*a, lambda stops: stops[-1]), "Your answers reach to the last stop"),
    (
        lambda i, h, s: token_by_token(i, h, s, train_header=len(h), train_stop=False),
        "You train the header and not the stop token",
    ),
    (without_empty, "You miss an empty answer"),
    (
        lambda i, h, s: reaching(i, h, s, lambda t: t[i[t[0] - len(h) : t[0]].equal(h)]),
        "You miss an empty answer",
    ),
    (lambda *a: (token_by_token(*a) == 0).long(), "Your mask is inverted"),
    (labels, "You returned token ids"),
    (lambda ids, *a: ids * token_by_token(ids, *a), "You returned token ids"),
    (wrong(cut_off=False), "You train an answer only where its stop token follows"),
    (to_the_last_but_one, "You leave out the last token of an answer that was cut off"),
]


def test_assistant_mask() -> None:
    result = grade_assistant_mask(token_by_token)
    assert result.passed and result.message == "Your function is right on all 10 inputs."
    told = []
    for function, sentence in WRONG_MASKS:
        result = grade_assistant_mask(function)
        assert not result.passed and result.message.startswith(sentence), result.message
        told.append(result.message)
    assert set(told) == {mistake.sentence for mistake in (*ASSISTANT_MASK, *CUT_OFF)}


@pytest.mark.parametrize("dtype", [torch.bool, torch.float32, torch.uint8])
def test_a_mask_of_any_type_is_accepted(dtype: torch.dtype) -> None:
    assert grade_assistant_mask(lambda *a: token_by_token(*a).to(dtype)).passed
    inverted = grade_assistant_mask(lambda *a: (1 - token_by_token(*a)).to(dtype))
    assert inverted.message.startswith("Your mask is inverted")


def whole_answers_only(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    if mask.any() and mask[-1] and ids[-1] != stop:
        ids.tolist().index(stop, len(ids) - 1)  # a search that finds nothing
    return mask


def some_answer(ids: Tensor, header: Tensor, stop: int) -> Tensor:
    mask = token_by_token(ids, header, stop)
    mask.nonzero()[0]
    return mask


@pytest.mark.parametrize(
    ("function", "start", "end"),
    [
        (wrong(late=2), "At index [23] your output is 0 where 1 is expected; ", "stop_id = 2."),
        (whole_answers_only, "Your function raised `ValueError: 2 is not in list` for ",
         " Here an answer was cut off before its stop token."),
        (some_answer, "Your function raised `IndexError: index 0 is out of bounds",
         " Here no token follows an assistant's header."),
        (lambda *a: token_by_token(*a).tolist(), "Your function returned `list` where", "2."),
        (lambda *a: token_by_token(*a)[None], "Your output has shape (1, 30) where (30,)", ""),
    ],
)  # fmt: skip
def test_other_masks(function: Any, start: str, end: str) -> None:
    message = grade_assistant_mask(function).message
    assert message.startswith(start), message
    assert message.endswith(end), message


def test_the_right_mask_is_the_one_of_encode_chat(tokenizer: Any) -> None:
    header, stop = torch.tensor(exercises_mask._HEADER), exercises_mask._STOP
    assert tokenizer.decode(header) == "<|im_start|>assistant\n"
    assert tokenizer.decode([stop]) == "<|im_end|>"
    texts = ["Hi\nassistant\n there", "Hello.\nBye", "By the way", "", "So?", "Sure."]
    roles = ["user", "assistant"] * 3
    messages: Any = [{"role": r, "content": c} for r, c in zip(roles, texts, strict=True)]
    for length in (2, 4, 6):
        encoded = encode_chat(messages[:length], tokenizer)
        mask = exercises_mask._assistant_mask(torch.tensor(encoded.input_ids), header, stop)
        assert mask.tolist() == encoded.assistant_mask
    told = tokenizer.decode(exercises_mask._WHOLE[0])
    assert "assistant\n there<|im_end|>\n<|im_start|>assistant\nHello.\nBye<|im_end|>" in told
