"""Whole models: ours against transformers' Llama and GPT-2, values and every gradient."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig
from transformers import LlamaForCausalLM as Llama

from posttrain.pretraining.model.gpt import GPT, GPTConfig, next_token_loss
from posttrain.pretraining.model.weights import config_from_hf, load_pretrained, save_pretrained

pytestmark = pytest.mark.parity

SHAPES = {
    "tied, grouped": {"num_key_value_heads": 2, "tie_word_embeddings": True},
    "untied, grouped": {"num_key_value_heads": 1, "tie_word_embeddings": False},
    "untied, full": {"num_key_value_heads": 4, "tie_word_embeddings": False},
    "wide heads": {"num_key_value_heads": 2, "tie_word_embeddings": True, "head_dim": 20},
}


def random_llama(**shape: object) -> Llama:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=53,
        hidden_size=32,
        intermediate_size=40,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=24,
        initializer_range=0.2,  # large, so that attention is far from uniform
        rms_norm_eps=1e-5,
        attn_implementation="eager",
        **shape,
    )
    model = Llama(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            nn.init.uniform_(parameter, 0.5, 1.5)
    return model.eval()


def as_ours(llama: Llama) -> GPT:
    model = GPT(config_from_hf(llama.config.to_dict()))
    state = {k.removeprefix("model."): v.clone() for k, v in llama.state_dict().items()}
    model.load_state_dict(state)
    return model


def random_batch(vocab_size: int = 53) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, a mask with left padding in the second row, and labels."""
    ids = torch.randint(vocab_size, (3, 11), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    labels = ids.roll(-1, dims=1)
    labels[:, -1] = -100
    labels[mask == 0] = -100
    return ids, mask, labels


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_gpt_equals_llama_in_values_and_gradients(shape: dict[str, object]) -> None:
    llama = random_llama(**shape)
    ours = as_ours(llama)
    ids, mask, labels = random_batch()
    expected = llama(ids, attention_mask=mask, position_ids=positions(mask)).logits
    logits = ours(ids, mask)
    real = mask.bool()
    assert_close(logits[real], expected[real], atol=1e-5, rtol=1e-5)

    # transformers shifts inside; it shares no token of padding with our labels
    shifted = torch.cat((torch.full_like(labels[:, :1], -100), labels[:, :-1]), dim=1)
    theirs = llama.loss_function(expected, labels=shifted, vocab_size=53)
    loss = next_token_loss(logits, labels)
    assert_close(loss, theirs, atol=1e-5, rtol=1e-5)
    loss.backward()
    theirs.backward()
    for name, parameter in llama.named_parameters():
        own = ours.get_parameter(name.removeprefix("model."))
        assert_close(own.grad, parameter.grad, atol=1e-5, rtol=1e-5)


def positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=-1) - 1).clamp(min=0)


def gpt2_pair() -> tuple[GPT, GPT2LMHeadModel]:
    """A GPT-2 with its biases at 0, and ours with the same weights."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=53, n_positions=24, n_embd=32, n_layer=2, n_head=4, n_inner=40,
        activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        initializer_range=0.2, attn_implementation="eager",
    )  # fmt: skip
    theirs = GPT2LMHeadModel(config).eval()
    ours = GPT(
        GPTConfig(
            vocab_size=53, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=24, norm="layernorm",
            position="learned", mlp="gelu",
        )
    )  # fmt: skip
    with torch.no_grad():
        for own, other in gpt2_weights(ours, theirs):
            own.copy_(other)
    return ours, theirs


def gpt2_weights(ours: GPT, theirs: GPT2LMHeadModel) -> list[tuple[Tensor, Tensor]]:
    """Weights that correspond; GPT-2 keeps matrices as (in, out) and q, k, v side by side."""
    body = theirs.transformer
    pairs = [
        (ours.embed_tokens.weight, body.wte.weight),
        (ours.embed_positions.weight, body.wpe.weight),
        (ours.norm.weight, body.ln_f.weight),
    ]
    for block, other in zip(ours.layers, body.h, strict=True):
        attention = block.self_attn
        stacked = other.attn.c_attn.weight.T.split(32)
        for proj, part in zip("qkv", stacked, strict=True):
            pairs.append((getattr(attention, f"{proj}_proj").weight, part))
        pairs += [
            (attention.o_proj.weight, other.attn.c_proj.weight.T),
            (block.mlp.up_proj.weight, other.mlp.c_fc.weight.T),
            (block.mlp.down_proj.weight, other.mlp.c_proj.weight.T),
            (block.input_layernorm.weight, other.ln_1.weight),
            (block.post_attention_layernorm.weight, other.ln_2.weight),
        ]
    return pairs


def test_gpt_equals_gpt2_in_values_and_gradients() -> None:
    ours, theirs = gpt2_pair()
    ids, mask, labels = random_batch()
    expected = theirs(ids, attention_mask=mask, position_ids=positions(mask)).logits
    logits = ours(ids, mask)
    real = mask.bool()
    assert_close(logits[real], expected[real], atol=1e-5, rtol=1e-5)
    for model_logits in (logits, expected):
        next_token_loss(model_logits, labels).backward()
    gradients = {id(p): p.grad for p in theirs.parameters()}
    own_gradients, their_gradients = [], []
    for own, other in gpt2_weights(ours, theirs):
        base = other if other._base is None else other._base
        gradient = gradients[id(base)]
        own_gradients.append(own.grad)
        their_gradients.append(
            gradient if base is other
            else gradient.as_strided(other.shape, other.stride(), other.storage_offset())
        )  # fmt: skip
    assert len(own_gradients) == len(list(ours.parameters()))
    assert_close(own_gradients, their_gradients, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_weights_load_into_transformers_and_back(
    tmp_path: Path, tied: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=31, hidden_size=24, intermediate_size=36, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=17,
        rope_theta=5_000.0, rms_norm_eps=1e-6, tie_word_embeddings=tied,
        initializer_range=0.1, head_dim=6,
    )  # fmt: skip
    model = GPT(config).to(dtype)
    save_pretrained(model, tmp_path / "ours")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "ours", dtype="auto")
    assert type(theirs) is Llama and theirs.dtype == dtype
    assert theirs.config.rope_parameters["rope_theta"] == 5_000.0
    assert theirs.config.eos_token_id is None  # else text would end at whatever id 2 means
    ids = torch.randint(31, (2, 9))
    if dtype == torch.float32:  # in bfloat16, the order of operations decides the roundings
        assert_close(model(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)

    theirs.save_pretrained(tmp_path / "theirs")
    back = load_pretrained(tmp_path / "theirs", dtype)
    assert back.config == config and not back.training
    assert (back.lm_head.weight is back.embed_tokens.weight) is tied
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name


def test_config_left_out_means_what_llama_means_by_it(tmp_path: Path) -> None:
    bare = {
        "model_type": "llama", "vocab_size": 31, "hidden_size": 24, "intermediate_size": 36,
        "num_hidden_layers": 1, "num_attention_heads": 4,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(bare))
    theirs = LlamaConfig.from_pretrained(tmp_path)
    ours = config_from_hf(bare)
    as_given = {"head_dim": None, "num_key_value_heads": None}  # transformers fills them in
    assert ours == config_from_hf(theirs.to_dict() | as_given)
    assert not ours.tie_word_embeddings and ours.rms_norm_eps == 1e-6
