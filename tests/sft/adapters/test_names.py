"""posttrain.sft.adapters.names: a layer's name in published files, whatever holds it."""

import torch
from torch import nn

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.names import ends_with, published_name

GPT_ = GPT(GPTConfig(vocab_size=7, hidden_size=8, num_attention_heads=2, num_hidden_layers=1))


def test_our_model_gets_the_prefix_that_published_ones_have() -> None:
    for model in (GPT_, torch.compile(GPT_), nn.DataParallel(GPT_)):
        assert published_name(model, "layers.0.mlp.up_proj") == "model.layers.0.mlp.up_proj"
        assert published_name(model, "lm_head") == "lm_head"
        assert published_name(model, "") == ""


def test_other_models_have_their_names_already() -> None:
    other = nn.ModuleDict({"transformer": nn.Linear(2, 2), "layers": nn.Linear(2, 2)})
    for name in ("transformer.h.0.query_key_value", "layers.0.q_proj", "model.layers.0.q_proj"):
        assert published_name(other, name) == name
    assert published_name(other, "layers.0._orig_mod.q_proj") == "layers.0.q_proj"


def test_last_parts_are_compared_between_dots() -> None:
    assert ends_with("model.layers.0.q_proj", "q_proj")
    assert ends_with("model.layers.0.q_proj", "0.q_proj")
    assert ends_with("lm_head", "lm_head")
    assert not ends_with("model.layers.0.q_proj", "proj")
    assert not ends_with("model.layers.10.q_proj", "0.q_proj")
