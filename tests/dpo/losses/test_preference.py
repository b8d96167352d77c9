"""posttrain.dpo.losses.preference: each loss by hand, its properties, and the dispatch.

Values and gradients against TRL: tests/parity/test_dpo_losses.py.
"""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from posttrain.dpo.losses import preference as module
from posttrain.dpo.losses.config import PreferenceLossConfig
from posttrain.dpo.losses.kto import kto_loss
from posttrain.dpo.losses.pairs import PairLogps
from posttrain.dpo.losses.preference import preference_loss
from posttrain.dpo.losses.rewards import implicit_rewards

SEEDS = range(20)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def drawn(seed: int, B: int = 3) -> tuple[PairLogps, PairLogps, float]:
    """The same pairs with and without a reference, and a beta."""
    torch.manual_seed(seed)
    lengths = torch.randint(1, 9, (2, B))
    policy = (-lengths * (0.2 + torch.rand(2, B))).requires_grad_()
    reference = policy.detach() - torch.randn(2, B).abs()
    beta = 10 ** (2 * torch.rand(()).item() - 1.5)
    return (
        PairLogps(*policy, *reference, *lengths),
        PairLogps(*policy, chosen_lengths=lengths[0], rejected_lengths=lengths[1]),
        beta,
    )


def rows(pairs: PairLogps) -> list[list[float]]:
    """Per pair: chosen, rejected, the reference's two, and the two lengths."""
    fields = (
        pairs.chosen,
        pairs.rejected,
        pairs.ref_chosen,
        pairs.ref_rejected,
        *pairs.lengths,
    )
    return torch.stack([x.detach().double() for x in fields if x is not None]).T.tolist()


def hand(config: PreferenceLossConfig, row: list[float]) -> float:
    """The losses once more, from their equations, with Python's numbers."""
    beta, s = config.beta, config.label_smoothing
    if config.loss_type == "simpo":
        c, r, n, m = row
        return -math.log(sigma(beta / n * c - beta / m * r - (config.simpo_gamma or 0)))
    if config.loss_type == "orpo":
        c, r, n, m = row
        odds = [math.exp(x) / (1 - math.exp(x)) for x in (c / n, r / m)]
        return -c / n - beta * math.log(sigma(math.log(odds[0] / odds[1])))
    c, r, rc, rr, n, m = row
    if config.loss_type == "sigmoid_norm":
        return -math.log(sigma(beta / n * (c - rc) - beta / m * (r - rr)))
    if config.loss_type == "ipo":
        n, m = (n, m) if config.ipo_aggregation == "mean" else (1, 1)
        return ((c - rc) / n - (r - rr) / m - 1 / (2 * beta)) ** 2
    x = beta * ((c - rc) - (r - rr))
    clean, flipped = -math.log(sigma(x)), -math.log(sigma(-x))
    if config.loss_type == "robust":
        return ((1 - s) * clean - s * flipped) / (1 - 2 * s)
    return (1 - s) * clean + s * flipped


SETTINGS: list[dict[str, Any]] = [
    {"loss_type": "sigmoid"},
    {"loss_type": "sigmoid", "label_smoothing": 0.2},
    {"loss_type": "robust", "label_smoothing": 0.3},
    {"loss_type": "ipo", "ipo_aggregation": "sum"},
    {"loss_type": "ipo", "ipo_aggregation": "mean"},
    {"loss_type": "sigmoid_norm"},
    {"loss_type": "orpo"},
    {"loss_type": "simpo", "simpo_gamma": 0.7},
]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_each_loss_equals_its_equation(settings: dict[str, Any], seed: int) -> None:
    with_reference, without, beta = drawn(seed)
    config = PreferenceLossConfig(**settings, beta=beta)
    pairs = with_reference if config.needs.reference else without
    losses = preference_loss(config, pairs)
    expected = torch.tensor([hand(config, row) for row in rows(pairs)])
    assert_close(losses, expected, atol=1e-4, rtol=1e-4)
    assert losses.requires_grad and losses.shape == pairs.chosen.shape


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_step_moves_the_margin_to_where_the_loss_is_smallest(
    settings: dict[str, Any], seed: int
) -> None:
    """Up without end, save for IPO and a conservative loss, which draw a large one back."""
    with_reference, without, beta = drawn(seed)
    config = PreferenceLossConfig(**settings, beta=beta)
    pairs = with_reference if config.needs.reference else without
    chosen, rejected = torch.autograd.grad(
        preference_loss(config, pairs).sum(), [pairs.chosen, pairs.rejected]
    )
    target = math.inf
    rewards = implicit_rewards(config, pairs)
    if config.loss_type == "ipo":
        target = 1 / 2
    elif config.loss_type == "sigmoid" and config.label_smoothing:
        target = math.log((1 - config.label_smoothing) / config.label_smoothing)
    too_low = rewards[0] - rewards[1] < target
    if math.isfinite(target):
        assert torch.equal(chosen < 0, too_low) and torch.equal(rejected > 0, too_low)
    else:
        assert (chosen < 0).all()
        assert (rejected > 0).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_conservative_and_robust_dpo_are_dpo_without_smoothing(seed: int) -> None:
    pairs, _, beta = drawn(seed)
    logps = (pairs.chosen, pairs.rejected, *pairs.reference)
    plain = module.dpo_loss(*logps, beta)
    assert_close(module.conservative_dpo_loss(*logps, beta, 0.0), plain)
    assert_close(module.robust_dpo_loss(*logps, beta, 0.0), plain)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("share", [0.1, 0.3, 0.45])
