"""The loss of a batch and its gradients: ours on a packed row, TRL's on a padded batch."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.core.training.optimization import TrainingConfig
from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.sft.adapters.files import save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.masking import labels_of
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.presets import CPU, SFTPreset
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packing import pack
from posttrain.sft.training.trl_engine import sft_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase
    from trl import SFTTrainer

pytestmark = pytest.mark.parity

LORA = LoRAConfig(r=2, lora_alpha=6)
# rows of 9, 4 and 14 tokens, of which 5, 1 and 9 are trained, in one piece or two
EXAMPLES = [
    EncodedChat([*range(20, 29)], [0, 0, 0, 0, 1, 1, 1, 1, 1]),
    EncodedChat([30, 31, 32, 33], [0, 0, 1, 0]),
    EncodedChat([*range(40, 54)], [0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1]),
]


@pytest.fixture(scope="module")
def pair(
    tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> tuple[GPT, SFTTrainer]:
    """Our model, and TRL's trainer, given the rows as the engine gives them."""
    peft, datasets = pytest.importorskip("peft"), pytest.importorskip("datasets")
    trl, transformers = pytest.importorskip("trl"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("pair")
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, initializer_range=0.3,
    )  # fmt: skip
    save_pretrained(GPT(config), folder / "base")
    ours = load_pretrained(folder / "base")
    inject_lora(ours, LORA, seed=0)
    for name, parameter in lora_parameters(ours).items():
        if name.endswith("lora_B"):
            nn.init.normal_(parameter, std=0.1)
    save_adapter(ours, LORA, folder / "adapter", base_model_name="base")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder / "base")
    trainer = trl.SFTTrainer(
        peft.PeftModel.from_pretrained(base, folder / "adapter", is_trainable=True),
        args=sft_config(preset(folder), folder / "trainer"),
        train_dataset=datasets.Dataset.from_list(
            [{"input_ids": x.input_ids, "assistant_masks": x.assistant_mask} for x in EXAMPLES]
        ),
        processing_class=tokenizer,
    )
    return ours, trainer


def preset(folder: Path) -> SFTPreset:
    training = TrainingConfig(max_steps=1, learning_rate=1e-3, bf16=False)
    return replace(
        CPU, model=str(folder), dtype="float32", batch_size=3, training=training, lora=LORA
    )


def their_batch(trainer: SFTTrainer) -> dict[str, Tensor]:
    return next(iter(trainer.get_train_dataloader()))


def test_trl_trains_the_same_tokens(pair: tuple[GPT, SFTTrainer]) -> None:
    batch = their_batch(pair[1])
    assert batch["input_ids"].shape == (3, 14)
    for ids, labels, example in zip(batch["input_ids"], batch["labels"], EXAMPLES, strict=True):
        n = len(example.input_ids)
        assert ids[:n].tolist() == example.input_ids
        assert labels[:n].tolist() == labels_of(example) and set(labels[n:].tolist()) <= {-100}


def test_value_and_adapter_gradients_equal_trls(pair: tuple[GPT, SFTTrainer]) -> None:
    ours, trainer = pair
    expected = trainer.compute_loss(trainer.model, their_batch(trainer))
    total, terms = sft_loss(ours, pack(EXAMPLES))
    assert terms == 15
    assert_close(total / terms, expected, atol=1e-5, rtol=1e-5)
    (total / terms).backward()
    expected.backward()
    theirs = {
        name.removeprefix("base_model.model.model.").replace(".default.weight", ""): p.grad
        for name, p in trainer.model.named_parameters()
        if p.requires_grad
    }
    own = {name: parameter.grad for name, parameter in lora_parameters(ours).items()}
    assert own.keys() == theirs.keys() and len(own) == 28
    assert all(gradient is not None and gradient.any() for gradient in theirs.values())
    assert_close(own, theirs, atol=1e-5, rtol=1e-5)


def test_trls_mean_is_per_token_too(pair: tuple[GPT, SFTTrainer]) -> None:
    """The rows have 5, 1 and 9 trained tokens: a mean of their means is another number."""
    ours, trainer = pair
    expected = float(trainer.compute_loss(trainer.model, their_batch(trainer)).detach())
    rows = [sft_loss(ours, pack([example])) for example in EXAMPLES]
    per_row = sum(total.item() / terms for total, terms in rows) / 3
    per_token = sum(total.item() for total, _ in rows) / sum(terms for _, terms in rows)
    assert per_token == pytest.approx(expected, abs=1e-5)
    assert abs(per_row - expected) > 0.05
