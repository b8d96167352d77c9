"""sft.adapters.peft_models: PEFT's models get the whole adapter, or an error."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from posttrain.core.errors import AssetError
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.adapters.files import CONFIG_NAME, WEIGHTS_NAME, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.adapters.peft_models import check_same_adapter, load_peft_adapter

transformers = pytest.importorskip("transformers")
pytest.importorskip("peft")

CONFIG = LoRAConfig(r=2, lora_alpha=4, target_modules=("q_proj", "up_proj"))
IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


@pytest.fixture
def ours(tiny_base: Path) -> Any:
    model = load_pretrained(tiny_base)
    inject_lora(model, CONFIG, seed=0)
    torch.manual_seed(1)
    for parameter in lora_parameters(model).values():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


@pytest.fixture
def folder(ours: Any, tmp_path: Path) -> Path:
    save_adapter(ours, CONFIG, tmp_path / "adapter", base_model_name="tiny")
    return tmp_path / "adapter"


@pytest.fixture
def theirs(tiny_base: Path) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(tiny_base).eval()


def rename(folder: Path, one: str, other: str) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    changed = {name.replace(one, other): tensor for name, tensor in tensors.items()}
    assert changed.keys() != tensors.keys()
    save_file(changed, folder / WEIGHTS_NAME)


@torch.no_grad()
def test_a_whole_adapter_has_its_effect(ours: Any, theirs: Any, folder: Path) -> None:
    before = theirs(IDS).logits
    model = load_peft_adapter(theirs, folder)
    assert_close(model(IDS).logits, ours(IDS), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model(IDS).logits, before, atol=0.1)
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_it_can_be_trained_further(theirs: Any, folder: Path) -> None:
    model = load_peft_adapter(theirs, folder, trainable=True)
    trained = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trained and all(".lora_" in name for name in trained)


@pytest.mark.parametrize(
    ("one", "other"), [("layers.1.", "layers.7."), ("model.model.model.", "model.model.")]
)
def test_names_that_fit_nothing_are_no_warning(
    theirs: Any, folder: Path, one: str, other: str
) -> None:
    rename(folder, one, other)
    with warnings.catch_warnings(), pytest.raises(ValueError, match="belongs to another model"):
        warnings.simplefilter("error")
        load_peft_adapter(theirs, folder)


def test_an_adapter_with_a_weight_too_few_is_refused(theirs: Any, folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    lost = next(name for name in tensors if "lora_B" in name)
    save_file({n: t for n, t in tensors.items() if n != lost}, folder / WEIGHTS_NAME)
    with pytest.raises(ValueError, match=f"lacks {lost}, of 1 weights in all"):
        load_peft_adapter(theirs, folder)


def test_a_folder_without_an_adapter_is_one_sentence(theirs: Any, tmp_path: Path) -> None:
    with pytest.raises(AssetError, match=r"holds no adapter_model.safetensors"):
        load_peft_adapter(theirs, tmp_path)
    with pytest.raises(AssetError, match=r"holds no adapter_config.json"):
        check_same_adapter(tmp_path, CONFIG)


# --- the settings of an adapter to start from ---


def test_the_same_settings_pass_in_any_order(folder: Path) -> None:
    check_same_adapter(folder, CONFIG)
    check_same_adapter(folder, replace(CONFIG, target_modules=("up_proj", "q_proj")))
    path = folder / CONFIG_NAME
    given = json.loads(path.read_text())
    path.write_text(json.dumps({**given, "target_modules": "all-linear"}))
    check_same_adapter(folder, CONFIG)  # names are compared when it is loaded


@pytest.mark.parametrize(
    "changes",
    [
        {"r": 3}, {"lora_alpha": 8}, {"lora_dropout": 0.1}, {"use_rslora": True},
        {"use_dora": True}, {"target_modules": ("q_proj",)},
    ],
)  # fmt: skip
def test_other_settings_are_named(folder: Path, changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(
        ValueError, match=rf"^{name} is .* in the adapter of .* in the settings"
    ):
        check_same_adapter(folder, replace(CONFIG, **changes))


def test_other_blocks_are_named(ours: Any, tiny_base: Path, tmp_path: Path) -> None:
    model, config = load_pretrained(tiny_base), replace(CONFIG, layers_to_transform=(1,))
    inject_lora(model, config, seed=0)
    save_adapter(model, config, tmp_path, base_model_name="tiny")
    check_same_adapter(tmp_path, config)
    for blocks in (None, (0,)):
        with pytest.raises(ValueError, match=r"^layers_to_transform is "):
            check_same_adapter(tmp_path, replace(config, layers_to_transform=blocks))
