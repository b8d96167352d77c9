"""Hidden states of answers: by hand, and the same in any company."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from posttrain.dpo.judging.answer_features import PLAIN_FORMAT, answer_features
from posttrain.pretraining.model.attention import causal_mask, rotary_angles
from posttrain.pretraining.model.config import GPTConfig
from posttrain.pretraining.model.gpt import GPT
from posttrain.sft.chat.template import encode_chat

CONFIG = GPTConfig(
    vocab_size=49152, hidden_size=16, intermediate_size=32, num_hidden_layers=3,
    num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
    initializer_range=0.3,
)  # fmt: skip
WORDS = "you should rinse the old pan since salt eats its coat and rust comes back soon".split()


def tiny() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).double().eval()


def texts(seed: int, n: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)
    draw = [" ".join(rng.choices(WORDS, k=rng.randint(1, 30))) for _ in range(2 * n)]
    return [f"{text}?" for text in draw[:n]], [f"{text}." for text in draw[n:]]


@pytest.mark.parametrize("layer", [1, 2, 3])
def test_the_states_by_hand(layer: int, tokenizer: Any):
    model, (questions, answers) = tiny(), texts(1, 2)
    found = {
        pooling: answer_features(
            model, tokenizer, questions, answers, layer=layer, pooling=pooling
        )
        for pooling in ("mean", "last")
    }
    for row in range(2):
        text = (
            f"<|im_start|>user\n{questions[row]}<|im_end|>\n"
            f"<|im_start|>assistant\n{answers[row]}<|im_end|>"
        )
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False))
        length = len(tokenizer.encode(answers[row], add_special_tokens=False))
        x = model.embed_tokens(ids[None])
        T = len(ids)
        rotary = rotary_angles(torch.arange(T)[None], 8, CONFIG.rope_theta, None)
        for index, block in enumerate(model.layers[:layer]):
            x = block(x, causal_mask(T, T), rotary, None, index)
        content = x[0, -1 - length : -1]  # without the stop token
        torch.testing.assert_close(found["mean"][row], content.mean(dim=0))
        torch.testing.assert_close(found["last"][row], x[0, -1])
        assert (content.mean(dim=0) - x[0, -1 - length :].mean(dim=0)).abs().max() > 1e-3


@pytest.mark.parametrize("seed", range(20))
def test_company_and_order_play_no_part(seed: int, tokenizer: Any):
    model, (questions, answers) = tiny(), texts(seed, 6)
    pooling: Any = ("mean", "last")[seed % 2]

    def features(rows: list[int], batch_size: int) -> torch.Tensor:
        return answer_features(
            model, tokenizer, [questions[row] for row in rows], [answers[row] for row in rows],
            layer=2, pooling=pooling, batch_size=batch_size,
        )  # fmt: skip

    whole = features(list(range(6)), 6)
    order = random.Random(seed).sample(range(6), 6)
    torch.testing.assert_close(features(order, 4), whole[order], rtol=0, atol=1e-12)
    torch.testing.assert_close(features([3], 1)[0], whole[3], rtol=0, atol=1e-12)
    assert len({tuple(row) for row in whole.round(decimals=6).tolist()}) == 6


def test_the_question_is_read_too(tokenizer: Any):
    model, (questions, answers) = tiny(), texts(1, 2)
    a = answer_features(model, tokenizer, questions, [answers[0]] * 2, layer=1)
    assert (a[0] - a[1]).abs().max() > 1e-6


def test_nothing_is_trained_and_no_dropout_draws(tokenizer: Any):
    model, (questions, answers) = tiny(), texts(2, 3)
    model.layers[0].mlp.register_forward_hook(
        lambda module, _, output: torch.nn.functional.dropout(output, 0.5, module.training)
    )
    expected = answer_features(model, tokenizer, questions, answers, layer=2)
    model.train()
    found = answer_features(model, tokenizer, questions, answers, layer=2)
    assert model.training and not found.requires_grad
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_the_system_message_is_left_out(tokenizer: Any):
    encoded = encode_chat([{"role": "user", "content": "Hi"}], tokenizer, PLAIN_FORMAT)
    assert "system" not in tokenizer.decode(encoded.input_ids)


def test_markers_in_an_answer_are_letters(tokenizer: Any):
    """A model may write them as text; its answer is judged all the same."""
    answer_features(tiny(), tokenizer, ["Why?"], ["So <|im_end|> there."], layer=1)


@pytest.mark.parametrize(
    ("questions", "answers", "options", "message"),
    [
        ([], [], {}, "there are no answers: give at least one"),
        (["a"], ["b", "c"], {}, "there are 1 questions and 2 answers: give one for each"),
        ("a", ["b"], {}, "questions is 'a': give a sequence of texts"),
        (["a", "b"], ["c", " \n"], {}, "answer 1, to 'b', is blank: nothing can be read"),
        (["a"], ["b"], {"layer": 0}, "layer is 0: give a whole number from 1 up"),
        (["a"], ["b"], {"layer": 4}, "layer is 4: give 1 to the model's 3 blocks"),
        (["a"], ["b"], {"pooling": "max"}, "pooling is 'max': give 'mean' or 'last'"),
        (["a"], ["b"], {"batch_size": 0}, "batch_size is 0: give a whole number from 1 up"),
        (["a"], ["b " * 200], {}, "exceeds the model's context of 128"),
    ],
)
def test_what_cannot_be_read(
    tokenizer: Any, questions: Any, answers: Any, options: dict[str, Any], message: str
):
    with pytest.raises(ValueError, match=message):
        answer_features(tiny(), tokenizer, questions, answers, **{"layer": 1, **options})
