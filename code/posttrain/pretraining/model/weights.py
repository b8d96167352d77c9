"""Published weights in and out of our GPT, as safetensors with Hugging Face's names.

Two architectures load: ``llama`` (Llama 2 to 3.3, SmolLM2 and what was built like them) and
``qwen2`` (Qwen2, Qwen2.5). What distinguishes them stands in the configuration, so the model
itself asks for no name.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from posttrain.core.assets import model_folder
from posttrain.core.errors import AssetError
from posttrain.core.storage.files import atomic_path, write_json_atomic
from posttrain.core.training.wrappers import plain_name, unwrapped
from posttrain.pretraining.model.config import GPTConfig, RopeScaling
from posttrain.pretraining.model.gpt import GPT

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_PREFIX = "model."  # Hugging Face's models keep all but the head under this name
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Architecture:
    """A family of published models that our GPT can be.

    Attributes:
        hf_class: Name of its class in transformers.
        qkv_bias: Whether queries, keys and values have biases.
        defaults: What a ``config.json`` that leaves them out means; ours differ.
    """

    hf_class: str
    qkv_bias: bool
    defaults: Mapping[str, object]


_COMMON: dict[str, object] = {
    "head_dim": None,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
}
ARCHITECTURES = {
    "llama": Architecture(
        "LlamaForCausalLM",
        qkv_bias=False,
        defaults={**_COMMON, "num_key_value_heads": None, "max_position_embeddings": 2048},
    ),
    "qwen2": Architecture(
        "Qwen2ForCausalLM",
        qkv_bias=True,
        defaults={**_COMMON, "num_key_value_heads": 32, "max_position_embeddings": 32_768},
    ),
}
_WHY_NOT = {  # the reason for those that readers are likeliest to try
    "qwen3": "norms queries and keys in each layer",
    "qwen3_moe": "has experts in place of the feed-forward layer",
    "qwen2_moe": "has experts in place of the feed-forward layer",
    "mixtral": "has experts in place of the feed-forward layer",
    "mistral": "may attend within a sliding window",
    "gemma": "scales its embeddings and norms in ways of its own",
    "gemma2": "scales its embeddings and norms in ways of its own, and caps its scores",
    "gemma3_text": "scales its embeddings and norms in ways of its own",
    "phi3": "joins queries, keys and values, and rotates a part of the channels",
    "gpt2": "has learned positions, biases everywhere and a tanh GELU",
    "smollm3": "has layers without rotary positions",
}


def config_from_hf(hf_config: Mapping[str, Any]) -> GPTConfig:
    """Read the shape of a Llama- or Qwen2-style model from its ``config.json``.

    Args:
        hf_config: The parsed file.

    Returns:
        The same shape as a :class:`GPTConfig`.

    Raises:
        ValueError: If the file describes another architecture, or a variant that is not here.

    Chapter: pretraining/gpt.
    """
    name = hf_config.get("model_type")
    if name not in ARCHITECTURES:
        reason = f" ({name} {_WHY_NOT[name]})" if name in _WHY_NOT else ""
        raise ValueError(
            f"model_type is {name!r}{reason}: this GPT reads {' and '.join(ARCHITECTURES)}; "
            "the engines trl and unsloth train other models"
        )
    _check_variant(hf_config)
    missing = [field for field in _REQUIRED if hf_config.get(field) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not in config.json: the shape is not known")
    architecture = ARCHITECTURES[name]
    values: dict[str, Any] = {field: hf_config[field] for field in _REQUIRED}
    for field, default in architecture.defaults.items():
        given = hf_config.get(field)
        values[field] = default if given is None else given
    theta, scaling = _rope(hf_config)
    return GPTConfig(
        **values, rope_theta=theta, rope_scaling=scaling, qkv_bias=architecture.qkv_bias
    )


def _check_variant(hf_config: Mapping[str, Any]) -> None:
    """Refuse what would make a model of the right name another function."""
    if hf_config.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"hidden_act is {hf_config['hidden_act']!r}: only 'silu' fits this GPT"
        )
    if hf_config.get("attention_bias") or hf_config.get("mlp_bias"):
        raise ValueError(
            "attention_bias or mlp_bias is set: of biases, this GPT has only those of Qwen2's "
            "queries, keys and values"
        )
    if hf_config.get("use_sliding_window") or "sliding_attention" in (
        hf_config.get("layer_types") or ()
    ):
        raise ValueError("some layers attend within a sliding window: that is not here")
    if quantization := hf_config.get("quantization_config"):
        raise ValueError(
            f"the weights are quantized ({dict(quantization).get('quant_method')!r}): give the "
            "folder of the 16-bit model; quantize_model makes 4 bits of it"
        )


def _rope(hf_config: Mapping[str, Any]) -> tuple[float, RopeScaling | None]:
    """Return base and stretching of the rotary frequencies."""
    rope = hf_config.get("rope_parameters") or hf_config.get("rope_scaling") or {}
    if not isinstance(rope, Mapping):
        raise ValueError(f"rope_parameters is {rope!r}: an object is needed")
    theta = float(rope.get("rope_theta") or hf_config.get("rope_theta") or 10_000.0)
    partial = rope.get("partial_rotary_factor", hf_config.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ValueError(f"partial_rotary_factor is {partial}: here all channels are rotated")
    kind = rope.get("rope_type") or rope.get("type") or "default"  # old files say type
    if kind == "default":
        return theta, None
    if kind != "llama3":
        raise ValueError(f"rope_type is {kind!r}: 'default' and 'llama3' are implemented")
    names = [field.name for field in fields(RopeScaling)]
    if missing := [field for field in names if rope.get(field) is None]:
        raise ValueError(f"rope_type is 'llama3', and {', '.join(missing)} is not given")
    return theta, RopeScaling(**{field: rope[field] for field in names})


def load_pretrained(name_or_folder: str | Path, dtype: torch.dtype = torch.float32) -> GPT:
    """Load a Llama- or Qwen2-style model into our GPT.

    Args:
        name_or_folder: A model name that ``posttrain.core.assets`` knows, a folder with
            ``config.json`` and safetensors (one file, or shards with their index), or a
            repository on the hub.
        dtype: Type of the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        AssetError: If files are missing or damaged.
        ValueError: If the folder's files do not fit the model.

    Chapter: pretraining/gpt.
    """  # noqa: DOC502
    folder = model_folder(name_or_folder)
    config = config_from_hf(read_config(folder))
    with torch.device("meta"):
        model = GPT(config)
    state = {
        name.removeprefix(_PREFIX): value
        for file in _weight_files(folder)
        for name, value in _read_tensors(file, dtype).items()
    }
    if config.tie_word_embeddings and "embed_tokens.weight" in state:
        _check_tied(state, f"{folder} does not fit")
        state["lm_head.weight"] = state["embed_tokens.weight"]
    _check_fit(folder, state, model)
    model.load_state_dict(state, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model.eval()


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a model.

    Args:
        folder: The model's folder.

    Returns:
        The parsed file.

    Raises:
        AssetError: If it is missing or damaged.

    Chapter: pretraining/gpt.
    """
    path = folder / "config.json"
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise AssetError(
            f"{folder} holds no config.json: give a folder of saved weights"
        ) from None
    except (OSError, ValueError) as error:
        raise AssetError(f"{path} cannot be read ({error})") from None
    if not isinstance(given, dict):
        raise AssetError(f"{path} is damaged: it holds a {type(given).__name__}, no object")
    return given


