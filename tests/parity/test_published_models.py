"""Llama 3.2 and Qwen2.5, drawn in small, in our GPT and in transformers: the same numbers."""

import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close
from transformers import AutoModelForCausalLM

from posttrain.pretraining.model import attention, gpt, parity
from posttrain.pretraining.model.gpt import GPT
from posttrain.pretraining.model.parity import FAMILIES, compare, draw_shape, random_pair
from posttrain.pretraining.model.weights import load_pretrained, save_pretrained
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.sft.adapters.files import load_adapter, save_adapter
from posttrain.sft.adapters.injection import inject_lora, lora_layers
from posttrain.sft.adapters.lora import LINEAR_LAYERS, LoRAConfig
from posttrain.sft.adapters.merge import merged_state
from posttrain.sft.chat.template import EncodedChat
from posttrain.sft.quantization.nf4_linear import quantize_model
from posttrain.sft.training.evaluation import plain_model
from posttrain.sft.training.packed_forward import packed_hidden
from posttrain.sft.training.packing import pack

pytestmark = pytest.mark.parity
DRAWS = 24  # of each family and property; the comparison of logits and gradients has 40


def drawn(family: str, seed: int) -> tuple[GPT, torch.nn.Module]:
    return random_pair(draw_shape(family, random.Random(f"{family} {seed}")), seed)


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_equal_transformers(family: str) -> None:
    for row in (compare(family, seed) for seed in range(40)):
        assert row.logit_size > 0.2, row  # small logits would agree by themselves
        assert row.logits < 1e-4 and row.gradient < 1e-4, row


