"""The grader of the exercise about the mask of an assistant's tokens.

Chapter: sft/chat_templates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade
from posttrain.sft.chat.masking import IGNORE_INDEX

_Mask = Callable[[Tensor, Tensor, int], Tensor]


def _answers(ids: Tensor, header: Tensor, stop_id: int) -> list[tuple[int, int]]:
    """Return where each answer's first token stands, and where its stop token, or ``T``."""
    tokens, opening = ids.tolist(), header.tolist()
    h, T = len(opening), len(tokens)
    starts = [t for t in range(h, T) if tokens[t - h : t] == opening]
    return [(t, next((s for s in range(t, T) if tokens[s] == stop_id), T)) for t in starts]


def _stop_after(start: int, ids: Tensor, header: Tensor, stop_id: int) -> int:
    """Return where the first stop token behind a position stands, or ``T``."""
    later = (ids[start + 1 :] == stop_id).nonzero()
    return start + 1 + int(later[0]) if len(later) else len(ids)


def _painted(spans: Callable[[Tensor, Tensor, int], list[tuple[int, int]]]) -> _Mask:
    """Make a mask that is 1 from the first position of each span up to before its second."""

    def mask(input_ids: Tensor, header: Tensor, stop_id: int) -> Tensor:
        out = torch.zeros_like(input_ids)
        for start, end in spans(input_ids, header, stop_id):
            out[max(start, 0) : end] = 1
        return out

    return mask


def _moved(start: int = 0, end: int = 0) -> _Mask:
    """Move the ends of every answer by a number of tokens."""
    return _painted(lambda *a: [(s + start, e + 1 + end) for s, e in _answers(*a)])


_assistant_mask = _moved()


def _after_part(part: slice, to_end: bool = False) -> _Mask:
    """Train from each place of a part of the header to the next stop token.

    Where ``to_end``, the answer is taken to begin where the whole header would end.
    """

    def spans(ids: Tensor, header: Tensor, stop: int) -> list[tuple[int, int]]:
        found = _answers(ids, header[part], stop)
        rest = len(header) - len(header[part]) if to_end else 0
        return [(s + rest, e + 1) for s, e in found]

    return _painted(spans)


_PART = (
    "You look for a part of the header only, and it stands in other places too: an answer "
    "begins where all tokens of the header match, in order."
)
_EMPTY = (
    "You miss an empty answer: there the stop token follows the header at once, and it is "
    "trained like any other."
)
_LABELS = (
    "You returned token ids: return 1 where a token is trained and 0 elsewhere. Labels are "
    "made from that."
)
ASSISTANT_MASK = [
    Mistake(
        "Your mask is off by one: it starts one token late, so the first token of each answer "
        "is not trained.",
        _moved(start=1),
    ),
    Mistake(
        "Your mask is off by one: all of it stands one token too far to the right, so the "
        "first token of each answer is not trained and the token after the stop token is.",
        lambda *a: _assistant_mask(*a).roll(1),
    ),
    Mistake(
        "Your mask is off by one: it starts one token early, so the last token of each header "
        "is trained. The template writes that one, not the model.",
        _moved(start=-1),
    ),
    Mistake(
        "Your mask is off by one: all of it stands one token too far to the left. Mark the "
        "tokens that are learned, not the positions that predict them; the loss shifts.",
        lambda *a: _assistant_mask(*a).roll(-1),
    ),
    Mistake(
        "Your stop token is not trained: the model would not learn to end its answers.",
        _moved(end=-1),
    ),
    Mistake(
        "Your mask goes one token too far: an answer ends with its stop token, and the "
        "template writes what follows.",
        _moved(end=1),
    ),
    Mistake(
        "You train everything after the first header, the user's next turn too: each answer "
        "ends at its stop token.",
        _painted(lambda ids, *a: [(s, len(ids)) for s, _ in _answers(ids, *a)]),
    ),
    Mistake(
        "Your mask is 0 everywhere, so you found no header: compare it with as many tokens as "
        "it has.",
        lambda input_ids, header, stop_id: torch.zeros_like(input_ids),
    ),
    Mistake(
        "You train every stop token, the user's too: only the one that ends an answer is the "
        "assistant's.",
        lambda ids, header, stop: _assistant_mask(ids, header, stop) | (ids == stop).long(),
    ),
    Mistake(
        "Your answers reach to the last stop token of the conversation: each one ends at the "
        "next.",
        _painted(
            lambda ids, header, stop: [
                (s, int((ids == stop).nonzero()[-1]) + 1)
                for s, _ in _answers(ids, header, stop)
            ]
        ),
    ),
    Mistake(
        "You train the header and not the stop token: it is the other way around, since the "
        "template writes the header and the model must learn to stop.",
        lambda ids, header, stop: _moved(start=-len(header), end=-1)(ids, header, stop),
    ),
    Mistake(_EMPTY, _painted(lambda *a: [(s, e + 1) for s, e in _answers(*a) if s < e])),
    Mistake(
        _EMPTY, _painted(lambda *a: [(s, _stop_after(s, *a) + 1) for s, _ in _answers(*a)])
    ),
    Mistake(
        "You train the prompt too: only what the assistant wrote is 1.",
        lambda input_ids, header, stop_id: torch.ones_like(input_ids),
    ),
    Mistake(
        "You train the header too: the template writes it, so an answer starts after it.",
        lambda ids, header, stop: _moved(start=-len(header))(ids, header, stop),
    ),
    Mistake(
        "You train the last answer only: every answer of the conversation is trained.",
        _painted(lambda *a: [(s, e + 1) for s, e in _answers(*a)[-1:]]),
    ),
    Mistake(
        "You train the first answer only: look for the header again after each stop token.",
        _painted(lambda *a: [(s, e + 1) for s, e in _answers(*a)[:1]]),
    ),
    Mistake(_PART, _after_part(slice(0, 1))),
    Mistake(_PART, _after_part(slice(0, 1), to_end=True)),
    Mistake(_PART, _after_part(slice(0, 2), to_end=True)),
    Mistake(_PART, _after_part(slice(-1, None))),
    Mistake(_PART, _after_part(slice(-2, None))),
    Mistake(
        "Your mask is inverted: 1 means that the token is trained.",
        lambda *a: 1 - _assistant_mask(*a),
    ),
    *(
        Mistake(
            _LABELS,
            lambda ids, *a, other=other: torch.where(_assistant_mask(ids, *a) == 1, ids, other),
        )
        for other in (IGNORE_INDEX, 0)
    ),
]
CUT_OFF = [
    Mistake(
        "You train an answer only where its stop token follows: one that was cut off is "
        "trained to the end of the tokens.",
        _painted(lambda ids, *a: [(s, e + 1) for s, e in _answers(ids, *a) if e < len(ids)]),
    ),
    Mistake(
        "You leave out the last token of an answer that was cut off: only a stop token, or the "
        "end of the tokens, ends an answer.",
        _painted(lambda ids, *a: [(s, min(e + 1, len(ids) - 1)) for s, e in _answers(ids, *a)]),
    ),
]