def _weight_files(folder: Path) -> list[Path]:
    """List the files that hold the weights: one, or all the shards that the index names."""
    if (folder / _WEIGHTS).is_file():
        return [folder / _WEIGHTS]
    if not (folder / _INDEX).is_file():
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
        why = "only pickled weights, which can run code when they are opened" * pickled
        raise AssetError(
            f"{folder} holds {why or f'no {_WEIGHTS}'}: save the model as safetensors "
            "(save_pretrained of transformers does)"
        )
    try:
        names = set(
            json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        )
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise AssetError(f"{folder / _INDEX} is damaged ({error})") from None
    shards = [folder / Path(str(name)).name for name in sorted(names)]
    if missing := [shard.name for shard in shards if not shard.is_file()]:
        raise AssetError(
            f"{folder} lacks {missing[0]}, one of {len(shards)} shards: download it again"
        )
    return shards


def _read_tensors(file: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Read one file tensor by tensor, so that no two copies of the model lie side by side."""
    try:
        with safe_open(file, framework="pt") as tensors:
            return {name: tensors.get_tensor(name).to(dtype) for name in tensors.keys()}
    except (SafetensorError, OSError) as error:
        raise AssetError(f"{file} is damaged ({error}): download it again") from None


def _check_fit(folder: Path, state: dict[str, Tensor], model: GPT) -> None:
    expected = model.state_dict()
    if wrong := set(state) ^ set(expected):
        raise ValueError(
            f"{folder} does not fit: {len(wrong)} names differ, {min(wrong)!r} first"
        )
    for name, value in state.items():
        if value.shape != expected[name].shape:
            raise ValueError(
                f"{folder} does not fit: {name} has shape {tuple(value.shape)}, and its "
                f"config.json asks for {tuple(expected[name].shape)}"
            )


def _check_tied(state: Mapping[str, Tensor], what: str) -> None:
    """Refuse a head of its own where the configuration says that there is none: it is lost."""
    head, embedding = state.get("lm_head.weight"), state["embed_tokens.weight"]
    if head is not None and head is not embedding and not torch.equal(head, embedding):
        raise ValueError(
            f"{what}: tie_word_embeddings is set, and lm_head.weight is another matrix than "
            "the embedding: say tie_word_embeddings=false in the configuration, or drop the "
            "head"
        )


def config_to_hf(config: GPTConfig) -> dict[str, Any]:
    """Write a Llama- or Qwen2-style shape as Hugging Face's ``config.json``.

    Args:
        config: The model's shape.

    Returns:
        What the file holds, without the type of the weights.

    Raises:
        ValueError: If the model is GPT-2-style: no architecture there has a place for it.

    Chapter: pretraining/gpt.
    """
    if (config.norm, config.position, config.mlp) != ("rmsnorm", "rope", "swiglu"):
        raise ValueError(
            f"norm={config.norm!r}, position={config.position!r}, mlp={config.mlp!r} is no "
            "Llama: only 'rmsnorm', 'rope', 'swiglu' can be saved in its format"
        )
    model_type, architecture = next(
        item for item in ARCHITECTURES.items() if item[1].qkv_bias == config.qkv_bias
    )
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    if config.rope_scaling is not None:
        rope |= {"rope_type": "llama3", **asdict(config.rope_scaling)}
    given = {name: getattr(config, name) for name in (*_REQUIRED, *architecture.defaults)}
    return {
        **given,
        "architectures": [architecture.hf_class],
        "model_type": model_type,
        "hidden_act": "silu",
        "bos_token_id": None,  # left out, they would be 1 and 2, which may be any token here
        "eos_token_id": None,
        "head_dim": config.channels_per_head,
        "num_key_value_heads": config.kv_heads,
        "rope_parameters": rope,
    }


def save_pretrained(model: GPT, folder: str | Path) -> None:
    """Write a Llama- or Qwen2-style model so that ``AutoModelForCausalLM`` loads it.

    Args:
        model: A model with ``"rmsnorm"``, ``"rope"`` and ``"swiglu"``; compiled or wrapped for
            several devices is fine.
        folder: Where ``config.json`` and ``model.safetensors`` go.

    Raises:
        ValueError: If the model is GPT-2-style, or carries adapters or 4-bit weights, which
            this format does not hold, or a head of its own where its shape has none.

    Chapter: pretraining/gpt.
    """  # noqa: DOC502
    model = unwrapped(model)
    config = model.config
    hf_config = config_to_hf(config)
    state = {plain_name(name): value for name, value in model.state_dict().items()}
    with torch.device("meta"):
        plain = GPT(config).state_dict().keys()
    if odd := sorted(state.keys() ^ plain):
        raise ValueError(
            f"{odd[0]} is no weight of a plain model: fold adapters and 4-bit weights in first "
            "(posttrain merge, or plain_model)"
        )
    if config.tie_word_embeddings:
        _check_tied(state, "the model cannot be saved as it is")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hf_config["dtype"] = str(model.embed_tokens.weight.dtype).removeprefix("torch.")
    tensors = {
        (name if name == "lm_head.weight" else _PREFIX + name): value.contiguous()
        for name, value in state.items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    with atomic_path(folder / _WEIGHTS) as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json_atomic(folder / "config.json", hf_config)
