"""posttrain.dpo.runs.start: the adapter that a run starts from, and its model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.errors import AssetError
from posttrain.dpo.presets import T4
from posttrain.dpo.runs.start import (
    adapter_digest,
    adapter_lora,
    check_adapter_fits,
    from_adapter,
)
from posttrain.pretraining.model.config import GPTConfig
from posttrain.sft.adapters.lora import LINEAR_LAYERS
from posttrain.sft.runs.folder import model_digest
from posttrain.sft.runs.own_run import config_of
from tests.dpo.runs.conftest import LORA


@pytest.fixture
def adapter(llama: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(llama / "sft", tmp_path / "sft"))


def rewrite(adapter: Path, **changed: Any) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def test_the_shape_of_an_adapter(adapter: Path) -> None:
    assert adapter_lora(adapter) == LORA
    rewrite(adapter, target_modules="all-linear", layers_to_transform=[0, 1])
    found = adapter_lora(adapter)
    assert set(found.target_modules) == set(LINEAR_LAYERS)
    assert found.layers_to_transform == (0, 1)


def test_what_a_run_takes_from_its_adapter(adapter: Path, llama: Path) -> None:
    found = from_adapter(T4, adapter, None, []).start
    assert found.model == str(llama / "base") and found.lora == LORA
    assert (found.chat_format, found.quantization) == ("llama-3.2", "nf4")  # no record
    for nested in (False, True):
        preset = {"chat_format": "smollm2", "quantization": None}
        record = {
            "status": "finished",
            "identity": {"preset": {"start": preset} if nested else preset},
        }
        (adapter / "run.json").write_text(json.dumps(record))
        found = from_adapter(T4, adapter, None, []).start
        assert (found.chat_format, found.quantization) == ("smollm2", None)
    told = replace(T4, start=replace(T4.start, model="x/y"))
    found = from_adapter(told, adapter, "x/y", ["quantization"]).start
    assert found.model == "x/y" and found.quantization == "nf4"


def test_what_belongs_to_no_run_is_refused(adapter: Path) -> None:
    with pytest.raises(ValueError, match=r"--set lora.r with --adapter"):
        from_adapter(T4, adapter, None, ["loss.beta", "lora.r"])
    (adapter / "adapter_model.safetensors").write_bytes(b"half")
    with pytest.raises(AssetError, match=r"is damaged"):
        from_adapter(T4, adapter, None, [])
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(AssetError, match=r"holds no adapter_model.safetensors"):
        from_adapter(T4, adapter, None, [])


def test_an_adapter_of_another_model(adapter: Path, llama: Path) -> None:
    base = str(llama / "base")
    config = config_of(base)
    check_adapter_fits(adapter, base, config)
    check_adapter_fits(adapter, base, None)
    for changed in (
        {"intermediate_size": 48}, {"num_hidden_layers": 1}, {"num_key_value_heads": 2},
    ):  # fmt: skip
        other = GPTConfig(**{**vars(config), **changed})
        with pytest.raises(ValueError, match=r"does not fit .*give the adapter's own model"):
            check_adapter_fits(adapter, base, other)
    for digest, fits in ((model_digest(llama / "base"), True), ("0" * 16, False)):
        record = {"status": "finished", "identity": {"preset": {"model": digest}}}
        (adapter / "run.json").write_text(json.dumps(record))
        if fits:
            check_adapter_fits(adapter, base, config)
            continue
        with pytest.raises(AssetError, match="was trained beside another model"):
            check_adapter_fits(adapter, base, config)


def test_adapters_are_told_apart(adapter: Path) -> None:
    before = adapter_digest(adapter)
    file = adapter / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    assert adapter_digest(adapter) != before
