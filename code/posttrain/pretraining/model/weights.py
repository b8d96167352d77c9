"""Published weights in and out of our GPT, as safetensors with Hugging Face's names.

Chapter: pretraining/gpt.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from posttrain.core.assets import model_folder
from posttrain.core.storage.files import atomic_path, write_json_atomic
from posttrain.pretraining.model.gpt import GPT, GPTConfig

_REQUIRED = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
)
_LLAMA_DEFAULTS = {  # what a config.json that leaves them out means; ours differ
    "num_key_value_heads": None,
    "head_dim": None,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "initializer_range": 0.02,
}
_PREFIX = "model."  # Hugging Face's LlamaForCausalLM keeps all but the head under this name


def config_from_hf(hf_config: dict[str, object]) -> GPTConfig:
    """Read the shape of a Llama-style model from its ``config.json``.

    Args:
        hf_config: The parsed file.

    Returns:
        The same shape as a :class:`GPTConfig`.

    Raises:
        ValueError: If the file describes another architecture, or a variant that is not here.

    Chapter: pretraining/gpt.
    """
    if hf_config.get("model_type") != "llama":
        raise ValueError(
            f"model_type is {hf_config.get('model_type')!r}: only 'llama' weights fit this GPT"
        )
    rope = hf_config.get("rope_parameters") or hf_config.get("rope_scaling") or {}
    assert isinstance(rope, dict)
    rope_type = rope.get("rope_type") or rope.get("type") or "default"  # old files say type
    if rope_type != "default":
        raise ValueError(f"rope_type is {rope_type!r}: only 'default' is implemented")
    if hf_config.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"hidden_act is {hf_config['hidden_act']!r}: only 'silu' fits this GPT"
        )
    if hf_config.get("attention_bias") or hf_config.get("mlp_bias"):
        raise ValueError("this model has biases: only models without them fit this GPT")
    missing = [name for name in _REQUIRED if hf_config.get(name) is None]
    if missing:
        raise ValueError(f"{', '.join(missing)} not in config.json: the shape is not known")
    theta = rope.get("rope_theta") or hf_config.get("rope_theta") or 10_000.0
    values = {name: hf_config.get(name) for name in _REQUIRED}
    for name, default in _LLAMA_DEFAULTS.items():
        given = hf_config.get(name)
        values[name] = default if given is None else given
    return GPTConfig(**values, rope_theta=float(theta))  # type: ignore[arg-type]


def load_pretrained(name_or_folder: str | Path, dtype: torch.dtype = torch.float32) -> GPT:
    """Load a Llama-style model into our GPT.

    Args:
        name_or_folder: A model name that ``posttrain.core.assets`` knows, or a folder with
            ``config.json`` and ``model.safetensors``.
        dtype: Type of the weights.

    Returns:
        The model, in evaluation mode.

    Raises:
        ValueError: If the folder's files do not fit the model.

    Chapter: pretraining/gpt.
    """
    folder = Path(name_or_folder)
    if not (folder / "config.json").is_file():
        if folder.is_dir():
            raise ValueError(f"{folder} holds no config.json: give a folder of saved weights")
        folder = model_folder(str(name_or_folder))
    config = config_from_hf(json.loads((folder / "config.json").read_text()))
    with torch.device("meta"):
        model = GPT(config)
    tensors = load_file(folder / "model.safetensors")
    state = {name.removeprefix(_PREFIX): value.to(dtype) for name, value in tensors.items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["embed_tokens.weight"]
    wrong = set(state) ^ set(model.state_dict())
    if wrong:
        raise ValueError(
            f"{folder} does not fit: {len(wrong)} names differ, {min(wrong)!r} first"
        )
    model.load_state_dict(state, assign=True)
    if config.tie_word_embeddings:
        model.lm_head.weight = model.embed_tokens.weight
    return model.eval()


def save_pretrained(model: GPT, folder: str | Path) -> None:
    """Write a Llama-style model so that ``AutoModelForCausalLM`` loads it.

    Args:
        model: A model with ``"rmsnorm"``, ``"rope"`` and ``"swiglu"``.
        folder: Where ``config.json`` and ``model.safetensors`` go.

    Raises:
        ValueError: If the model is GPT-2-style: Hugging Face's Llama has no place for it.

    Chapter: pretraining/gpt.
    """
    config = model.config
    if (config.norm, config.position, config.mlp) != ("rmsnorm", "rope", "swiglu"):
        raise ValueError(
            f"norm={config.norm!r}, position={config.position!r}, mlp={config.mlp!r} is no "
            "Llama: only 'rmsnorm', 'rope', 'swiglu' can be saved in its format"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    hf_config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "bos_token_id": None,  # left out, they would be 1 and 2, which may be any token here
        "eos_token_id": None,
        "attention_bias": False,
        "mlp_bias": False,
        "head_dim": config.channels_per_head,
        "num_key_value_heads": config.kv_heads,
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "dtype": str(model.embed_tokens.weight.dtype).removeprefix("torch."),
    }
    for name in (*_REQUIRED, *_LLAMA_DEFAULTS):
        hf_config.setdefault(name, getattr(config, name))
    tensors = {
        (name if name == "lm_head.weight" else _PREFIX + name): value.contiguous()
        for name, value in model.state_dict().items()
        if not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    with atomic_path(folder / "model.safetensors") as temporary:
        save_file(tensors, temporary, metadata={"format": "pt"})
    write_json_atomic(folder / "config.json", hf_config)