# SmolLM2's ids: <|im_start|> is 1, <|im_end|> is 2 and also the stop token, a newline is 198.
_HEADER, _STOP = [1, 520, 9531, 198], 2
_SYSTEM = [1, 9690, 198, 6077, 5453, 30, 2, 198]  # Be brief.
_ASK = [1, 4093, 198, 26843, 198, 520, 9531, 198, 665, 2, 198]  # says "assistant" itself
_THANK = [1, 4093, 198, 3087, 85, 2, 198]
_HELLO = [*_HEADER, 19556, 30, 198, 3087, 85]
_WHOLE = [
    [*_SYSTEM, *_ASK, *_HELLO, 2, 198],
    [*_ASK, *_HELLO, 2, 198, *_THANK, *_HEADER, 26843, 2, 198],
    [*_THANK, *_HEADER, 2, 198, *_ASK, *_HELLO, 2, 198, *_THANK, *_HEADER, 3087, 2, 198],
]
_OPEN = [[*_ASK, *_HELLO], [*_ASK, *_HELLO, 2, 198, *_THANK, *_HEADER, 19556]]
_NONE = [[*_SYSTEM, *_ASK], [*_ASK, *_HEADER], [*_THANK, 1, 520]]
# Two other templates: nothing follows a stop token, and headers of two roles begin alike.
_OTHERS = [
    (
        torch.tensor([7, 3, 4, 6, 7, 5, 9, 3, 6, 7, 3, 8, 6, 7, 5, 6, 7, 3, 6]),
        torch.tensor([7, 5]),
        6,
    ),
    (
        torch.tensor(
            [7, 8, 3, 4, 6, 7, 8, 5, 9, 4, 6, 7, 8, 3, 9, 6, 7, 8, 5, 4, 6, 7, 8, 3, 6]
        ),
        torch.tensor([7, 8, 5]),
        6,
    ),
]


def grade_assistant_mask(fn: Callable[[Tensor, Tensor, int], Tensor]) -> Grade:
    """Grade the mask of an assistant's tokens.

    Whole conversations come first. Then come answers that were cut off before their stop token,
    which are trained to the end, and tokens without an answer.

    Args:
        fn: Takes the ids of a conversation, shape (T,), the ids of an assistant's header, shape
            (h,), and the id of the stop token; returns 1 on every token after a header up to
            and including the next stop token, 0 elsewhere, shape (T,), of any dtype.

    Returns:
        The grade.

    Chapter: sft/chat_templates.
    """

    def reference(input_ids: Tensor, header: Tensor, stop_id: int) -> Tensor:
        return _assistant_mask(input_ids, header, stop_id)

    first = grade(fn, reference, (), ())  # whether it can be called
    if not first.passed:
        return first

    def mask(*arguments: Tensor) -> object:
        out = fn(*arguments)  # type: ignore[arg-type]
        is_mask = isinstance(out, Tensor) and bool(((out == 0) | (out == 1)).all())
        return out.long() if is_mask else out  # True and 1.0 are as good

    rounds: list[tuple[list[list[int]], list[Mistake], str]] = [
        (_WHOLE, ASSISTANT_MASK, ""),
        (_OPEN, CUT_OFF, " Here an answer was cut off before its stop token."),
        (_NONE, [], " Here no token follows an assistant's header."),
    ]
    count = 0
    for rows, mistakes, note in rounds:
        cases = [(torch.tensor(row), torch.tensor(_HEADER), _STOP) for row in rows]
        cases += _OTHERS if rows is _WHOLE else []
        count += len(cases)
        result = grade(mask, reference, mistakes, cases)
        if not result.passed:
            named = result.message in [mistake.sentence for mistake in mistakes]
            return result if named else Grade(False, result.message + note)
    return Grade(True, f"Your function is right on all {count} inputs.")
