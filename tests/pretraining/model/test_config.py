"""posttrain.pretraining.model.config: what it derives and what it refuses."""

import pytest

from posttrain.pretraining.model import gpt
from posttrain.pretraining.model.config import GPTConfig


def test_what_is_left_out_follows_from_the_rest() -> None:
    config = GPTConfig(vocab_size=10, hidden_size=64, num_attention_heads=8)
    assert (config.kv_heads, config.channels_per_head) == (8, 8)
    named = GPTConfig(
        vocab_size=10, hidden_size=64, num_attention_heads=8, num_key_value_heads=2, head_dim=20
    )
    assert (named.kv_heads, named.channels_per_head) == (2, 20)


def test_gpt_has_it_too() -> None:
    assert gpt.GPTConfig is GPTConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 0}, "vocab_size is 0: give a whole number from 1 up"),
        ({"num_hidden_layers": 0}, "num_hidden_layers is 0: give a whole number from 1 up"),
        ({"num_key_value_heads": 0}, "num_key_value_heads is 0: give a whole number from 1 up"),
        (
            {"num_key_value_heads": -1},
            "num_key_value_heads is -1: give a whole number from 1 up",
        ),
        ({"head_dim": 0}, "head_dim is 0: give a whole number from 1 up"),
        ({"num_attention_heads": 3}, "hidden_size 128 does not split over 3 heads"),
        ({"num_key_value_heads": 3}, "4 query heads cannot share 3 key/value heads evenly"),
        ({"head_dim": 7}, "7 channels per head: rotary positions turn pairs"),
        ({"norm": "batchnorm"}, "norm is 'batchnorm': choose one of"),
        ({"position": "alibi"}, "position is 'alibi': choose one of"),
        ({"mlp": "relu"}, "mlp is 'relu': choose one of"),
    ],
)
def test_impossible_shapes_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        GPTConfig(**{"vocab_size": 64, **changes})


def test_learned_positions_allow_odd_heads() -> None:
    assert GPTConfig(vocab_size=4, head_dim=7, position="learned").channels_per_head == 7
