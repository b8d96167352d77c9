"""A model that answers and is measured, whichever code runs it.

Our GPT speaks for the architectures that it loads, with or without an adapter; transformers and
PEFT speak for all others. Evaluation and chat ask for no more than the few calls below.

Chapter: sft/your_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor

from posttrain.core.assets import load_tokenizer, model_folder
from posttrain.core.machine import preferred_dtype
from posttrain.core.training.modes import evaluation_mode
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import config_from_hf, load_pretrained, read_config
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.filters import SamplingParams
from posttrain.pretraining.sampling.generation import generate
from posttrain.pretraining.sampling.streaming import stream_tokens
from posttrain.sft.adapters.files import load_adapter
from posttrain.sft.adapters.peft_models import load_peft_adapter
from posttrain.sft.chat.masking import IGNORE_INDEX, labels_of
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training.evaluation import conversation_losses, plain_model

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PACKED_PARAMETERS = 500_000_000  # above this, a second copy of the weights costs too much


class Speaker(Protocol):
    """What evaluation and chat need of a model."""

    def losses(self, examples: Sequence[EncodedChat]) -> list[float]:
        """Measure each conversation's mean loss per trained token, in nats."""

    def answers(
        self, prompts: Sequence[Sequence[int]], stop: int, max_new_tokens: int
    ) -> list[list[int]]:
        """Answer each prompt greedily, the stop token left out."""

    def stream(
        self, prompt: Sequence[int], params: SamplingParams, seed: int | None = None
    ) -> Iterator[int]:
        """Answer one prompt token by token."""

    def logits(self, prompt: Sequence[int]) -> Tensor:
        """Give the logits at each position of a prompt, float32, shape (T, V)."""


@dataclass(frozen=True)
class HandSpeaker:
    """Our GPT.

    Attributes:
        model: With its adapter, if there is one.
    """

    model: GPT

    def losses(self, examples: Sequence[EncodedChat]) -> list[float]:
        """Measure each conversation's mean loss; see :class:`Speaker`."""
        sums, counts = conversation_losses(self.model, examples)
        means: list[float] = (sums / counts).tolist()
        return means

    def answers(
        self, prompts: Sequence[Sequence[int]], stop: int, max_new_tokens: int
    ) -> list[list[int]]:
        """Answer greedily; see :class:`Speaker`."""
        params = SamplingParams(
            temperature=0.0, max_new_tokens=max_new_tokens, stop_token_ids=(stop,)
        )
        packed = self._packed()
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
        found: dict[int, list[int]] = {}
        for start in range(0, len(order), 16):
            part = order[start : start + 16]
            rows = generate(packed, [prompts[i] for i in part], params, seed=0).to_lists()
            found |= zip(part, rows, strict=True)
        return [[t for t in found[i] if t != stop] for i in range(len(prompts))]

    def stream(
        self, prompt: Sequence[int], params: SamplingParams, seed: int | None = None
    ) -> Iterator[int]:
        """Answer token by token; see :class:`Speaker`."""
        return stream_tokens(self._packed(), prompt, params, seed=seed)

    @torch.no_grad()
    def logits(self, prompt: Sequence[int]) -> Tensor:
        """Give the logits at each position; see :class:`Speaker`."""
        input_ids = torch.tensor([list(prompt)], device=self.model.device)
        found: Tensor = self.model(input_ids)[0].float().cpu()
        return found

    def _packed(self) -> GPT | PackedGPT:
        size = sum(parameter.numel() for parameter in self.model.parameters())
        if size > _PACKED_PARAMETERS or self.model.device.type != "cpu":
            return self.model
        kept: PackedGPT | None = getattr(self.model, "_packed_copy", None)
        if kept is None:
            kept = PackedGPT(plain_model(self.model))
            object.__setattr__(self.model, "_packed_copy", kept)
        return kept


