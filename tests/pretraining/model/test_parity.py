"""posttrain.pretraining.model.parity: what is drawn. The comparison: tests/parity."""

import random

import pytest

from posttrain.pretraining.model.parity import FAMILIES, draw_shape, random_pair
from posttrain.pretraining.model.weights import config_from_hf


def test_draws_follow_their_generator() -> None:
    for family in FAMILIES:
        one, same, other = (draw_shape(family, random.Random(seed)) for seed in (1, 1, 2))
        assert one == same != other
        config = config_from_hf(one)
        assert config.qkv_bias is (family == "qwen2.5")
        assert (config.rope_scaling is not None) is (family == "llama-3.2")
    with pytest.raises(ValueError, match="there is no family 'gemma': choose one of llama-2"):
        draw_shape("gemma", random.Random(0))


def test_no_weight_is_left_at_its_start() -> None:
    ours, theirs = random_pair(draw_shape("qwen2.5", random.Random(0)), seed=0)
    for model in (ours, theirs):
        for name, parameter in model.named_parameters():
            assert parameter.std() > 0.05 or parameter.numel() == 1, name
