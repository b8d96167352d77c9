"""posttrain.pretraining.sampling.filters: values by hand, the draw's frequencies, bad input."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.testing import assert_close

from posttrain.pretraining.sampling.filters import (
    SamplingParams,
    draw,
    filter_logits,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)

HALVES = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()


def kept(logits: torch.Tensor) -> list[list[int]]:
    return [row.isfinite().nonzero()[:, 0].tolist() for row in logits]


def test_top_k_by_hand() -> None:
    assert kept(keep_top_k(HALVES, 1)) == [[0]]
    assert kept(keep_top_k(HALVES, 2)) == [[0, 1]]
    assert kept(keep_top_k(HALVES, 3)) == [[0, 1, 2, 3]]  # the third and the fourth are equal
    assert torch.equal(keep_top_k(HALVES, 10), HALVES)


@pytest.mark.parametrize(
    ("top_p", "expected"), [(0.3, [0]), (0.6, [0, 1]), (0.74, [0, 1]), (0.8, [0, 1, 2, 3])]
)
def test_top_p_keeps_the_token_that_crosses(top_p: float, expected: list[int]) -> None:
    assert kept(keep_top_p(HALVES, top_p)) == [expected]


def test_top_p_of_a_row_that_is_already_filtered() -> None:
    assert kept(keep_top_p(keep_top_k(HALVES, 2), 0.6)) == [[0]]  # of 2/3 and 1/3
    assert kept(keep_top_p(keep_top_k(HALVES, 2), 0.999)) == [[0, 1]]


def test_top_p_works_for_any_number_of_axes() -> None:
    assert torch.equal(keep_top_p(HALVES[0], 0.6), keep_top_p(HALVES, 0.6)[0])
    assert torch.equal(keep_top_p(HALVES[None], 0.6), keep_top_p(HALVES, 0.6)[None])


@pytest.mark.parametrize(
    ("min_p", "expected"), [(0.01, [0, 1, 2, 3]), (0.3, [0, 1]), (0.6, [0]), (1.0, [0])]
)
def test_min_p_by_hand(min_p: float, expected: list[int]) -> None:
    assert kept(keep_min_p(HALVES, min_p)) == [expected]


def test_what_is_kept_keeps_its_logit() -> None:
    torch.manual_seed(0)
    logits = torch.randn(3, 40)
    for out in (keep_top_k(logits, 9), keep_top_p(logits, 0.7), keep_min_p(logits, 0.2)):
        stays = out.isfinite()
        assert torch.equal(out[stays], logits[stays])
        assert 0 < stays.sum() < logits.numel()


def test_temperature_comes_before_top_p() -> None:
    # At temperature 1/2, 1/2 becomes 16/22 of the mass: alone it is enough for 0.7.
    assert kept(filter_logits(HALVES, SamplingParams(temperature=0.5, top_p=0.7))) == [[0]]
    assert kept(filter_logits(HALVES, SamplingParams(top_p=0.7))) == [[0, 1]]
    assert_close(filter_logits(HALVES, SamplingParams(temperature=0.5)), 2 * HALVES)


@pytest.mark.parametrize("filters", [{"top_k": 2}, {"top_p": 0.7}, {"min_p": 0.4}])
@pytest.mark.parametrize("temperature", [0.3, 2.0])
def test_temperature_last_is_the_other_convention(
    filters: dict[str, float], temperature: float
) -> None:
    # llama.cpp's chain: the filters see temperature 1, which decides what is kept.
    chosen = SamplingParams(temperature=temperature, **filters)
    first = filter_logits(HALVES, chosen)
    last = filter_logits(HALVES, SamplingParams(**filters)) / temperature
    wanted = kept(filter_logits(HALVES, SamplingParams(**filters)))
    assert kept(last) == wanted
    both = first.isfinite() & last.isfinite()
    assert both.any() and torch.equal(first[both], last[both])
    only_ranks = set(filters) == {"top_k"}  # temperature keeps the order
    assert (kept(first) == wanted) is only_ranks


def test_filtered_logits_are_float32() -> None:
    assert filter_logits(HALVES.bfloat16(), SamplingParams()).dtype == torch.float32


@pytest.mark.parametrize(
    "params",
    [SamplingParams(), SamplingParams(temperature=0.6), SamplingParams(top_k=3),
     SamplingParams(temperature=1.4, top_p=0.8), SamplingParams(min_p=0.2)],
)  # fmt: skip
def test_draws_follow_the_filtered_softmax(params: SamplingParams) -> None:
    n, generator = 100_000, torch.Generator().manual_seed(0)
    logits = torch.tensor([2.0, 0.0, 1.0, -1.0, 1.5, -2.0, 0.5])
    uniform = torch.rand(n, generator=generator)
    tokens, _, _ = draw(logits.expand(n, 7), params, uniform)
    expected = filter_logits(logits[None], params).softmax(dim=-1)[0]
    counts = tokens.bincount(minlength=7)
    assert counts[expected == 0].sum() == 0
    possible = expected > 0
    result = scipy.stats.chisquare(
        counts[possible], expected[possible].double() * n, sum_check=False
    )
    assert result.pvalue > 0.01  # one seed, fixed: it passes or fails for ever


def test_draw_inverts_the_cumulative_distribution() -> None:
    # Cumulative: 1/2, 3/4, 7/8, 1. A number on the line belongs to the next token.
    uniform = torch.tensor([0.0, 0.49, 0.5, 0.74, 0.75, 0.9, 1 - 2**-24])
    tokens, _, _ = draw(HALVES.expand(7, 4), SamplingParams(), uniform)
    assert tokens.tolist() == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-24])
def test_a_dropped_token_is_never_drawn(uniform: float) -> None:
    logits = HALVES.flip(-1).repeat(1, 1000).roll(500, dims=1)  # dropped ones at both ends
    logits[:, :2], logits[:, -2:] = -9, -9
    params = SamplingParams(top_k=1)
    token, _, drawn = draw(logits, params, torch.tensor([uniform]))
    assert keep_top_k(logits, 1)[0, token.item()].isfinite() and drawn.isfinite()


def test_log_probabilities_of_a_draw() -> None:
    params = SamplingParams(temperature=0.5, top_k=2)
    token, logp, drawn = draw(HALVES, params, torch.tensor([0.9]))
    # Squared: 1/4, 1/16, 1/64, 1/64, in all 22/64; filtered: 16/20 and 4/20.
    assert token.item() == 1
    assert logp.item() == pytest.approx(math.log(4 / 22))
    assert drawn.item() == pytest.approx(math.log(4 / 20))


def test_greedy_takes_the_likeliest_and_scores_it_at_temperature_one() -> None:
    token, logp, drawn = draw(HALVES, SamplingParams(temperature=0), torch.tensor([0.999]))
    assert token.item() == 0 and drawn.item() == 0
    assert logp.item() == pytest.approx(math.log(0.5))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_logits_that_are_no_numbers_are_refused(temperature: float, value: float) -> None:
    logits = torch.tensor([[0.0, 1.0], [value, 1.0]])
    with pytest.raises(ValueError, match="the logits hold NaN or infinity: the weights are"):
        draw(logits, SamplingParams(temperature=temperature), torch.tensor([0.5, 0.5]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": -1.0}, r"temperature is -1.0: give 0 \(greedy\) or more"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"top_k": -1}, "top_k is -1: give a whole number from 0 up"),
        ({"top_p": 0.0}, "top_p is 0.0: give more than 0 and at most 1"),
        ({"top_p": 1.1}, "top_p is 1.1"),
        ({"top_p": math.nan}, "top_p is nan"),
        ({"min_p": -0.1}, "min_p is -0.1: give between 0 and 1"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0: give a whole number from 1 up"),
        ({"num_generations": 0}, "num_generations is 0: give a whole number from 1 up"),
        ({"num_generations": True}, "num_generations is True: give a whole number"),
        ({"max_new_tokens": 1.5}, "max_new_tokens is 1.5: give a whole number"),
        ({"temperature": "1"}, "temperature is '1': give a number"),
        ({"top_p": True}, "top_p is True: give a number"),
        ({"min_p": None}, "min_p is None: give a number"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SamplingParams(**changes)


def test_top_k_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="top_k is 0: keep at least one token"):
        keep_top_k(HALVES, 0)


@pytest.mark.parametrize(
    "stop", [2, "</s>", None, [None], [[1, 2]], [2, [3]], ["</s>"], [True], [2.0],
             torch.tensor([[1, 2]]), torch.tensor(2)], ids=repr,
)  # fmt: skip
def test_what_is_no_flat_sequence_of_stop_tokens_is_refused(stop: object) -> None:
    """A nested list would stop at some of its tokens, or at none."""
    sentence = "stop_token_ids is .*: give a flat sequence of token ids, such as"
    with pytest.raises(ValueError, match=sentence):
        SamplingParams(stop_token_ids=stop)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "stop",
    [[7, 2], (7, 2), torch.tensor([7, 2]), np.array([7, 2]), [np.int64(7), torch.tensor(2)]],
    ids=lambda stop: type(stop).__name__,
)  # fmt: skip
def test_stop_tokens_are_kept_as_plain_numbers(stop: object) -> None:
    params = SamplingParams(stop_token_ids=stop)  # type: ignore[arg-type]
    assert params.stop_token_ids == (7, 2)
    assert params == SamplingParams(stop_token_ids=(7, 2)) and hash(params)


def test_a_stop_token_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="stop_token_ids holds -1: token ids count from 0"):
        SamplingParams(stop_token_ids=[3, -1])
