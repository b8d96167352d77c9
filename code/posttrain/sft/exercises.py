"""The graders of Stage 1's exercises; each names the mistake it recognizes.

The reader writes a function and hands it to its grader. See ``posttrain.core.grading``. The
graders about LoRA and NF4 lie in modules of their own and can be had from here too.

Chapter: sft/chat_templates, sft/fine_tuning.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from posttrain.core.grading import Grade, Mistake, grade, random_numbers
from posttrain.sft.exercises_lora import grade_lora_forward, grade_lora_init, grade_merge
from posttrain.sft.exercises_nf4 import grade_codebook, grade_quantize_block
from posttrain.sft.masking import IGNORE_INDEX

__all__ = [
    "grade_assistant_mask",
    "grade_batch_loss",
    "grade_codebook",
    "grade_lora_forward",
    "grade_lora_init",
    "grade_merge",
    "grade_quantize_block",
]

_Mask = Callable[[Tensor, Tensor, int], Tensor]


def _answers(ids: Tensor, header: Tensor, stop_id: int) -> list[tuple[int, int]]:
    """Return where each answer's first token stands, and where its stop token, or ``T``."""
    tokens, opening = ids.tolist(), header.tolist()
    h, T = len(opening), len(tokens)
    starts = [t for t in range(h, T) if tokens[t - h : t] == opening]
    return [(t, next((s for s in range(t, T) if tokens[s] == stop_id), T)) for t in starts]


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


def _after_token(which: int) -> _Mask:
    """Train from each place of one token of the header to the next stop token."""
    return _painted(
        lambda ids, header, stop: [
            (s, e + 1) for s, e in _answers(ids, header[which, None], stop)
        ]
    )


_ONE_TOKEN = (
    "You look for one token of the header only, and it stands in other places too: an answer "
    "begins where all tokens of the header match, in order."
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
    Mistake(_ONE_TOKEN, _after_token(0)),
    Mistake(_ONE_TOKEN, _after_token(-1)),
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
_OTHER = (  # another template: its header has two tokens, and nothing follows a stop token
    torch.tensor([7, 3, 4, 6, 7, 5, 9, 3, 6, 7, 3, 8, 6, 7, 5, 6, 7, 3, 6]),
    torch.tensor([7, 5]),
    6,
)


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
        cases += [_OTHER] if rows is _WHOLE else []
        count += len(cases)
        result = grade(mask, reference, mistakes, cases)
        if not result.passed:
            named = result.message in [mistake.sentence for mistake in mistakes]
            return result if named else Grade(False, result.message + note)
    return Grade(True, f"Your function is right on all {count} inputs.")


def _batch_loss(token_losses: Tensor, mask: Tensor) -> float:
    return (token_losses[mask].sum() / mask.sum()).item()


def _row_means(losses: Tensor, mask: Tensor) -> Tensor:
    """Return the mean of each row, NaN where nothing is trained; shape (B,)."""
    return (losses * mask).sum(dim=1) / mask.sum(dim=1)


_ROWS = (
    "You averaged each row, then the rows: a token of a short answer counts for more than one "
    "of a long answer. Divide the sum over the batch by the trained tokens of the batch."
)
BATCH_LOSS = [
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).mean().item()),
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).nanmean().item()),
    Mistake(_ROWS, lambda losses, mask: _row_means(losses, mask).nan_to_num().mean().item()),
    Mistake(
        "You divided by the number of all tokens: divide by the number of trained ones.",
        lambda losses, mask: (losses * mask).mean().item(),
    ),
    Mistake(
        "You returned the sum: divide it by the number of trained tokens.",
        lambda losses, mask: (losses * mask).sum().item(),
    ),
    Mistake(
        "You did not apply the mask: the prompt's tokens are in your mean.",
        lambda losses, mask: losses.mean().item(),
    ),
    Mistake(
        "You summed the losses of all tokens and divided by the number of trained ones: the "
        "mask belongs to the sum too.",
        lambda losses, mask: (losses.sum() / mask.sum()).item(),
    ),
    Mistake(
        "You divided by the number of rows: that is the loss of a conversation, and long "
        "answers make it large. Divide by the number of trained tokens.",
        lambda losses, mask: ((losses * mask).sum() / len(losses)).item(),
    ),
    Mistake(
        "Your mask is inverted: you averaged what is not trained.",
        lambda losses, mask: losses[~mask].mean().item(),
    ),
    Mistake(
        "You shifted the mask: entry t of the mask belongs to loss t.",
        lambda losses, mask: _batch_loss(losses[:, :-1], mask[:, 1:]),
    ),
]


def grade_batch_loss(fn: Callable[[Tensor, Tensor], float]) -> Grade:
    """Grade the mean loss per trained token of a batch.

    Args:
        fn: Takes the loss of each token in nats, float32, shape (B, T), and a boolean mask of
            that shape, true where the token is trained; returns the mean over the trained
            tokens of the batch, a float or a tensor of one number.

    Returns:
        The grade.

    Chapter: sft/fine_tuning.
    """
    masks = [
        [[0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0, 1, 0]],
        [[0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]],
        [[0, 0, 1, 1, 0]],
        [[0, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 1]],  # the middle row trains nothing
    ]
    cases = []
    for seed, rows in enumerate(masks):
        mask = torch.tensor(rows, dtype=torch.bool)
        cases.append((4 * random_numbers(*mask.shape, seed=seed).abs(), mask))

    def reference(token_losses: Tensor, mask: Tensor) -> float:
        return _batch_loss(token_losses, mask)

    return grade(fn, reference, BATCH_LOSS, cases)
