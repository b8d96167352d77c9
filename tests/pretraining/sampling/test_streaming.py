"""posttrain.pretraining.sampling.streaming: the same text, piece by piece."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.pretraining.sampling.streaming import stream_text, stream_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
                       max_position_embeddings=32, initializer_range=0.4)  # fmt: skip
    return GPT(config).eval()


def test_greedy_streams_are_what_generate_gives(model: GPT) -> None:
    for seed in range(20):
        prompt = torch.randint(
            23, (1 + seed % 5,), generator=torch.Generator().manual_seed(seed)
        ).tolist()
        params = SamplingParams(temperature=0.0, max_new_tokens=9, stop_token_ids=(seed % 23,))
        expected = generate(model, [prompt], params).to_lists()[0]
        if expected[-1] in params.stop_token_ids:
            expected = expected[:-1]
        assert list(stream_tokens(model, prompt, params)) == expected
        assert list(stream_tokens(PackedGPT(model), prompt, params)) == expected


def test_samples_follow_the_seed(model: GPT) -> None:
    params = SamplingParams(temperature=1.0, max_new_tokens=12)
    one, same, other = (list(stream_tokens(model, [3], params, seed=s)) for s in (1, 1, 2))
    assert one == same != other


def test_a_stream_ends_with_the_context(model: GPT) -> None:
    params = SamplingParams(temperature=0.0, max_new_tokens=100)
    assert len(list(stream_tokens(model, [1] * 30, params))) == 2
    for prompt in ([], [1] * 32):
        with pytest.raises(ValueError, match="give at least one token, and leave room"):
            next(stream_tokens(model, prompt, params))


def test_letters_are_given_whole(tokenizer: PreTrainedTokenizerBase) -> None:
    for text in ("naïve café", "日本語 👩‍👩‍👧‍👦!", "a", "", "  two  spaces\n", "é" * 9):
        ids = tokenizer.encode(text, add_special_tokens=False)
        pieces = list(stream_text(iter(ids), tokenizer))
        assert "".join(pieces) == tokenizer.decode(ids)
        assert not any("\ufffd" in piece for piece in pieces)
    half = tokenizer.encode("日", add_special_tokens=False)[:1]
    assert "".join(stream_text(half, tokenizer)) == tokenizer.decode(half)


def test_dropout_does_not_change_a_stream(model: GPT) -> None:
    params = SamplingParams(temperature=0.0, max_new_tokens=16)
    expected = list(stream_tokens(model, [3, 5], params))
    model.layers[0].mlp = nn.Sequential(model.layers[0].mlp, nn.Dropout(0.5))
    model.train().layers[1].eval()
    modes = [module.training for module in model.modules()]
    found = []
    for token in stream_tokens(model, [3, 5], params):
        found.append(token)
        assert [module.training for module in model.modules()] == modes  # between two tokens
    assert found == expected
    model.norm.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="the logits hold NaN"):
        next(stream_tokens(model, [3], params))
    assert [module.training for module in model.modules()] == modes


@pytest.mark.parametrize("prompt", ["ab", [[1, 2]], [None], 3, [True]], ids=repr)
def test_a_prompt_that_is_no_list_of_ids_is_refused(model: GPT, prompt: Any) -> None:
    with pytest.raises(ValueError, match=r"prompt is .*: give a flat sequence of token ids"):
        next(stream_tokens(model, prompt))


def test_a_stop_token_that_never_comes_is_refused(model: GPT) -> None:
    with pytest.raises(
        ValueError, match="stop_token_ids holds 23 and this model knows 0 to 22"
    ):
        next(stream_tokens(model, [1], SamplingParams(stop_token_ids=(23,))))
