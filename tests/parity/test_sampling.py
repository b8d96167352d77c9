"""posttrain.pretraining.sampling.generation.generate against transformers' generate."""

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.model.weights import save_pretrained
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.generation import SamplingParams, generate, pad_left

pytestmark = pytest.mark.parity

PROMPTS = [[5, 7, 9, 11], [3], [8, 8, 1], [20, 4]]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    torch.manual_seed(0)
    model = GPT(
        GPTConfig(
            vocab_size=29, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2,
            max_position_embeddings=40, initializer_range=0.4,
        )
    ).eval()  # fmt: skip
    folder = tmp_path_factory.mktemp("tiny")
    save_pretrained(model, folder)
    return model, AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("packed", [False, True])
def test_greedy_text_equals_transformers(pair, packed: bool) -> None:
    ours, theirs = pair
    params = SamplingParams(temperature=0, max_new_tokens=20)
    completions = generate(PackedGPT(ours) if packed else ours, PROMPTS, params)
    ids, mask = pad_left(PROMPTS, 0)
    text = theirs.generate(
        ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0
    )
    assert completions.token_ids.tolist() == text[:, ids.shape[1] :].tolist()
    assert len({tuple(row) for row in completions.to_lists()}) == 4  # four texts, not one loop


def test_stop_tokens_end_the_same_rows_at_the_same_place(pair) -> None:
    ours, theirs = pair
    free = generate(ours, PROMPTS, SamplingParams(temperature=0, max_new_tokens=20))
    stop = [free.token_ids[0, 6].item(), free.token_ids[1, 3].item()]
    params = SamplingParams(temperature=0, max_new_tokens=20, stop_token_ids=stop)
    completions = generate(ours, PROMPTS, params)
    ids, mask = pad_left(PROMPTS, 0)
    text = theirs.generate(
        ids, attention_mask=mask, max_new_tokens=20, do_sample=False, pad_token_id=0,
        eos_token_id=stop,
    )  # fmt: skip
    assert completions.token_ids.tolist() == text[:, ids.shape[1] :].tolist()
    assert completions.stopped[:2].all() and completions.completion_mask.sum() < 4 * 20
