"""posttrain.sft.adapters.files: a round trip, what is written, and what is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from posttrain.core.errors import AssetError
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig, LoRALinear
from posttrain.sft.adapters.merge import merge_lora

CONFIG = GPTConfig(vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=2)
LORA = LoRAConfig(r=2, lora_alpha=6)
FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"


def gpt() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG)


def adapted(config: LoRAConfig = LORA) -> GPT:
    model = gpt()
    inject_lora(model, config)
    for parameter in lora_parameters(model).values():
        torch.nn.init.normal_(parameter)
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_adapter(adapted(), LORA, tmp_path / "adapter", base_model_name="base")
    return tmp_path / "adapter"


def edit_config(folder: Path, **changes: Any) -> None:
    """Change settings; ``...`` takes one out."""
    path = folder / "adapter_config.json"
    config = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


def edit_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


# --- what is written ---


def test_names_and_settings_are_those_of_peft(folder: Path) -> None:
    assert sorted(p.name for p in folder.iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    config = json.loads((folder / "adapter_config.json").read_text())
    expected = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "base",
        "r": 2, "lora_alpha": 6, "lora_dropout": 0.0, "bias": "none", "use_dora": False,
        "use_rslora": False, "layers_to_transform": None, "inference_mode": True,
        "target_modules": [
            "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
        ],
    }  # fmt: skip
    assert expected.items() <= config.items()
    tensors = load_file(folder / "adapter_model.safetensors")
    assert len(tensors) == 2 * 7 * 2 and FIRST in tensors
    assert tensors["base_model.model.model.layers.1.mlp.down_proj.lora_B.weight"].shape == (
        16,
        2,
    )


@pytest.mark.parametrize(
    "config",
    [
        LORA,
        LoRAConfig(r=3, use_rslora=True, lora_dropout=0.1, target_modules=("up_proj",)),
        LoRAConfig(r=1, use_dora=True, layers_to_transform=(1,)),
        LoRAConfig(r=2, target_modules=("k_proj", "lm_head")),
    ],
)
def test_a_round_trip_changes_no_bit(tmp_path: Path, config: LoRAConfig) -> None:
    model, ids = adapted(config).eval(), torch.arange(9)[None]
    save_adapter(model, config, tmp_path, base_model_name="base")
    loaded = gpt().eval()
    assert load_adapter(loaded, tmp_path) == config
    assert torch.equal(loaded(ids), model(ids))
    assert lora_parameters(loaded).keys() == lora_parameters(model).keys()
    for name, parameter in lora_parameters(loaded).items():
        assert parameter.requires_grad and torch.equal(parameter, lora_parameters(model)[name])


def test_a_merged_model_saves_the_same_adapter(tmp_path: Path, folder: Path) -> None:
    model = adapted()
    merge_lora(model)
    save_adapter(model, LORA, tmp_path / "merged", base_model_name="base")
    for path in folder.iterdir():
        assert (tmp_path / "merged" / path.name).read_bytes() == path.read_bytes()


def test_an_adapter_in_bfloat16_is_read_into_float32(folder: Path) -> None:
    edit_tensors(folder, lambda t: t.update({k: v.bfloat16() for k, v in t.items()}))
    model = gpt()
    load_adapter(model, folder)
    own = lora_parameters(model)["layers.0.self_attn.q_proj.lora_A"]
    theirs = load_file(folder / "adapter_model.safetensors")[FIRST]
    assert own.dtype == torch.float32 and torch.equal(own, theirs.float())


def test_another_configuration_than_the_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"q_proj was injected with LoRAConfig\(r=2.*not with"):
        save_adapter(adapted(), LoRAConfig(r=4), tmp_path / "x", base_model_name="base")
    assert not (tmp_path / "x").exists()


def test_a_crash_leaves_no_adapter_that_is_half_old(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("posttrain.sft.adapters.files.write_json_atomic", fail)
    with pytest.raises(OSError, match="No space"):
        save_adapter(adapted(), LORA, folder, base_model_name="base")
    with pytest.raises(AssetError, match=r"holds no adapter_config\.json"):
        load_adapter(gpt(), folder)


# --- what targets can be ---


def test_all_linear_and_patterns_mean_the_layers_that_the_file_has(tmp_path: Path) -> None:
    targets = ("q_proj", "up_proj")
    config = LoRAConfig(r=2, target_modules=targets)
    model, ids = adapted(config), torch.arange(9)[None]
    save_adapter(model, config, tmp_path, base_model_name="base")
    for given in ("all-linear", r".*\.(q|up)_proj"):
        edit_config(tmp_path, target_modules=given)
        loaded = gpt()
        found = load_adapter(loaded, tmp_path).target_modules
        assert set(found) == {
            f"model.layers.{i}.{name}"
            for i in (0, 1)
            for name in ("self_attn.q_proj", "mlp.up_proj")
        }
        assert torch.equal(loaded(ids), model(ids))


def test_targets_that_the_model_lacks_are_left_out(folder: Path) -> None:
    targets = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    edit_config(folder, target_modules=[*targets, "vision_proj"])
    assert load_adapter(gpt(), folder) == LORA


def test_whole_names_may_be_hugging_faces(tmp_path: Path) -> None:
    targets = ("model.layers.1.mlp.up_proj", "lm_head")
    config = LoRAConfig(r=2, target_modules=targets)
    save_adapter(adapted(config), config, tmp_path, base_model_name="base")
    assert load_adapter(gpt(), tmp_path) == config
    edit_config(tmp_path, target_modules=["lm_head", "layers.1.mlp.up_proj"])
    assert load_adapter(gpt(), tmp_path).target_modules == ("layers.1.mlp.up_proj", "lm_head")


def test_a_single_block_may_be_a_number(tmp_path: Path) -> None:
    config = LoRAConfig(layers_to_transform=(1,))
    save_adapter(adapted(config), config, tmp_path, base_model_name="base")
    edit_config(tmp_path, layers_to_transform=1)
    assert load_adapter(gpt(), tmp_path) == config


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3': only 'LORA' is read here"),
        ({"peft_type": ...}, "peft_type is None"),
        ({"bias": "all"}, "bias is 'all': only 'none'"),
        ({"rank_pattern": {"q_proj": 4}}, r"the adapter uses rank_pattern \({'q_proj': 4}\)"),
        ({"alpha_pattern": {"q_proj": 4}}, "the adapter uses alpha_pattern"),
        ({"modules_to_save": ["lm_head"]}, r"the adapter uses modules_to_save \(\['lm_head'\]"),
        (
            {"fan_in_fan_out": True},
            "uses fan_in_fan_out .*fold it in with PEFT .*or train without",
        ),
        ({"lora_bias": True}, "the adapter uses lora_bias"),
        ({"from_the_future": 3}, "the adapter uses from_the_future"),
        (
            {"init_lora_weights": "pissa"},
            "init_lora_weights is 'pissa', which changes the base",
        ),
        ({"r": ...}, r"adapter_config\.json does not say r$"),
        ({"target_modules": None, "lora_alpha": ...}, "not say lora_alpha, target_modules"),
        ({"r": "two"}, "r is 'two': give a whole number"),
        ({"target_modules": [1]}, r"target_modules is \[1\]: give a tuple of names"),
        ({"target_modules": ["gate"]}, "no linear layer is named 'gate'"),
        ({"target_modules": ["q_proj"]}, "fits nothing here: base_model.* and 23 more"),
        ({"target_modules": []}, r"target_modules is \(\): give a tuple of names"),
        ({"use_dora": True}, "lacks base_model.*lora_magnitude_vector and 13 more"),
        ({"layers_to_transform": [2]}, "layers_to_transform names block 2"),
        ({"r": 3}, r"q_proj.lora_A.weight has shape \(2, 16\), and this .* needs \(3, 16\)"),
    ],
)
def test_settings_that_are_not_here_are_refused(
    folder: Path, changes: dict[str, Any], sentence: str
) -> None:
    edit_config(folder, **changes)
    check_refused(folder, ValueError, sentence)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.pop(FIRST), rf"lacks {FIRST}$"),
        (
            lambda t: t.update(extra=torch.zeros(1)),
            "here: extra .a layer that was trained whole.*merge_and_unload",
        ),
        (lambda t: t.update({FIRST: torch.zeros(2, 8)}), r"shape \(2, 8\), and this model"),
        (lambda t: t.update({FIRST: t[FIRST].int()}), r"torch\.int32, no floating-point type"),
        (lambda t: t[FIRST].fill_(torch.nan), "holds NaN or infinity: the training diverged"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], object], sentence: str
) -> None:
    edit_tensors(folder, change)
    check_refused(folder, ValueError, sentence)


def check_refused(folder: Path, kind: type[Exception], sentence: str) -> None:
    """The model stays as it was, trainable and without adapters."""
    model = gpt()
    with pytest.raises(kind, match=sentence):
        load_adapter(model, folder)
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(isinstance(module, LoRALinear) for module in model.modules())


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path, folder: Path) -> None:
    sentence = r"nowhere holds no adapter_config\.json: give the folder of a saved adapter"
    check_refused(tmp_path / "nowhere", AssetError, sentence)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    check_refused(folder, AssetError, r"adapter_model\.safetensors is damaged: ")
    weights.unlink()
    check_refused(folder, AssetError, r"holds no adapter_model\.safetensors: save the adapter")
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04")
    sentence = r"\(adapter_model\.bin can run code when it is opened, and is not read\): save"
    check_refused(folder, AssetError, sentence)
    weights.write_bytes(whole)
    config.write_text("{")
    check_refused(folder, AssetError, r"adapter_config\.json is damaged: Expecting property")
    config.write_bytes(b"\xff\xfe")
    check_refused(folder, AssetError, r"adapter_config\.json is damaged: 'utf-8' codec")
    config.write_text("[]")
    check_refused(folder, AssetError, r"is damaged: it holds a list, no object")


def test_a_model_with_adapters_is_refused(folder: Path) -> None:
    model = adapted()
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(ValueError, match="has 14 LoRA layers already"):
        load_adapter(model, folder)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_what_is_trained_beside_the_adapter_is_not_lost(tmp_path: Path) -> None:
    config = LoRAConfig(r=2, target_modules=("q_proj",))
    model = GPT(GPTConfig(vocab_size=11, hidden_size=16, num_attention_heads=2))
    inject_lora(model, config, seed=0)
    model.norm.requires_grad_(True)
    sentence = "norm.weight is trained beside the adapter and has no place in its files: freeze"
    with pytest.raises(ValueError, match=sentence):
        save_adapter(model, config, tmp_path / "adapter", base_model_name="x")
    assert not (tmp_path / "adapter").exists()
    model.norm.requires_grad_(False)
    save_adapter(torch.compile(model), config, tmp_path / "adapter", base_model_name="x")