@dataclass(frozen=True)
class LibrarySpeaker:
    """A transformers model, with a PEFT adapter or without.

    Attributes:
        model: The model.
    """

    model: Any

    @torch.no_grad()
    def losses(self, examples: Sequence[EncodedChat]) -> list[float]:
        """Measure each conversation's mean loss; see :class:`Speaker`."""
        means = []
        for example in examples:
            input_ids = torch.tensor([example.input_ids], device=self.model.device)
            labels = torch.tensor(labels_of(example), device=self.model.device)[1:]
            with evaluation_mode(self.model):
                logits = self.model(input_ids=input_ids).logits[0, :-1].float()
            means.append(
                torch.nn.functional.cross_entropy(
                    logits, labels, ignore_index=IGNORE_INDEX
                ).item()
            )
        return means

    def answers(
        self, prompts: Sequence[Sequence[int]], stop: int, max_new_tokens: int
    ) -> list[list[int]]:
        """Answer greedily; see :class:`Speaker`."""
        params = SamplingParams(
            temperature=0.0, max_new_tokens=max_new_tokens, stop_token_ids=(stop,)
        )
        return [list(self.stream(prompt, params)) for prompt in prompts]

    @torch.no_grad()
    def stream(
        self, prompt: Sequence[int], params: SamplingParams, seed: int | None = None
    ) -> Iterator[int]:
        """Answer token by token; see :class:`Speaker`."""
        from posttrain.pretraining.sampling.filters import draw

        generator = torch.Generator().manual_seed(seed or 0)
        input_ids = torch.tensor([list(prompt)], device=self.model.device)
        past = None
        for _ in range(params.max_new_tokens):
            with evaluation_mode(self.model):
                found = self.model(input_ids=input_ids, past_key_values=past, use_cache=True)
            past = found.past_key_values
            uniform = torch.rand(1, generator=generator).to(input_ids.device)
            token = int(draw(found.logits[:, -1], params, uniform)[0])
            if token in params.stop_token_ids:
                return
            yield token
            input_ids = torch.tensor([[token]], device=input_ids.device)

    @torch.no_grad()
    def logits(self, prompt: Sequence[int]) -> Tensor:
        """Give the logits at each position; see :class:`Speaker`."""
        input_ids = torch.tensor([list(prompt)], device=self.model.device)
        found: Tensor = self.model(input_ids=input_ids).logits[0].float().cpu()
        return found


def is_ours(model: str | Path) -> bool:
    """Say whether our GPT can be a model.

    Args:
        model: As for ``core.assets.model_folder``.

    Returns:
        True where it reads the architecture.

    Chapter: sft/your_model.
    """
    try:
        config_from_hf(read_config(model_folder(model)))
    except ValueError:
        return False
    return True


def load_speaker(
    model: str | Path,
    adapter: Path | None = None,
    *,
    dtype: torch.dtype | None = None,
    quantization: Literal["nf4"] | None = None,
    device: str = "cpu",
) -> tuple[Speaker, PreTrainedTokenizerBase]:
    """Load a model that answers.

    Args:
        model: As for ``core.assets.model_folder``.
        adapter: Folder of an adapter in PEFT's format.
        dtype: Type of the weights; what suits this machine where it is left out.
        quantization: ``"nf4"`` holds the weights in 4 bits.
        device: ``cpu`` or ``cuda``.

    Returns:
        The model and its tokenizer.

    Raises:
        AssetError: If files are missing or damaged.
        ValueError: If the adapter belongs to another model.

    Chapter: sft/your_model.
    """  # noqa: DOC502
    dtype = dtype or preferred_dtype()
    tokenizer = load_tokenizer(model)
    if is_ours(model):
        ours = load_pretrained(model, dtype).to(device)
        ours = quantize_model(ours) if quantization == "nf4" else ours
        if adapter is not None:
            load_adapter(ours, adapter)
        return HandSpeaker(ours.requires_grad_(False).eval()), tokenizer
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype
        )
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        model_folder(model),
        dtype=dtype,
        device_map={"": device},
        trust_remote_code=False,
        use_safetensors=True,
        **options,
    )
    if adapter is not None:
        theirs = load_peft_adapter(theirs, adapter)
    return LibrarySpeaker(theirs.eval()), tokenizer
