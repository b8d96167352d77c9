"""posttrain.pretraining.model.kv_cache: a cached pass equals an uncached one; bad input."""

import pytest
import torch
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.kv_cache import KVCache
from posttrain.pretraining.sampling.decoding import PackedGPT

STYLES = {"llama": {"num_key_value_heads": 2},
          "gpt2": {"norm": "layernorm", "position": "learned", "mlp": "gelu"}}  # fmt: skip


def tiny(style: str = "llama") -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=23, hidden_size=32, num_hidden_layers=2, max_position_embeddings=16,
        initializer_range=0.3, **STYLES[style],
    )  # fmt: skip
    return GPT(config).eval()


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("chunks", [(13,), (1,) * 13, (5, 8), (7, 1, 1, 4), (12, 1)])
@torch.no_grad()
def test_reading_in_chunks_equals_reading_at_once(style: str, chunks: tuple[int, ...]) -> None:
    model = tiny(style)
    ids = torch.randint(23, (3, 13), generator=torch.Generator().manual_seed(1))
    cache = model.new_cache(3)
    pieces = [model(piece, cache=cache) for piece in ids.split(list(chunks), dim=1)]
    assert cache.length == 13
    assert_close(torch.cat(pieces, dim=1), model(ids), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("chunks", [(6, 1, 1, 5), (2, 11), (13,)])
@torch.no_grad()
def test_the_same_with_left_padding(style: str, chunks: tuple[int, ...]) -> None:
    model = tiny(style)
    ids = torch.randint(23, (3, 13), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, :3], mask[2, :5] = 0, 0  # the first chunk may be all padding
    cache, pieces, read = model.new_cache(3, 13), [], 0
    for piece in ids.split(list(chunks), dim=1):
        read += piece.shape[1]
        pieces.append(model(piece, mask[:, :read], cache))
    logits = torch.cat(pieces, dim=1)
    for row, padding in enumerate((0, 3, 5)):
        alone = model(ids[row : row + 1, padding:])
        assert_close(logits[row : row + 1, padding:], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_select_repeats_drops_and_reorders_rows() -> None:
    model = tiny()
    ids = torch.randint(23, (3, 7), generator=torch.Generator().manual_seed(1))
    rows = torch.tensor([2, 0, 0, 2])
    cache = model.new_cache(3)
    model(ids[:, :4], cache=cache)
    chosen = cache.select(rows)
    logits = model(ids[rows, 4:], cache=chosen)
    assert_close(logits, model(ids[rows])[:, 4:], atol=1e-5, rtol=1e-5)
    assert chosen.length == 7 and cache.length == 4  # the first one is left as it was
    assert_close(model(ids[:, 4:], cache=cache), model(ids)[:, 4:], atol=1e-5, rtol=1e-5)


def test_select_by_a_boolean_mask() -> None:
    cache = KVCache(1, 3, 1, 4, 2)
    cache.append(
        0, torch.arange(3.0)[:, None, None, None].expand(3, 1, 2, 2), torch.ones(3, 1, 2, 2)
    )
    cache.advance(2)
    chosen = cache.select(torch.tensor([False, True, False]))
    assert chosen.keys.shape == (1, 1, 1, 4, 2)
    assert chosen.keys[0, 0, 0, :, 0].tolist() == [1, 1, 0, 0]


def test_a_full_cache_says_so_and_stays_as_it_was() -> None:
    model = tiny()
    cache = model.new_cache(1, 4)
    model(torch.ones(1, 3, dtype=torch.long), cache=cache)
    with pytest.raises(
        ValueError, match="the cache holds 4 positions and 5 are needed: make it"
    ):
        model(torch.ones(1, 2, dtype=torch.long), cache=cache)
    assert cache.length == 3


def test_a_cache_for_another_batch_is_refused() -> None:
    model = tiny()
    with pytest.raises(ValueError, match="the cache holds 2 sequences and 1 are given"):
        model(torch.ones(1, 3, dtype=torch.long), cache=model.new_cache(2))


def test_new_cache_fits_the_model() -> None:
    cache = tiny().bfloat16().new_cache(5)
    assert cache.keys.shape == cache.values.shape == (2, 5, 2, 16, 8)
    assert cache.keys.dtype == torch.bfloat16 and cache.length == 0 and cache.max_length == 16


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ((1, 0), "max_length is 0: give a whole number from 1 up"),  # no stand-in for None
        ((0, 4), "batch_size is 0: give a whole number from 1 up"),
        ((1, -4), "max_length is -4"),
        ((True, 4), "batch_size is True"),
    ],
)
def test_an_empty_cache_is_refused(sizes: tuple[int, int], sentence: str) -> None:
    model = GPT(GPTConfig(vocab_size=5, hidden_size=8, num_attention_heads=2))
    for made in (model, PackedGPT(model)):
        with pytest.raises(ValueError, match=sentence):
            made.new_cache(*sizes)
    assert model.new_cache(1).max_length == model.config.max_position_embeddings
