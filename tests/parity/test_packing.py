"""A packed row against transformers' Llama on the same conversations, padded and masked."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close
from transformers import LlamaForCausalLM

from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import pack

pytestmark = pytest.mark.parity

LENGTHS = (5, 12, 2, 7)
GENERATOR = torch.Generator().manual_seed(1)
DOCUMENTS = [
    EncodedChat(torch.randint(53, (n,), generator=GENERATOR).tolist(), [0, *[1] * (n - 1)])
    for n in LENGTHS
]


@pytest.fixture(scope="module")
def pair(base: Path) -> tuple[GPT, LlamaForCausalLM]:
    theirs = LlamaForCausalLM.from_pretrained(base, attn_implementation="eager")
    return load_pretrained(base), theirs


def padded(side: str) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and positions of a batch that is padded on one side."""
    ids = torch.zeros(len(LENGTHS), max(LENGTHS), dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, document in enumerate(DOCUMENTS):
        n = len(document.input_ids)
        where = slice(0, n) if side == "right" else slice(max(LENGTHS) - n, None)
        ids[row, where] = torch.tensor(document.input_ids)
        mask[row, where] = 1
    return ids, mask, (mask.cumsum(dim=1) - 1).clamp(min=0)


@pytest.mark.parametrize("side", ["left", "right"])
def test_logits_equal_those_of_a_padded_batch(
    pair: tuple[GPT, LlamaForCausalLM], side: str
) -> None:
    ours, theirs = pair
    ids, mask, positions = padded(side)
    logits = theirs(ids, attention_mask=mask, position_ids=positions).logits
    own = ours.lm_head(packed_hidden(ours, pack(DOCUMENTS)))
    assert own.shape == (sum(LENGTHS), 53)
    assert_close(own, logits[mask.bool()], atol=1e-5, rtol=1e-5)


def test_loss_and_gradients_equal_those_of_a_padded_batch(
    pair: tuple[GPT, LlamaForCausalLM],
) -> None:
    ours, theirs = pair
    ids, mask, positions = padded("right")
    labels = ids.masked_fill(mask == 0, -100)
    logits = theirs(ids, attention_mask=mask, position_ids=positions).logits
    expected = F.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="sum"
    )
    loss, terms = sft_loss(ours, pack(DOCUMENTS))
    assert terms == sum(LENGTHS) - len(LENGTHS)
    assert_close(loss / terms, expected / terms, atol=1e-5, rtol=1e-5)
    for value in (loss, expected):
        (value / terms).backward()
    reference = {n.removeprefix("model."): p.grad for n, p in theirs.named_parameters()}
    gradients = {name: p.grad for name, p in ours.named_parameters()}
    assert gradients.keys() == reference.keys()
    assert_close(gradients, reference, atol=1e-5, rtol=1e-5)
