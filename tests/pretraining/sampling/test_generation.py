"""posttrain.pretraining.sampling.generation: log-probabilities, stopping, rows, bad input."""

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from posttrain.pretraining.model.gpt import GPT, GPTConfig
from posttrain.pretraining.sampling.decoding import PackedGPT
from posttrain.pretraining.sampling.generation import (
    Completions,
    SamplingParams,
    generate,
    pad_left,
)

PROMPTS = [[5, 7, 9, 11, 2], [3], [8, 8, 1], [5, 7, 9, 11, 2]]


@pytest.fixture(scope="module")
def model() -> GPT:
    torch.manual_seed(0)
    config = GPTConfig(
        vocab_size=13, hidden_size=32, num_hidden_layers=2, num_key_value_heads=2,
        max_position_embeddings=32, initializer_range=0.3,
    )  # fmt: skip
    return GPT(config).eval()


@torch.no_grad()
def logps_by_a_full_pass(model: GPT, prompt: list[int], tokens: list[int], t: float) -> Tensor:
    """Score a completion without cache, padding or batch."""
    logits = model(torch.tensor([prompt + tokens]))[0, len(prompt) - 1 : -1] / t
    return logits.log_softmax(dim=-1).gather(-1, torch.tensor(tokens)[:, None])[:, 0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(max_new_tokens=16),
        SamplingParams(temperature=0.7, top_k=5, max_new_tokens=16, stop_token_ids=(4, 6)),
        SamplingParams(temperature=1.3, top_p=0.8, num_generations=3, stop_token_ids=[1],
                       max_new_tokens=16),
        SamplingParams(temperature=0, max_new_tokens=16),
    ],
)  # fmt: skip
def test_logps_equal_a_full_forward_pass(
    model: GPT, params: SamplingParams, packed: bool
) -> None:
    completions = generate(PackedGPT(model) if packed else model, PROMPTS, params, seed=1)
    rows = completions.to_lists()
    assert len(rows) == len(PROMPTS) * params.num_generations
    for row, tokens in enumerate(rows):
        prompt = PROMPTS[row // params.num_generations]
        expected = logps_by_a_full_pass(model, prompt, tokens, params.temperature or 1.0)
        assert_close(completions.logps[row, : len(tokens)], expected, atol=1e-5, rtol=1e-5)
        assert (completions.logps[row, len(tokens) :] == 0).all()
    drawn, logps = completions.sampling_logps, completions.logps
    assert (drawn >= logps - 1e-6).all()  # a filter can only raise what it keeps
    if params.temperature and not params.top_k and params.top_p == 1:
        assert_close(drawn, logps)
    assert logps.dtype == drawn.dtype == torch.float32


def test_stop_tokens_end_rows(model: GPT) -> None:
    params = SamplingParams(max_new_tokens=20, num_generations=8, stop_token_ids=(4, 6))
    completions = generate(model, PROMPTS, params, pad_token_id=12, seed=3)
    N, T_new = completions.token_ids.shape
    assert N == 32 and T_new <= 20
    lengths = completions.completion_mask.sum(dim=-1)
    assert lengths.max() == T_new  # as wide as the longest, no wider
    for row, tokens in enumerate(completions.to_lists()):
        assert not {4, 6} & set(tokens[:-1])
        assert completions.stopped[row] == (tokens[-1] in (4, 6))
        assert completions.stopped[row] or len(tokens) == 20
        assert (completions.token_ids[row, len(tokens) :] == 12).all()
        assert completions.completion_mask[row].tolist() == [1] * len(tokens) + [0] * (
            T_new - len(tokens)
        )
    assert 0 < completions.stopped.sum() and lengths.unique().numel() > 3


def test_stopped_rows_leave_the_batch_an_eighth_at_a_time(model: GPT) -> None:
    params = SamplingParams(max_new_tokens=20, num_generations=8, stop_token_ids=(4, 6))
    sizes: list[int] = []
    hook = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    completions = generate(model, PROMPTS, params, seed=3)
    hook.remove()
    lengths = completions.completion_mask.sum(dim=-1)
    assert sizes[0] == len(PROMPTS)  # the prompts, once each
    going = [int((lengths > t).sum()) for t in range(1, len(sizes))]
    assert all(7 / 8 * size < rows <= size for rows, size in zip(going, sizes[1:], strict=True))
    assert going != sizes[1:]  # cutting waits: it copies the cache


def test_what_a_row_draws_does_not_depend_on_when_others_stop(model: GPT) -> None:
    free = generate(
        model, PROMPTS, SamplingParams(max_new_tokens=20, num_generations=4), seed=5
    )
    stops = SamplingParams(max_new_tokens=20, num_generations=4, stop_token_ids=(2, 9))
    ended = generate(model, PROMPTS, stops, seed=5)
    for row, tokens in enumerate(ended.to_lists()):
        assert tokens == free.token_ids[row, : len(tokens)].tolist()
        assert_close(ended.logps[row, : len(tokens)], free.logps[row, : len(tokens)])


def test_a_batch_draws_what_its_prompts_draw_alone(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = SamplingParams(max_new_tokens=12, stop_token_ids=(4,))
    uniform = torch.rand(4, 12, generator=torch.Generator().manual_seed(7))
    together = generate(model, PROMPTS, params, seed=7)
    for row, prompt in enumerate(PROMPTS):
        monkeypatch.setattr(torch, "rand", lambda *a, row=row, **k: uniform[row : row + 1])
        alone = generate(model, [prompt], params)
        monkeypatch.undo()
        tokens = alone.to_lists()[0]
        assert together.to_lists()[row] == tokens
        expected = together.logps[row : row + 1, : len(tokens)]
        assert_close(alone.logps, expected, atol=1e-5, rtol=1e-5)


def test_generations_of_a_prompt_stand_next_to_each_other(model: GPT) -> None:
    params = SamplingParams(temperature=0, max_new_tokens=6)
    once = generate(model, PROMPTS, params).to_lists()
    thrice = generate(
        model, PROMPTS, SamplingParams(temperature=0, max_new_tokens=6, num_generations=3)
    )
    assert thrice.to_lists() == [row for row in once for _ in range(3)]
    sampled = generate(model, [[5]], SamplingParams(max_new_tokens=12, num_generations=6))
    assert len({tuple(row) for row in sampled.to_lists()}) == 6


def test_the_seed_decides(model: GPT) -> None:
    params = SamplingParams(max_new_tokens=12)
    first, again, other = (
        generate(model, PROMPTS, params, seed=s).to_lists() for s in (1, 1, 2)
    )
    assert first == again != other


def test_the_base_seed_stands_in_for_a_seed(
    model: GPT, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTTRAIN_SEED", "1000")
    params = SamplingParams(max_new_tokens=12)
    left_out, zero, base = (
        generate(model, PROMPTS, params, **chosen).token_ids
        for chosen in ({}, {"seed": 0}, {"seed": 1000})
    )
    assert torch.equal(left_out, base) and not torch.equal(left_out, zero)


def test_the_callers_random_numbers_are_left_alone(model: GPT) -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    generate(model, PROMPTS, SamplingParams(max_new_tokens=2))
    assert torch.equal(torch.get_rng_state(), before)


def test_first_tokens_follow_the_models_distribution(model: GPT) -> None:
    n = 4000
    params = SamplingParams(max_new_tokens=1, num_generations=n)
    tokens = generate(model, [[3, 1]], params, seed=0).token_ids[:, 0]
    with torch.no_grad():
        expected = model(torch.tensor([[3, 1]]))[0, -1].softmax(dim=-1)
    share = tokens.bincount(minlength=13) / n
    # 4 standard errors of each share, 13 shares: 1 chance in 1,200 for a right sampler
    assert ((share - expected).abs() <= 4 * (expected * (1 - expected) / n).sqrt()).all()


def test_completions_can_be_used_in_a_loss(model: GPT) -> None:
    completions = generate(model, PROMPTS, SamplingParams(max_new_tokens=4))
    weight = torch.ones(4, 4, requires_grad=True)
    ratio = (weight - completions.logps).exp() * completions.completion_mask
    ratio.sum().backward()
    assert weight.grad is not None and not completions.logps.requires_grad


def test_the_context_can_be_filled_exactly(model: GPT) -> None:
    # The last token is never read, so 32 positions give 33 tokens.
    prompt = [1] * 12
    completions = generate(model, [prompt], SamplingParams(max_new_tokens=21))
    assert completions.token_ids.shape == (1, 21)
    message = "a prompt of 12 tokens and 22 new ones exceed the model's context of 32: shorten"
    with pytest.raises(ValueError, match=message):
        generate(model, [prompt], SamplingParams(max_new_tokens=22))


def test_pad_left() -> None:
    ids, mask = pad_left([[5, 6, 7], (8,), torch.tensor([9, 10])], pad_token_id=0)
    assert ids.tolist() == [[5, 6, 7], [0, 0, 8], [0, 9, 10]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1], [0, 1, 1]]
    assert ids.dtype == mask.dtype == torch.long


@pytest.mark.parametrize("prompts", [[], [[1], []]])
def test_prompts_without_a_token_are_refused(prompts: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="every prompt needs at least one token: give a start"):
        pad_left(prompts, 0)


@pytest.mark.parametrize(
    "prompts",
    [[1, 2, 3], "text", ["text"], [[1.5]], [[[1]]], None, torch.tensor([1, 2]), 7,
                [[True]], [[None]], [torch.tensor([[1]])]],
)  # fmt: skip
def test_prompts_that_are_no_lists_of_ids_are_refused(model: GPT, prompts: object) -> None:
    with pytest.raises(ValueError, match="prompts must be lists of token ids, such as"):
        generate(model, prompts)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("token", [-1, 13])
def test_ids_outside_the_vocabulary_are_refused(model: GPT, packed: bool, token: int) -> None:
    with pytest.raises(ValueError, match="this model knows 0 to 12; was the text encoded with"):
        generate(
            PackedGPT(model) if packed else model,
            [[1, token]],
            SamplingParams(max_new_tokens=4),
        )


def test_damaged_weights_are_noticed(model: GPT) -> None:
    broken = GPT(model.config)
    broken.norm.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="the logits hold NaN or infinity"):
        generate(broken, [[1]], SamplingParams(max_new_tokens=2))


def test_to_lists() -> None:
    zeros = torch.zeros(2, 3)
    completions = Completions(
        torch.tensor([[4, 0, 0], [1, 0, 2]]), torch.tensor([[1, 0, 0], [1, 1, 1]]),
        zeros, zeros, torch.tensor([True, False]),
    )  # fmt: skip
    assert completions.to_lists() == [[4], [1, 0, 2]]


@pytest.mark.parametrize("packed", [False, True])
def test_a_shared_prefix_is_read_as_though_it_stood_in_every_prompt(
    model: GPT, packed: bool
) -> None:
    prefix = [6, 1, 12, 4]
    params = SamplingParams(max_new_tokens=12, num_generations=2)
    sampler = PackedGPT(model) if packed else model
    shared = generate(sampler, PROMPTS, params, prefix=prefix, seed=2)
    spelled_out = generate(sampler, [prefix + prompt for prompt in PROMPTS], params, seed=2)
    assert shared.to_lists() == spelled_out.to_lists()
    assert_close(shared.logps, spelled_out.logps, atol=1e-5, rtol=1e-5)
    without = generate(sampler, PROMPTS, params, seed=2)
    assert shared.to_lists() != without.to_lists()


def test_a_prefix_counts_against_the_context(model: GPT) -> None:
    with pytest.raises(ValueError, match="a prompt of 25 tokens and 16 new ones exceed"):
        generate(model, PROMPTS, SamplingParams(max_new_tokens=16), prefix=[1] * 20)


@pytest.mark.parametrize("prefix", ["ab", [[1, 2]], [None], 3, [1.0]], ids=repr)
def test_a_prefix_that_is_no_list_of_ids_is_refused(model: GPT, prefix: object) -> None:
    with pytest.raises(ValueError, match=r"prefix is .*: give a flat sequence of token ids"):
        generate(model, PROMPTS, prefix=prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize("packed", [False, True])
def test_a_stop_token_that_the_model_does_not_know_is_refused(model: GPT, packed: bool) -> None:
    params = SamplingParams(max_new_tokens=2, stop_token_ids=(12, 13))
    sentence = "stop_token_ids holds 13 and this model knows 0 to 12, so that token would never"
    with pytest.raises(ValueError, match=sentence):
        generate(PackedGPT(model) if packed else model, PROMPTS, params)


# --- the mode that the model was left in ---


class Dropping(nn.Module):
    """A layer whose output is dropped in training, half of it."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer, self.dropout = layer, nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.layer(x))


@pytest.fixture
def dropping(model: GPT) -> GPT:
    copy = GPT(model.config)
    copy.load_state_dict(model.state_dict())
    copy.layers[0].mlp = Dropping(copy.layers[0].mlp)
    return copy.train()


def test_dropout_does_not_change_what_is_drawn(model: GPT, dropping: GPT) -> None:
    with torch.no_grad():  # in training mode two passes differ
        ids = torch.tensor([[5, 7, 9]])
        assert not torch.equal(dropping(ids), dropping(ids))
    greedy = SamplingParams(temperature=0, max_new_tokens=16)
    expected = generate(model, PROMPTS, greedy).to_lists()
    state = torch.get_rng_state()
    first, second = (generate(dropping, PROMPTS, greedy).to_lists() for _ in range(2))
    assert first == second == expected
    assert generate(model=dropping, prompts=PROMPTS, params=greedy).to_lists() == expected
    assert torch.equal(torch.get_rng_state(), state)


def test_each_part_is_put_back_into_its_mode(dropping: GPT) -> None:
    dropping.layers[1].eval()
    modes = {name: module.training for name, module in dropping.named_modules()}
    assert set(modes.values()) == {True, False}
    generate(dropping, PROMPTS, SamplingParams(max_new_tokens=2))
    assert {name: module.training for name, module in dropping.named_modules()} == modes
    with pytest.raises(ValueError, match="exceed the model's context"):
        generate(dropping, PROMPTS, SamplingParams(max_new_tokens=100))
    dropping.norm.weight.data[0] = torch.nan
    with pytest.raises(ValueError, match="the logits hold NaN"):
        generate(dropping, PROMPTS, SamplingParams(max_new_tokens=2))
    assert {name: module.training for name, module in dropping.named_modules()} == modes
