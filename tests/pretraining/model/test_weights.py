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
        ({"model_type": "qwen3"}, "'qwen3' .qwen3 norms queries and keys in each layer.: this "
                                  "GPT reads llama and qwen2"),
        ({"model_type": "gemma2"}, "'gemma2' .gemma2 scales its embeddings"),
        ({"model_type": "mistral"}, "'mistral' .mistral may attend within a sliding window"),
        ({"model_type": "falcon"}, "model_type is 'falcon': this GPT reads llama and qwen2"),
        ({"model_type": None}, "model_type is None"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}},
         "rope_type is 'llama3', and low_freq_factor, high_freq_factor, original_max"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "rope_type is 'linear'"),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope_type is 'yarn'"),
        ({"rope_scaling": "llama3"}, "rope_parameters is 'llama3': an object is needed"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor is 0.5"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': only 'silu' fits this GPT"),
        ({"attention_bias": True}, "attention_bias or mlp_bias is set"),
        ({"mlp_bias": True}, "attention_bias or mlp_bias is set"),
        ({"model_type": "qwen2", "use_sliding_window": True}, "within a sliding window"),
        ({"model_type": "qwen2", "layer_types": ["full_attention", "sliding_attention"]},
         "within a sliding window"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}},
         "the weights are quantized .'bitsandbytes'.: give the folder of the 16-bit model"),
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
    with pytest.raises(AssetError, match=r"holds no config.json: give a folder of saved"):
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


# --- files as they are found ---


def shard(folder: Path) -> list[Path]:
    """Split the weights into two files with an index, as large models are published."""
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    parts = {"model-00001-of-00002.safetensors": names[::2],
             "model-00002-of-00002.safetensors": names[1::2]}  # fmt: skip
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, folder / file)
    weight_map = {name: file for file, part in parts.items() for name in part}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "model.safetensors").unlink()
    return [folder / file for file in parts]


def test_shards_are_read_together(saved: Path) -> None:
    whole = load_pretrained(saved).state_dict()
    shard(saved)
    assert all(torch.equal(v, whole[k]) for k, v in load_pretrained(saved).state_dict().items())


def test_files_that_cannot_be_read_are_named(saved: Path) -> None:
    first, second = shard(saved)
    second.unlink()
    with pytest.raises(
        AssetError, match=r"lacks model-00002-of-00002.safetensors, one of 2 sh"
    ):
        load_pretrained(saved)
    second.write_bytes(b"no tensors")
    with pytest.raises(AssetError, match=r"model-00002-of-00002.safetensors is damaged"):
        load_pretrained(saved)
    (saved / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(AssetError, match=r"model.safetensors.index.json is damaged"):
        load_pretrained(saved)
    (saved / "model.safetensors.index.json").unlink()
    first.unlink(), second.unlink()
    with pytest.raises(
        AssetError, match=r"holds no model.safetensors: save the model as safet"
    ):
        load_pretrained(saved)
    (saved / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(AssetError, match="only pickled weights, which can run code when they"):
        load_pretrained(saved)
    (saved / "config.json").write_text("{")
    with pytest.raises(AssetError, match=r"config.json cannot be read"):
        load_pretrained(saved)
    (saved / "config.json").write_text("[]")
    with pytest.raises(AssetError, match=r"config.json is damaged: it holds a list, no object"):
        load_pretrained(saved)


def test_a_shape_that_the_weights_do_not_have_is_named(saved: Path) -> None:
    hf_config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**hf_config, "intermediate_size": 25}))
    with pytest.raises(
        ValueError, match=r"down_proj.weight has shape \(16, 24\), and its config"
    ):
        load_pretrained(saved)


def test_a_tied_head_may_lie_in_the_file_as_well(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    save_file({**tensors, "lm_head.weight": embedding.clone()}, saved / "model.safetensors")
    model = load_pretrained(saved)
    assert model.lm_head.weight is model.embed_tokens.weight


def test_a_head_of_its_own_is_not_lost_where_the_configuration_ties_it(saved: Path) -> None:
    """transformers keeps such a head; without it ours would be another model."""
    tensors = load_file(saved / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"tie_word_embeddings is set, and lm_head.weight is an"
    ):
        load_pretrained(saved)


def test_a_head_that_was_trained_apart_is_not_lost_when_saved(tmp_path: Path) -> None:
    model = GPT(GPTConfig(vocab_size=11, hidden_size=16, num_attention_heads=2))
    model.lm_head.weight = torch.nn.Parameter(model.embed_tokens.weight.detach() + 1)
    with pytest.raises(ValueError, match="the model cannot be saved as it is: tie_word_embed"):
        save_pretrained(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_weights_of_a_bare_model_have_no_prefix(saved: Path) -> None:
    tensors = load_file(saved / "model.safetensors")
    save_file(
        {k.removeprefix("model."): v for k, v in tensors.items()}, saved / "model.safetensors"
    )
    load_pretrained(saved)


def test_wrappers_leave_no_trace_in_files(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT(config_from_hf({**LLAMA, "tie_word_embeddings": False}))
    part = GPT(model.config)
    part.load_state_dict(model.state_dict())
    part.layers[1] = torch.compile(part.layers[1])  # type: ignore[assignment]
    for wrapped in (model, torch.compile(model), torch.nn.DataParallel(model), part,
                    torch.compile(torch.nn.DataParallel(model))):  # fmt: skip
        save_pretrained(wrapped, tmp_path)  # type: ignore[arg-type]
        back = load_pretrained(tmp_path).state_dict()
        assert all(torch.equal(value, back[name]) for name, value in model.state_dict().items())


def test_a_model_with_adapters_is_not_saved_as_a_plain_one(tmp_path: Path) -> None:
    model = GPT(config_from_hf(LLAMA))
    model.layers[0].self_attn.q_proj = torch.nn.Sequential(torch.nn.Linear(16, 16))
    with pytest.raises(ValueError, match="is no weight of a plain model: fold adapters"):
        save_pretrained(model, tmp_path / "model")
    assert not (tmp_path / "model").exists()
