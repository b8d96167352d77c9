"""Adapter folders: ours load in PEFT and vLLM, PEFT's load here, and the logits are equal."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig

pytestmark = pytest.mark.parity

IDS = torch.randint(53, (3, 11), generator=torch.Generator().manual_seed(1))
SEVEN = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def fill(parameters: list[nn.Parameter]) -> None:
    torch.manual_seed(1)
    for parameter in parameters:
        if parameter.dim() == 1:  # DoRA's magnitudes
            parameter.data *= torch.rand_like(parameter) + 0.5
        else:
            nn.init.normal_(parameter, std=0.1)


OURS = {
    "lora": LoRAConfig(r=4, lora_alpha=12),
    "rslora": LoRAConfig(r=4, lora_alpha=12, use_rslora=True, lora_dropout=0.1),
    "dora": LoRAConfig(r=4, lora_alpha=12, use_dora=True),
    "some": LoRAConfig(target_modules=("k_proj", "o_proj"), layers_to_transform=(1,)),
    "untied head": LoRAConfig(target_modules=("q_proj", "lm_head")),
}


@pytest.mark.parametrize("config", OURS.values(), ids=OURS.keys())
def test_peft_reads_what_we_write(base: Path, tmp_path: Path, config: LoRAConfig) -> None:
    ours = load_pretrained(base)
    inject_lora(ours, config)
    fill(list(lora_parameters(ours).values()))
    save_adapter(ours.eval(), config, tmp_path, base_model_name=str(base))
    llama = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    theirs = PeftModel.from_pretrained(llama, tmp_path).eval()
    plain = load_pretrained(base)(IDS)
    assert not torch.allclose(ours(IDS), plain, atol=1e-2)
    assert_close(ours(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)
    # PEFT writes the same file: neither lost or invented a tensor
    theirs.save_pretrained(tmp_path / "again")
    written, again = (
        load_file(folder / "adapter_model.safetensors")
        for folder in (tmp_path, tmp_path / "again")
    )
    assert written.keys() <= again.keys()  # it adds the head itself where that is a target
    assert all(torch.equal(written[name], again[name]) for name in written)
    peft_config = theirs.peft_config["default"]
    assert peft_config.base_model_name_or_path == str(base)
    assert peft_config.task_type == "CAUSAL_LM"


THEIRS = {
    "lora": {"target_modules": SEVEN},
    "rslora": {"target_modules": SEVEN, "use_rslora": True},
    "dora": {"target_modules": SEVEN, "use_dora": True, "lora_dropout": 0.1},
    "all-linear": {"target_modules": "all-linear"},
    "pattern": {"target_modules": r".*\.1\.(self_attn\.[qv]|mlp\.up)_proj"},
    "some": {"target_modules": ["k_proj", "o_proj"], "layers_to_transform": 1},
    "whole names": {"target_modules": ["model.layers.1.mlp.up_proj", "0.mlp.up_proj"]},
}


@pytest.mark.parametrize("settings", THEIRS.values(), ids=THEIRS.keys())
@pytest.mark.parametrize("written", [None, "all-linear"])
def test_we_read_what_peft_writes(
    base: Path, tmp_path: Path, settings: dict[str, object], written: str | None
) -> None:
    llama = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    theirs = get_peft_model(llama, LoraConfig(r=4, lora_alpha=12, **settings)).eval()
    fill([p for p in theirs.parameters() if p.requires_grad])
    theirs.save_pretrained(tmp_path)
    if written is not None:  # PEFT saves a list in place of it, other programs do not
        path = tmp_path / "adapter_config.json"
        config = json.loads(path.read_text())
        path.write_text(json.dumps({**config, "target_modules": written,
                                    "layers_to_transform": None}))  # fmt: skip
    ours = load_pretrained(base)
    config = load_adapter(ours, tmp_path)
    assert (config.r, config.lora_alpha) == (4, 12)
    assert_close(ours.eval()(IDS), theirs(IDS).logits, atol=1e-5, rtol=1e-5)


def test_an_adapter_goes_back_and_forth_on_transformers_own_model(
    base: Path, tmp_path: Path
) -> None:
    """Injection and files work on any model; names stay Hugging Face's."""
    config = LoRAConfig(r=2, target_modules=("q_proj", "down_proj"))
    llama = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    inject_lora(llama, config)
    fill(list(lora_parameters(llama).values()))
    save_adapter(llama, config, tmp_path, base_model_name=str(base))
    ours = load_pretrained(base)
    assert load_adapter(ours, tmp_path) == config
    assert_close(ours(IDS), llama(IDS).logits, atol=1e-5, rtol=1e-5)
    again = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    assert load_adapter(again, tmp_path) == config
    assert torch.equal(again(IDS).logits, llama(IDS).logits)


VLLM = """
import sys
from vllm.config.lora import LoRAConfig
from vllm.lora.lora_model import LoRAModel
from vllm.lora.peft_helper import PEFTHelper
import torch
folder, targets = sys.argv[1], set(sys.argv[2].split(","))
helper = PEFTHelper.from_local_dir(folder, max_position_embeddings=24)
helper.validate_legal(LoRAConfig(max_lora_rank=8))
model = LoRAModel.from_local_checkpoint(folder, targets, helper, lora_model_id=1, device="cpu")
rows = {name: (w.lora_a, w.lora_b, w.scaling) for name, w in model.loras.items()}
torch.save(rows, sys.argv[3])
"""


@pytest.mark.slow
def test_vllm_reads_what_we_write(base: Path, tmp_path: Path) -> None:
    pytest.importorskip("vllm.version", reason="vLLM is not installed")
    config = LoRAConfig(r=4, lora_alpha=12, use_rslora=True)
    ours = load_pretrained(base)
    inject_lora(ours, config)
    fill(list(lora_parameters(ours).values()))
    save_adapter(ours, config, tmp_path, base_model_name=str(base))
    command = [sys.executable, "-c", VLLM, str(tmp_path), ",".join(SEVEN), tmp_path / "out.pt"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0, run.stderr[-2000:]
    read = torch.load(tmp_path / "out.pt", weights_only=True)
    layers = lora_layers(ours)
    assert read.keys() == {f"model.{name}" for name in layers}
    for name, layer in layers.items():
        A, B, scaling = read[f"model.{name}"]
        assert torch.equal(A, layer.lora_A) and torch.equal(B, layer.lora_B)
        assert scaling == layer.scaling == 6
