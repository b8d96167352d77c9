"""sft.training.packed_forward: packed documents are computed as though each were alone."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.training.failures import LeakyGPT
from posttrain.sft.adapters.injection import inject_lora, lora_parameters
from posttrain.sft.adapters.lora import LoRAConfig
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.training import packed_forward as module
from posttrain.sft.training.loss import sft_loss
from posttrain.sft.training.packed_forward import (
    PackedLayout,
    cached_streams,
    frozen_streams,
    packed_attention,
    packed_hidden,
    packed_stream,
)
from posttrain.sft.training.packing import pack

CONFIG = GPTConfig(
    vocab_size=31, hidden_size=16, intermediate_size=24, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=12,
    initializer_range=0.3,  # large, so that attention is far from uniform
)  # fmt: skip


def gpt(**changes: object) -> GPT:
    torch.manual_seed(0)
    model = GPT(GPTConfig(**{**vars(CONFIG), **changes})).eval()
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    return model


def documents(lengths: tuple[int, ...] = (5, 12, 1, 7), seed: int = 1) -> list[EncodedChat]:
    generator = torch.Generator().manual_seed(seed)
    return [
        EncodedChat(torch.randint(31, (n,), generator=generator).tolist(), [0, *[1] * (n - 1)])
        for n in lengths
    ]


TRAINABLE = documents((5, 12, 2, 7))  # a document of one token has nothing to train


def hidden_alone(model: GPT, document: EncodedChat) -> Tensor:
    """The states before the head, through the ordinary forward pass."""
    seen: list[Tensor] = []
    handle = model.norm.register_forward_hook(lambda *parts: seen.append(parts[2]))
    model(torch.tensor([document.input_ids]))
    handle.remove()
    return seen[0][0]


@pytest.mark.parametrize("changes", [{}, {"num_key_value_heads": 4}, {"head_dim": 6}])
def test_states_and_gradients_are_those_of_each_document_alone(
    changes: dict[str, object],
) -> None:
    model = gpt(**changes)
    batch = pack(TRAINABLE)
    packed = packed_hidden(model, batch)
    alone = torch.cat([hidden_alone(model, document) for document in TRAINABLE])
    assert_close(packed, alone, atol=1e-5, rtol=1e-5)

    slope = torch.randn(packed.shape, generator=torch.Generator().manual_seed(2))
    parameters = [p for n, p in model.named_parameters() if n != "lm_head.weight"]
    ours = torch.autograd.grad((packed * slope).sum(), parameters)
    theirs = torch.autograd.grad((alone * slope).sum(), parameters)
    scale = max(float(gradient.abs().max()) for gradient in theirs)  # far above 1
    for own, other in zip(ours, theirs, strict=True):
        assert other.any()
        assert_close(own / scale, other / scale, atol=1e-5, rtol=1e-5)


def packed_parts(model: GPT, examples: list[EncodedChat]) -> list[Tensor]:
    batch = pack(examples)
    return list(packed_hidden(model, batch).split(batch.lengths))


@torch.no_grad()
def test_packing_never_attends_across_documents() -> None:
    """Another document in its place changes no other's states, not by one bit."""
    model = gpt()
    before = packed_parts(model, TRAINABLE)
    for index in range(len(TRAINABLE)):
        changed = list(TRAINABLE)
        changed[index] = documents((len(changed[index].input_ids),), seed=9)[0]
        after = packed_parts(model, changed)
        same = [torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        assert same == [other != index for other in range(len(TRAINABLE))]


@torch.no_grad()
def test_the_order_and_the_company_of_a_document_do_not_matter() -> None:
    model = gpt()
    before = packed_parts(model, TRAINABLE)
    for order in ([3, 2, 1, 0], [1, 0], [2]):
        after = packed_parts(model, [TRAINABLE[index] for index in order])
        for index, part in zip(order, after, strict=True):
            assert_close(part, before[index], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_later_token_changes_no_earlier_state() -> None:
    model = gpt()
    document = TRAINABLE[1]
    changed = EncodedChat([*document.input_ids[:8], 3, 4, 5, 6], document.assistant_mask)
    before, after = (packed_parts(model, [TRAINABLE[0], d])[1] for d in (document, changed))
    assert torch.equal(before[:8], after[:8]) and not torch.equal(before[8:], after[8:])


def test_a_gradient_stays_in_its_document() -> None:
    model = gpt()
    batch = pack(TRAINABLE)
    x = model.embed_tokens(batch.input_ids).detach().requires_grad_()
    layout = PackedLayout(batch, CONFIG)
    mixed = packed_attention(model.layers[0].self_attn, x, layout)
    assert mixed.shape == x.shape
    mixed.split(batch.lengths)[1].square().sum().backward()
    assert x.grad is not None
    touched = [bool(part.any()) for part in x.grad.split(batch.lengths)]
    assert touched == [False, True, False, False]


def test_rows_go_to_their_slots_and_back() -> None:
    batch = pack(TRAINABLE)
    layout = PackedLayout(batch, CONFIG)
    rows = torch.randn(len(batch.input_ids), 8, dtype=torch.float64, requires_grad=True)
    table = layout.to_table(rows)
    assert table.shape == (4, 2, 12, 4) and not table[0, :, 5:].any()
    assert torch.equal(layout.from_table(table), rows)
    assert torch.autograd.gradcheck(layout.to_table, rows)
    assert torch.autograd.gradcheck(layout.from_table, table.detach().requires_grad_())


def test_learned_positions_are_refused() -> None:
    model = gpt(position="learned", norm="layernorm", mlp="gelu", num_key_value_heads=4)
    with pytest.raises(ValueError, match="only a model with rotary positions reads packed"):
        packed_stream(model, pack(TRAINABLE))


def test_a_document_beyond_the_context_is_refused() -> None:
    with pytest.raises(
        ValueError, match="a document of 13 tokens exceeds the model's context of 12: truncate"
    ):
        packed_hidden(gpt(), pack(documents((3, 13))))


# --- blocks that are run once for all ---


def adapted(blocks: tuple[int, ...] | None = (1, 2)) -> GPT:
    model = gpt()
    inject_lora(model, LoRAConfig(r=2, layers_to_transform=blocks), seed=0)
    torch.manual_seed(3)
    for name, parameter in lora_parameters(model).items():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.1)
    return model


def loss_and_gradients(
    model: GPT, streams: list[Tensor] | None, first_block: int
) -> tuple[Tensor, list[Tensor]]:
    loss, _ = sft_loss(model, pack(TRAINABLE, streams, first_block))
    return loss.detach(), list(torch.autograd.grad(loss, list(lora_parameters(model).values())))


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_frozen_streams_change_neither_loss_nor_gradients(batch_size: int) -> None:
    model = adapted()
    streams = frozen_streams(model, TRAINABLE, 1, batch_size)
    assert [tuple(s.shape) for s in streams] == [(n, 16) for n in (5, 12, 2, 7)]
    assert not any(stream.requires_grad for stream in streams)
    expected = loss_and_gradients(model, None, 0)
    assert all(gradient.any() for gradient in expected[1])
    assert_close(loss_and_gradients(model, streams, 1), expected, atol=1e-5, rtol=1e-5)


def test_streams_are_computed_once_for_the_same_weights_and_tokens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_STREAMS", {})
    model = adapted()
    expected = frozen_streams(model, TRAINABLE, 1)
    first = cached_streams(model, TRAINABLE, 1, "a")
    assert all(torch.equal(a, b) for a, b in zip(first, expected, strict=True))
    untrained = [EncodedChat(x.input_ids, [0, *x.assistant_mask[1:-1], 1]) for x in TRAINABLE]
    assert cached_streams(model, untrained, 1, "a") is first  # what is trained changes nothing
    for other in (
        cached_streams(model, TRAINABLE, 1, "b"),
        cached_streams(model.requires_grad_(False), TRAINABLE, 2, "a"),
        cached_streams(model, TRAINABLE[:2], 1, "a"),
    ):
        assert other is not first


def test_a_block_whose_output_is_given_does_not_run() -> None:
    model = adapted()
    streams = frozen_streams(model, TRAINABLE, 1)
    ran: list[int] = []
    for index, block in enumerate(model.layers):

        def note(*_: object, index: int = index) -> None:
            ran.append(index)

        block.mlp.register_forward_hook(note)
    packed_stream(model, pack(TRAINABLE, streams, 1))
    assert ran == [1, 2]
    ran.clear()
    packed_stream(model, pack(TRAINABLE), last_block=2)
    assert ran == [0, 1]


@pytest.mark.parametrize(
    ("unfreeze", "first_block"),
    [
        (lambda model: model.layers[0].mlp.up_proj.base, 2),
        (lambda model: model.layers[1].input_layernorm, 2),
        (lambda model: model.embed_tokens, 1),
    ],
)  # fmt: skip
def test_trainable_lower_blocks_are_refused(
    unfreeze: Callable[[GPT], torch.nn.Module], first_block: int
) -> None:
    model = adapted((0, 1, 2))
    model.requires_grad_(False)
    frozen_streams(model, TRAINABLE, first_block)
    unfreeze(model).requires_grad_()
    sentence = f"a parameter below block {first_block} is trained, so its output will change"
    with pytest.raises(ValueError, match=sentence):
        frozen_streams(model, TRAINABLE, first_block)
    with pytest.raises(ValueError, match="a parameter below block 1 is trained"):
        frozen_streams(adapted(None), TRAINABLE, 1)


def test_a_model_with_a_mask_of_its_own_is_refused() -> None:
    """The packed pass has the causal mask built in."""
    leaky = LeakyGPT(GPTConfig(vocab_size=31, hidden_size=16, num_attention_heads=2))
    with pytest.raises(ValueError, match="LeakyGPT has a visible of its own, which would be"):
        packed_hidden(leaky, pack([EncodedChat([1, 2, 3], [0, 1, 1])]))
