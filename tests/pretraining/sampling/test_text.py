"""posttrain.pretraining.sampling.text: texts longer than the model's context."""

from typing import Any

import pytest
import torch
from torch import nn

from posttrain.pretraining.data import CharTokenizer
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.sampling.generation import SamplingParams
from posttrain.pretraining.sampling.text import write_text

TOKENIZER = CharTokenizer("\nabcdefghi")


def tiny(context: int = 8) -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=10, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=context, initializer_range=1.0,
    )  # fmt: skip
    return GPT(config)


def test_the_base_seed_stands_in_for_a_seed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTTRAIN_SEED", "1000")
    left_out = write_text(tiny(), TOKENIZER, length=40)
    assert left_out == write_text(tiny(), TOKENIZER, length=40, seed=1000)
    assert left_out != write_text(tiny(), TOKENIZER, length=40, seed=0)


@pytest.mark.parametrize("context", [1, 2, 5, 8])
@pytest.mark.parametrize("length", [0, 1, 4, 8, 9, 30])
def test_texts_have_the_length_that_was_asked_for(context: int, length: int):
    texts = write_text(tiny(context), TOKENIZER, length=length, texts=3)
    assert [len(text) for text in texts] == [length] * 3
    assert set("".join(texts)) <= set(TOKENIZER.characters)


@pytest.mark.parametrize("prompt", ["\n", "abc", "abcdefghi" * 5])
def test_the_prompt_is_read_and_left_out(prompt: str):
    texts = write_text(
        tiny(), TOKENIZER, prompt, length=20, params=SamplingParams(temperature=0)
    )
    greedy, ids = "", TOKENIZER.encode(prompt)
    for position in range(20):
        start = -4 - position % 4  # half of the context, and what this sitting wrote
        token = tiny()(torch.tensor([ids[start:]]))[0, -1].argmax().item()
        ids.append(int(token))
        greedy += TOKENIZER.decode([int(token)])
    assert texts == [greedy]


def test_dropout_does_not_change_a_text():
    greedy = SamplingParams(temperature=0)
    model, dropping = tiny(), tiny()
    dropping.layers[0].mlp = nn.Sequential(dropping.layers[0].mlp, nn.Dropout(0.5))
    dropping.train()
    first, second = (
        write_text(dropping, TOKENIZER, length=30, params=greedy) for _ in range(2)
    )
    assert first == second == write_text(model, TOKENIZER, length=30, params=greedy)
    assert all(module.training for module in dropping.modules())


def test_the_seed_decides_and_nothing_else():
    def write(seed: int) -> list[str]:
        return write_text(tiny(), TOKENIZER, length=40, texts=2, seed=seed)

    first = write(1)
    torch.rand(5)
    assert write(1) == first != write(2)
    assert first[0] != first[1]


def test_writing_does_not_disturb_the_global_generator():
    model = tiny()
    before = torch.get_rng_state()
    write_text(model, TOKENIZER, length=20)
    assert torch.equal(torch.get_rng_state(), before)


def test_sittings_draw_numbers_of_their_own():
    """A uniform model writes the draws themselves: no sitting repeats another."""
    model = tiny()
    torch.nn.init.zeros_(model.embed_tokens.weight)
    params = SamplingParams(temperature=1.0)
    text = write_text(model, TOKENIZER, length=40, params=params)[0]
    assert len({text[i : i + 4] for i in range(0, 40, 4)}) == 10


def test_stop_tokens_do_not_end_a_text():
    every = SamplingParams(temperature=1.0, stop_token_ids=tuple(range(10)))
    assert len(write_text(tiny(), TOKENIZER, length=20, params=every)[0]) == 20


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": ""}, "the prompt is empty: give at least one character"),
        ({"prompt": "a?"}, r"the character '\?' is not among the 10"),
        ({"length": -1}, "length is -1 and texts is 1: give at least 0 characters and 1 text"),
        ({"texts": 0}, "length is 400 and texts is 0"),
    ],
)
def test_bad_arguments_are_one_clear_sentence(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        write_text(tiny(), TOKENIZER, **arguments)


def test_another_models_tokenizer_is_named():
    with pytest.raises(ValueError, match="is outside this vocabulary of 2: decode with the"):
        write_text(tiny(), CharTokenizer("\na"), length=50)
