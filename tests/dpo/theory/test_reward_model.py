"""posttrain.dpo.theory.reward_model: pairs, three fits, and the ceiling over all of them."""

import pytest
import torch

from posttrain.dpo.theory.reward_model import (
    Comparisons,
    World,
    bayes_correct,
    correct,
    draw_comparisons,
    draw_world,
    expected_correct,
    fit_language_model_dpo,
    fit_log_linear_dpo,
    fit_reward_model,
)


@pytest.fixture(scope="module")
def world() -> World:
    return draw_world(vocabulary=4, seed=1)


def test_features_are_counts_of_bigrams(world: World) -> None:
    pairs = draw_comparisons(world, 500, seed=0)
    assert pairs.difference.shape == (500, 16)
    assert not pairs.difference.sum(dim=1).any()  # both answers have the same length
    starts = pairs.difference.view(500, 4, 4).sum(dim=2)  # how often each token is left
    ends = pairs.difference.view(500, 4, 4).sum(dim=1)  # how often it is reached
    left_over = starts - ends  # the last token of the second answer, less that of the first
    assert (left_over.abs().sum(dim=1) <= 2).all() and left_over.any()


def test_preferences_follow_the_reward(world: World) -> None:
    pairs = draw_comparisons(world, 20_000, seed=0)
    assert torch.equal(pairs.p, torch.sigmoid(pairs.difference @ world.weights))
    surprise = pairs.first_wins.double() - pairs.p
    assert abs(surprise.mean().item()) < 0.01
    assert abs((surprise * (pairs.p - 0.5)).mean().item()) < 0.005
    again = draw_comparisons(world, 20_000, seed=0)
    assert torch.equal(pairs.first_wins, again.first_wins)


def test_the_reference_writes_the_answers(world: World) -> None:
    certain = torch.full((3, 3), -50.0, dtype=torch.float64)
    certain[0, 1] = certain[1, 2] = certain[2, 0] = 0.0
    walk = World(certain.log_softmax(dim=-1), torch.zeros(9, dtype=torch.float64), length=4)
    assert not draw_comparisons(walk, 50, seed=0).difference.any()


def test_many_pairs_give_the_reward_back(world: World) -> None:
    pairs, held_out = (draw_comparisons(world, 30_000, seed=s) for s in (0, 1))
    fitted = torch.sigmoid(held_out.difference @ fit_reward_model(pairs))
    assert (fitted - held_out.p).abs().mean() < 0.02
    for wrong in (world.weights * 0, -world.weights, 3 * world.weights):
        assert (torch.sigmoid(held_out.difference @ wrong) - held_out.p).abs().mean() > 0.05


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5, 1.0, 3.0])
@pytest.mark.parametrize("seed", range(4))
def test_log_linear_dpo_is_the_reward_model(world: World, beta: float, seed: int) -> None:
    pairs, held_out = draw_comparisons(world, 600, seed=seed), draw_comparisons(world, 200, 99)
    one, other = fit_reward_model(pairs), fit_log_linear_dpo(pairs, beta)
    p, q = (torch.sigmoid(held_out.difference @ weights) for weights in (one, other))
    assert (p - q).abs().max() < 1e-4


@pytest.mark.parametrize("seed", range(20))
def test_a_language_model_holds_a_reward_but_for_a_bonus_on_the_last_token(seed: int) -> None:
    """Any bigram reward is a log-ratio once each token is credited with what can follow it.

    The eigenvector e^h of ref * e^w gives a policy whose log-ratios are w + h(next) - h(token)
    less a constant. Along an answer h telescopes, and its last value is left.
    """
    drawn = draw_world(vocabulary=4, seed=seed)
    ref, weights = drawn.ref_logps, drawn.weights.view(4, 4)
    credit = torch.zeros(4, dtype=torch.float64)
    for _ in range(500):
        reached = (ref + weights + credit).logsumexp(dim=-1)
        credit, growth = reached - reached[0], reached[0]
    policy = ref + weights + credit - credit[:, None] - growth
    assert policy.logsumexp(dim=-1).abs().max() < 1e-9
    pairs = draw_comparisons(drawn, 300, seed=seed)
    stated = pairs.difference @ (policy - ref).flatten()
    tokens = pairs.difference.view(-1, 4, 4)
    last = tokens.sum(dim=1) - tokens.sum(dim=2)  # last tokens, first answer less second
    bonus = last @ credit
    assert (stated - pairs.difference @ drawn.weights - bonus).abs().max() < 1e-9
    assert bonus.abs().max() > 0.05


def test_a_language_models_probabilities_add_up(world: World) -> None:
    pairs = draw_comparisons(world, 600, seed=0)
    stated = fit_language_model_dpo(world, pairs, beta=0.5) / 0.5
    policy = stated.view(4, 4) + world.ref_logps
    assert policy.logsumexp(dim=-1).abs().max() < 1e-9
    margins = pairs.chosen_less_rejected @ (0.5 * stated)
    assert margins.sigmoid().log().mean() > torch.tensor(0.5).log() + 0.02


def test_correct_by_hand() -> None:
    pairs = Comparisons(
        torch.tensor([[1.0, -1.0], [2.0, 0.0], [0.0, 0.0]], dtype=torch.float64),
        torch.tensor([0.9, 0.4, 0.5], dtype=torch.float64),
        torch.tensor([True, False, True]),
    )
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)  # puts the first answer first
    assert pairs.chosen_less_rejected.tolist() == [[1, -1], [-2, 0], [0, 0]]
    assert correct(weights, pairs).tolist() == [1, 0, 0.5]
    assert expected_correct(weights, pairs).tolist() == pytest.approx([0.9, 0.4, 0.5])
    assert expected_correct(-weights, pairs).tolist() == pytest.approx([0.1, 0.6, 0.5])
    assert bayes_correct(pairs).tolist() == pytest.approx([0.9, 0.6, 0.5])


@pytest.mark.parametrize("seed", range(20))
def test_nothing_beats_bayes_on_average(world: World, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(16, generator=generator, dtype=torch.float64)
    held_out = draw_comparisons(world, 1000, seed=seed)
    assert (expected_correct(weights, held_out) <= bayes_correct(held_out) + 1e-12).all()
    truth = expected_correct(world.weights, held_out)
    assert (truth - bayes_correct(held_out)).abs().max() < 1e-12
    drawn = correct(world.weights, held_out).mean().item()
    assert drawn == pytest.approx(truth.mean().item(), abs=0.06)


@pytest.mark.parametrize("seed", range(20))
def test_an_end_token_takes_the_bonus_away(seed: int) -> None:
    """Answers of any length that end with token 3: the credit of the end is 0.

    What each token is credited with is ln Z of what follows; that of the prompt is left.
    """
    drawn = draw_world(vocabulary=4, seed=seed)
    ref, weights = drawn.ref_logps, -drawn.weights.view(4, 4).abs()  # so that Z is finite
    credit = torch.zeros(4, dtype=torch.float64)
    for _ in range(2000):
        credit = (ref + weights + credit).logsumexp(dim=-1)
        credit[3] = 0.0  # nothing follows the end
    policy = ref + weights + credit - credit[:, None]
    assert policy[:3].logsumexp(dim=-1).abs().max() < 1e-9
    generator = torch.Generator().manual_seed(seed)
    for prompt in range(3):
        token, reward, stated = prompt, 0.0, 0.0
        while token != 3:
            probabilities = ref[token].exp()
            following = int(torch.multinomial(probabilities, 1, generator=generator))
            reward += weights[token, following].item()
            stated += (policy - ref)[token, following].item()
            token = following
        assert stated == pytest.approx(reward - credit[prompt].item())
