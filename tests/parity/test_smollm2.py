"""SmolLM2-135M: its published weights give in our GPT what they give in transformers."""

import pytest
import torch
from torch.testing import assert_close

from posttrain.core.assets import load_model, load_tokenizer
from posttrain.core.errors import AssetError
from posttrain.pretraining.model.accounting import parameter_count
from posttrain.pretraining.model.weights import load_pretrained
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.generation import SamplingParams, generate, pad_left

pytestmark = [pytest.mark.parity, pytest.mark.slow]

NAME = "smollm2-135m-instruct"
TEXTS = ["The capital of France is", "Gravity pulls", "def fibonacci(n):\n    if n < 2:\n"]


def test_smollm2_in_our_gpt_gives_transformers_logits() -> None:
    try:
        theirs = load_model(NAME, dtype=torch.float32)
    except AssetError as error:
        pytest.skip(str(error))
    tokenizer = load_tokenizer(NAME)
    ours = load_pretrained(NAME)
    assert parameter_count(ours.config).total == theirs.num_parameters() == 134_515_008

    prompts = [tokenizer.encode(text) for text in TEXTS]
    ids, mask = pad_left(prompts, tokenizer.pad_token_id)
    with torch.no_grad():
        positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)
        expected = theirs(ids, attention_mask=mask, position_ids=positions).logits
        logits = ours(ids, mask)
        packed = PackedGPT(ours)(ids, mask, ours.new_cache(len(prompts), ids.shape[1]))
    real = mask.bool()
    # 30 layers of float32 rounding, on logits as large as 20
    assert_close(logits[real], expected[real], atol=1e-4, rtol=0)
    assert_close(packed[real], expected[real], atol=1e-4, rtol=0)

    text = theirs.generate(
        ids, attention_mask=mask, max_new_tokens=8, min_new_tokens=8, do_sample=False
    )
    completions = generate(ours, prompts, SamplingParams(temperature=0, max_new_tokens=8))
    assert completions.token_ids.tolist() == text[:, ids.shape[1] :].tolist()
    assert "Paris" in tokenizer.decode(completions.to_lists()[0])
