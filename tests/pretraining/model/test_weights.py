"""pretraining.model.weights: what is refused. Round trips: tests/parity/test_gpt.py."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from posttrain.core.errors import AssetError
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import config_from_hf, load_pretrained, save_pretrained

LLAMA = {
    "model_type": "llama", "vocab_size": 23, "hidden_size": 16, "intermediate_size": 24,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
}  # fmt: skip


def test_a_shape_is_read() -> None:
    config = config_from_hf({**LLAMA, "rope_theta": 5e5})
    assert config == GPTConfig(
        vocab_size=23, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=64,
        rope_theta=500_000.0,
    )  # fmt: skip
    nested = {**LLAMA, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}
    assert config_from_hf(nested) == config
    assert config_from_hf(LLAMA).rope_theta == 10_000.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gpt2"}, "model_type is 'gpt2': only 'llama' weights fit this GPT"),
        ({"model_type": None}, "model_type is None"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}},
         "rope_type is 'llama3': only 'default' is implemented"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': only 'silu' fits this GPT"),
        ({"attention_bias": True}, "this model has biases"),
        ({"mlp_bias": True}, "this model has biases"),
        ({"hidden_size": None, "vocab_size": None},
         "vocab_size, hidden_size not in config.json"),
    ],
)  # fmt: skip
def test_what_this_gpt_cannot_be_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_from_hf({**LLAMA, **changes})


def test_only_a_llama_is_saved_in_llamas_format(tmp_path: Path) -> None:
    config = GPTConfig(vocab_size=7, hidden_size=8, norm="layernorm", position="learned")
    with pytest.raises(
        ValueError, match=r"norm='layernorm', position='learned', .* is no Llama"
    ):
        save_pretrained(GPT(config), tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_pretrained(GPT(config_from_hf(LLAMA)), tmp_path)
    return tmp_path


def test_files_hold_each_weight_once_under_hugging_faces_names(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    assert "lm_head.weight" not in tensors and "model.embed_tokens.weight" in tensors
    assert "model.layers.1.self_attn.k_proj.weight" in tensors
    hf_config = json.loads((saved / "config.json").read_text())
    assert hf_config["architectures"] == ["LlamaForCausalLM"] and hf_config["head_dim"] == 4
    assert hf_config["dtype"] == "float32"


def test_dtype_of_the_weights_is_chosen_at_loading(saved: Path) -> None:
    half = load_pretrained(saved, torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    exact = load_pretrained(saved).embed_tokens.weight
    assert torch.equal(half.embed_tokens.weight, exact.bfloat16())


def test_a_loaded_model_can_be_trained(saved: Path) -> None:
    model = load_pretrained(saved)
    model(torch.tensor([[1, 2, 3]])).sum().backward()
    assert all(p.grad is not None and p.is_leaf for p in model.parameters())


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config.json: give a folder of saved"):
        load_pretrained(tmp_path)
    with pytest.raises(AssetError, match="unknown model 'gpt5'"):
        load_pretrained("gpt5")


@pytest.mark.parametrize("change", ["one more", "one less"])
def test_other_weights_are_refused(saved: Path, change: str) -> None:
    tensors = load_file(saved / "model.safetensors")
    if change == "one more":
        tensors["model.layers.0.self_attn.q_norm.weight"] = torch.ones(4)
    else:
        del tensors["model.norm.weight"]
    name = "layers.0.self_attn.q_norm.weight" if change == "one more" else "norm.weight"
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(ValueError, match=f"does not fit: 1 names differ, '{name}' first"):
        load_pretrained(saved)
