"""posttrain.pretraining.training.metrics: against values worked out by hand."""

import math

import pytest
import torch
from torch import nn

from posttrain.core.stats import wilson_interval
from posttrain.pretraining.data import Batch
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.training.metrics import (
    held_out_losses,
    largest_rise,
    smoothed,
    summed_loss,
    word_share,
    words,
)

CONFIG = GPTConfig(
    vocab_size=11, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
    num_attention_heads=2, max_position_embeddings=8,
)  # fmt: skip


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG)


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(11, (8 * 7 + 4,), generator=torch.Generator().manual_seed(0))


# --- losses ---


def test_the_summed_loss_is_the_sum_over_the_tokens(model: GPT, tokens: torch.Tensor):
    batch = Batch(tokens[:16].view(2, 8), tokens[1:17].view(2, 8))
    loss, count = summed_loss(model, batch)
    log_probabilities = model(batch.input_ids).log_softmax(dim=-1)
    expected = -sum(
        log_probabilities[row, t, batch.labels[row, t]] for row in range(2) for t in range(8)
    )
    assert count == 16
    torch.testing.assert_close(loss, expected)


class Dropping(nn.Module):
    def __init__(self, model: GPT) -> None:
        super().__init__()
        self.model, self.dropout = model, nn.Dropout(0.5)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.model(input_ids))


def test_dropout_does_not_change_a_held_out_loss(model: GPT, tokens: torch.Tensor):
    expected, dropping = held_out_losses(model, tokens, 8), Dropping(model).train()
    assert not torch.equal(dropping(tokens[None, :8]), dropping(tokens[None, :8]))
    state = torch.get_rng_state()
    assert torch.equal(held_out_losses(dropping, tokens, 8), expected)
    assert dropping.training and dropping.dropout.training and model.training
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="the text has the shape"):
        held_out_losses(dropping, tokens, 1000)
    assert dropping.dropout.training


def plain_losses(model: GPT, tokens: torch.Tensor, context: int) -> list[float]:
    losses = []
    for start in range(0, len(tokens) - context, context):
        logits = model(tokens[None, start : start + context])[0]
        wanted = tokens[start + 1 : start + context + 1]
        picked = [logits[t].log_softmax(-1)[wanted[t]].item() for t in range(context)]
        losses.append(-sum(picked) / context)
    return losses


@pytest.mark.parametrize("context", [8, 5])
def test_held_out_losses_equal_a_plain_loop(model: GPT, tokens: torch.Tensor, context: int):
    losses = held_out_losses(model, tokens, context)
    assert losses.dtype == torch.float32 and not losses.requires_grad
    assert losses.tolist() == pytest.approx(plain_losses(model, tokens, context), rel=1e-5)


def test_a_sample_of_windows_has_the_losses_of_those_windows(model: GPT, tokens: torch.Tensor):
    every, some = (
        held_out_losses(model, tokens, 8),
        held_out_losses(model, tokens, 8, max_windows=3),
    )
    assert some.tolist() == pytest.approx(every[[0, 3, 6]].tolist(), rel=1e-5)


def test_a_model_that_knows_nothing_loses_the_logarithm_of_the_vocabulary(tokens):
    class Uniform(nn.Module):
        def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*input_ids.shape, 11)

    losses = held_out_losses(Uniform(), tokens, 8)
    assert losses.tolist() == pytest.approx([math.log(11)] * 7)


def test_bf16_and_a_numbered_device_are_accepted(model: GPT, tokens: torch.Tensor):
    full = held_out_losses(model, tokens, 8, device="cpu:0")
    half = held_out_losses(model, tokens, 8, device="cpu:0", bf16=True)
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    torch.testing.assert_close(full, half, rtol=0.02, atol=0.02)


# --- words ---


def test_words_are_lower_case_runs_of_letters():
    assert words("Thou ART a-weary,\nO'er 3 hills") == ["thou", "art", "weary", "hills"]
    assert words("Thou art", min_letters=4) == ["thou"]
    assert words("") == []


def test_the_share_of_words_by_hand():
    """Counted: 'king', 'zzz' of the first text, 'the' of the second; 'of' is too short."""
    texts = ["cut king zzz of cut", "cut\nthe\ncut", "one", ""]
    share = word_share(texts, {"king", "the", "cut"})
    assert share == wilson_interval(2, 3)
    assert share.value == pytest.approx(2 / 3) and share.n == 3


def test_the_ends_of_a_text_are_not_judged():
    assert word_share(["ing king rom"], {"king"}).value == 1
    assert word_share(["king zzz king"], {"king"}).value == 0


def test_a_word_is_counted_as_often_as_it_is_written():
    assert word_share(["x king king zzz zzz x"], {"king"}).n == 4


@pytest.mark.parametrize("texts", [[], [""], ["alone"], ["two words"], ["cut to me cut"]])
def test_texts_without_a_whole_word_are_refused(texts: list[str]):
    with pytest.raises(ValueError, match="no whole word of 3 letters or more"):
        word_share(texts, {"king"})


def test_a_single_text_is_no_list_of_texts():
    with pytest.raises(ValueError, match=r"texts is 'the king.*: give a sequence of texts"):
        word_share("the king said", {"king"})


# --- curves ---


def test_smoothing_by_hand():
    assert smoothed([1, 3, 2, 4, 9], 2) == [2, 3]  # the last point fills no window
    assert smoothed([1, 3, 2], 1) == [1, 3, 2]
    assert smoothed([1, 3, 2], 3) == [2]
    result = smoothed([1.0, math.nan, 2.0, 4.0], 2)
    assert math.isnan(result[0]) and result[1] == 3


@pytest.mark.parametrize("window", [0, -1, 4])
def test_windows_that_no_curve_fills_are_refused(window: int):
    with pytest.raises(ValueError, match=f"3 points do not fill one window of {window}"):
        smoothed([1, 2, 3], window)


@pytest.mark.parametrize(
    ("values", "rise"),
    [
        ([], 0),
        ([5], 0),
        ([5, 4, 3], 0),
        ([5, 3, 4, 2, 2.5], 1),  # from 3 to 4
        ([3, 4, 1, 1.5], 1),  # the lowest point so far, not the lowest of all
        ([3, 1, 2, 4], 3),  # a rise in two steps
        ([1, 1, 1], 0),
        ([2, math.inf, 1], math.inf),
    ],
)
def test_the_largest_rise_by_hand(values: list[float], rise: float):
    assert largest_rise(values) == rise


@pytest.mark.parametrize("values", [[math.nan], [1, math.nan, 0], [1, 2, math.nan]])
def test_a_curve_with_a_nan_has_no_rise(values: list[float]):
    assert math.isnan(largest_rise(values))
    assert not largest_rise(values) <= 1e9  # no goal is met by it
