"""The same 4 bits by library: a model loaded through transformers and bitsandbytes, on the CPU.

Chapter: sft/qlora.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from posttrain.core.assets import model_folder
from posttrain.core.machine import preferred_dtype
from posttrain.core.storage.conversion import without_progress_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@contextmanager
def _quiet_imports() -> Iterator[None]:
    """Keep out of notebooks what bitsandbytes and torchao log about kernels they lack."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(level)


def load_in_4bit(name: str, *, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """Load a causal language model with its linear layers in NF4 with double quantization.

    Args:
        name: A key of ``posttrain.core.assets.MODELS``.
        dtype: Type of embeddings, norms, head and of all products; ``None`` takes
            ``machine.preferred_dtype``.

    Returns:
        The transformers model in evaluation mode, after :func:`keep_trainable`.

    Chapter: sft/qlora.
    """
    with _quiet_imports():
        import bitsandbytes  # noqa: F401
        import transformers.quantizers.auto  # noqa: F401
        from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = dtype or preferred_dtype()
    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    with without_progress_bars():
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
            model_folder(name),
            quantization_config=config,
            dtype=dtype,
            device_map="cpu",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
        )
    keep_trainable(model)
    return model.eval()


def keep_trainable(model: torch.nn.Module) -> int:
    """Forbid bitsandbytes to repack weights at the first pass in evaluation mode.

    Where the processor has AVX-512 with bfloat16, bitsandbytes 0.50.2 turns each layer into
    another format at that pass, for a faster product. Its scales are then bfloat16, and the new
    product has no gradient: training after an evaluation would leave every layer below
    untrained, without an error. So call this on a 4-bit model that is to be trained on a CPU.

    Args:
        model: A model with bitsandbytes' 4-bit layers, not yet used in evaluation mode.

    Returns:
        How many layers it has.

    Raises:
        ValueError: If it has none, or one is repacked already.

    Chapter: sft/qlora.
    """
    with _quiet_imports():
        from bitsandbytes.nn.modules import Linear4bit

    layers = {n: m for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    if not layers:
        raise ValueError("the model has no 4-bit layer of bitsandbytes")
    for name, layer in layers.items():
        state = getattr(layer.weight, "quant_state", None)
        if getattr(state, "packing_format_for_cpu", False):
            raise ValueError(f"{name} is repacked already and has no gradient: load it again")
        layer.support_avx512bf16_for_cpu = False
    return len(layers)