def test_robust_dpo_is_right_on_average_where_conservative_dpo_is_not(
    seed: int, share: float
) -> None:
    """Over labels flipped with that share, its mean is the loss on the true labels."""
    pairs, _, beta = drawn(seed)
    c, r, (rc, rr) = pairs.chosen, pairs.rejected, pairs.reference

    def mean_over_flips(loss: Any) -> Tensor:
        kept, flipped = loss(c, r, rc, rr, beta, share), loss(r, c, rr, rc, beta, share)
        return (1 - share) * kept + share * flipped

    true = module.dpo_loss(c, r, rc, rr, beta)
    assert_close(mean_over_flips(module.robust_dpo_loss), true, atol=1e-4, rtol=1e-4)
    assert (mean_over_flips(module.conservative_dpo_loss) - true).abs().max() > 1e-4


@pytest.mark.parametrize("share", [0.1, 0.3])
def test_conservative_dpo_is_smallest_at_a_finite_margin(share: float) -> None:
    margins = torch.linspace(-50, 50, 20_001)
    zero = torch.zeros_like(margins)
    losses = module.conservative_dpo_loss(margins, zero, zero, zero, 0.2, share)
    best = margins[losses.argmin()].item()
    assert best == pytest.approx(math.log((1 - share) / share) / 0.2, abs=0.01)


def test_ipos_sum_and_mean_are_other_losses_unless_answers_have_one_token() -> None:
    pairs, _, beta = drawn(1)
    both = [
        preference_loss(PreferenceLossConfig("ipo", beta, ipo_aggregation=how), pairs)
        for how in ("sum", "mean")
    ]
    assert (both[0] - both[1]).abs().min() > 1e-3
    one = torch.ones(3, dtype=torch.int64)
    short = PairLogps(pairs.chosen, pairs.rejected, *pairs.reference, one, one)
    assert_close(
        *(
            preference_loss(PreferenceLossConfig("ipo", beta, ipo_aggregation=how), short)
            for how in ("sum", "mean")
        )
    )


def test_far_margins_stay_finite() -> None:
    far = torch.tensor([-5000.0, -1.0]), torch.tensor([-1.0, -5000.0])
    pairs = PairLogps(*far, torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, -1.0]))
    losses = preference_loss(PreferenceLossConfig(beta=1.0), pairs)
    assert_close(losses, torch.tensor([4999.0, 0.0]))


@pytest.mark.parametrize("mean", [0.0, -1e-9, -1e-7, -1e-3, -1.0, -80.0])
def test_the_log_odds_and_their_gradient_stay_finite(mean: float) -> None:
    """An answer learned by heart has a log-probability that rounds to 0."""
    logps = torch.tensor([mean], requires_grad=True)
    odds = module.log_odds(logps)
    odds.sum().backward()
    assert odds.isfinite().all() and logps.grad.isfinite().all()
    if mean <= -1e-3:
        p = math.exp(mean)
        assert odds.item() == pytest.approx(mean - math.log1p(-p), abs=1e-4)
        assert logps.grad.item() == pytest.approx(1 / (1 - p), rel=1e-3)


def test_kto_of_a_pair_is_the_mean_of_its_answers() -> None:
    pairs, _, beta = drawn(2)
    kl = torch.tensor(0.4)
    config = PreferenceLossConfig("kto", beta, desirable_weight=1.5, undesirable_weight=0.5)
    losses = preference_loss(config, pairs, kl)
    together = kto_loss(
        torch.cat([pairs.chosen, pairs.rejected]), torch.cat(pairs.reference),
        torch.tensor([True] * 3 + [False] * 3), kl, beta, 1.5, 0.5,
    )  # fmt: skip
    assert_close(losses.mean(), together.mean())
    assert_close(losses, (together[:3] + together[3:]) / 2)


@pytest.mark.parametrize("settings", [*SETTINGS, {"loss_type": "kto"}])
def test_what_is_missing_or_too_much_is_named(settings: dict[str, Any]) -> None:
    with_reference, without, _ = drawn(0)
    config = PreferenceLossConfig(**settings)
    kl = torch.tensor(0.1) if config.loss_type == "kto" else None
    if config.needs.reference:
        with pytest.raises(
            ValueError, match="compares with a reference and the pairs have none"
        ):
            preference_loss(config, without, kl)
    else:
        with pytest.raises(ValueError, match="compares with no reference and one is given"):
            preference_loss(config, with_reference, kl)
    pairs = with_reference if config.needs.reference else without
    references = pairs.reference if config.needs.reference else ()
    bare = PairLogps(pairs.chosen, pairs.rejected, *references)
    if config.needs_lengths:
        with pytest.raises(ValueError, match="divides by the answers' lengths and the pairs h"):
            preference_loss(config, bare, kl)
    else:
        assert_close(preference_loss(config, bare, kl), preference_loss(config, pairs, kl))
    wrong = torch.tensor(0.1) if kl is None else None
    takes = (
        "takes no KL estimate and one is given" if kl is None else "takes a KL estimate and n"
    )
    with pytest.raises(ValueError, match=takes):
        preference_loss(config, pairs, wrong)


def test_the_loss_type_is_passed_on() -> None:
    """No two of the losses give the same numbers: a name that is dropped would be seen."""
    with_reference, without, _ = drawn(3)
    found = []
    for settings in (*SETTINGS, {"loss_type": "kto"}):
        config = PreferenceLossConfig(**settings, beta=0.3)
        pairs = with_reference if config.needs.reference else without
        kl = torch.tensor(0.1) if config.loss_type == "kto" else None
        found.append(preference_loss(config, pairs, kl))
    for index, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-3 for other in found[:index])