def test_draws_reach_every_option() -> None:
    shapes = [draw_shape(f, random.Random(f"{f} {i}")) for f in FAMILIES for i in range(40)]
    for name, least in {
        "tie_word_embeddings": 2,
        "num_hidden_layers": 3,
        "rms_norm_eps": 2,
    }.items():
        counts = Counter(shape[name] for shape in shapes)
        assert len(counts) == least and min(counts.values()) >= 20, counts
    heads = Counter(s["num_attention_heads"] // s["num_key_value_heads"] for s in shapes)
    assert set(heads) == {1, 2, 3} and min(heads.values()) >= 20
    kinds = Counter((s["model_type"], s["rope_parameters"]["rope_type"]) for s in shapes)
    assert kinds == {
        ("llama", "default"): 40,
        ("llama", "llama3"): 40,
        ("qwen2", "default"): 40,
    }


# --- mutants: each must be seen ---


@pytest.mark.parametrize(
    "mutant",
    [
        "factor on all pairs", "mixed the other way", "turns without 2 pi", "no stretching",
        "bias left at zero",
    ],
)  # fmt: skip
def test_a_wrong_model_is_seen(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = attention.rotary_frequencies

    def wrong(head_dim, theta, scaling=None, device=None):
        if scaling is None:
            return right(head_dim, theta, None, device)
        if mutant == "no stretching":
            return right(head_dim, theta, None, device)
        if mutant == "factor on all pairs":
            return right(head_dim, theta, None, device) / scaling.factor
        if mutant == "turns without 2 pi":
            bent = scaling.original_max_position_embeddings * 6.28
            return right(
                head_dim, theta, replace(scaling, original_max_position_embeddings=bent), device
            )
        plain = right(head_dim, theta, None, device)
        return plain + plain / scaling.factor - right(head_dim, theta, scaling, device)

    family = "qwen2.5" if mutant == "bias left at zero" else "llama-3.2"
    if family == "qwen2.5":
        load = parity.load_pretrained

        def without(folder):
            model = load(folder)
            for name, parameter in model.named_parameters():
                if name.endswith("k_proj.bias"):
                    parameter.data.zero_()
            return model

        monkeypatch.setattr(parity, "load_pretrained", without)
    else:
        monkeypatch.setattr(attention, "rotary_frequencies", wrong)
    worst = [compare(family, seed).logits for seed in range(10)]
    assert max(worst) > 1e-2, worst


# --- everything else that a model goes through ---


@pytest.mark.parametrize("family", FAMILIES)
def test_cache_and_packed_decoding_change_nothing(family: str) -> None:
    for seed in range(DRAWS):
        ours, theirs = drawn(family, seed)
        generator = torch.Generator().manual_seed(seed)
        ids = torch.randint(ours.config.vocab_size, (2, 40), generator=generator)
        mask = torch.ones_like(ids)
        mask[1, :5] = 0
        position_ids = (mask.cumsum(-1) - 1).clamp(min=0)
        with torch.no_grad():
            expected = theirs(ids, attention_mask=mask, position_ids=position_ids).logits
            for model in (ours, PackedGPT(ours)):
                cache = model.new_cache(2)
                parts = [
                    model(ids[:, a:b], mask[:, :b], cache)
                    for a, b in ((0, 33), (33, 34), (34, 40))
                ]
                logits = torch.cat(parts, dim=1)
                assert_close(logits[mask.bool()], expected[mask.bool()], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_documents_change_nothing(family: str) -> None:
    for seed in range(DRAWS):
        ours, _ = drawn(family, seed)
        generator = random.Random(seed)
        documents = [
            [
                generator.randrange(ours.config.vocab_size)
                for _ in range(generator.randint(2, 45))
            ]
            for _ in range(3)
        ]
        batch = pack([EncodedChat(ids, [0] + [1] * (len(ids) - 1)) for ids in documents])
        with torch.no_grad():
            logits = ours.lm_head(packed_hidden(ours, batch)).split(batch.lengths)
            for ids, own in zip(documents, logits, strict=True):
                assert_close(own, ours(torch.tensor([ids]))[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_adapters_equal_pefts_and_load_there(family: str, tmp_path: Path) -> None:
    from peft import PeftModel

    for seed in range(20):
        ours, theirs = drawn(family, seed)
        blocks = (0,) if seed % 2 else None
        config = LoRAConfig(
            r=3, use_rslora=seed % 3 == 0, use_dora=seed % 4 == 0, layers_to_transform=blocks,
            target_modules=(*LINEAR_LAYERS, *(("lm_head",) if seed % 5 == 0 else ())),
        )  # fmt: skip
        inject_lora(ours, config, seed=seed)
        for layer in lora_layers(ours).values():
            torch.nn.init.normal_(layer.lora_B, std=0.3)
        save_adapter(ours, config, tmp_path, base_model_name="drawn")
        tuned = PeftModel.from_pretrained(theirs, tmp_path).eval()
        ids = torch.arange(20)[None] % ours.config.vocab_size
        with torch.no_grad():
            expected = tuned(ids).logits
            assert_close(ours(ids), expected, atol=2e-4, rtol=2e-4)
            fresh, _ = drawn(family, seed)
            assert load_adapter(fresh, tmp_path) == config
            assert torch.equal(fresh(ids), ours(ids))
            if "lm_head" not in config.target_modules or not ours.config.tie_word_embeddings:
                assert_close(plain_model(ours)(ids), expected, atol=5e-4, rtol=5e-4)
                assert merged_state(ours).keys() == drawn(family, seed)[0].state_dict().keys()
            cache = (packed := PackedGPT(ours)).new_cache(1)
            logits = packed(ids, torch.ones_like(ids), cache)
            assert_close(logits, expected, atol=5e-4, rtol=5e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_four_bits_keep_the_biases(family: str) -> None:
    for seed in range(20):
        model, _ = drawn(family, seed)
        if model.config.hidden_size % 2 or model.config.intermediate_size % 2:
            continue
        ids = torch.arange(20)[None] % model.config.vocab_size
        quantized = quantize_model(model)
        with torch.no_grad():
            expected = quantized(ids)
            assert_close(plain_model(quantized)(ids), expected, atol=1e-4, rtol=1e-4)
            cache = (packed := PackedGPT(quantized)).new_cache(1)
            assert_close(
                packed(ids, torch.ones_like(ids), cache), expected, atol=1e-4, rtol=1e-4
            )
            adapted = LoRAConfig(r=2)
            inject_lora(quantized, adapted, seed=0)
            assert_close(quantized(ids), expected)
            assert_close(plain_model(quantized)(ids), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_models_are_of_the_same_family(family: str, tmp_path: Path) -> None:
    for seed in range(20):
        ours, theirs = drawn(family, seed)
        save_pretrained(ours, tmp_path)
        back = AutoModelForCausalLM.from_pretrained(tmp_path)
        assert type(back) is type(theirs)
        ids = torch.arange(40)[None] % ours.config.vocab_size
        with torch.no_grad():
            assert_close(back(ids).logits, theirs(ids).logits, atol=1e-6, rtol=1e-6)
        again = load_pretrained(tmp_path)
        assert replace(again.config, head_dim=ours.config.head_dim) == ours.config
        assert torch.equal(again(ids), ours(ids))


def test_a_fresh_model_has_no_bias_yet() -> None:
    model = GPT(gpt.GPTConfig(vocab_size=7, qkv_bias=True))
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert len(biases) == 3 * model.config.num_hidden_layers
    assert not any(bias.any() for bias in biases)
