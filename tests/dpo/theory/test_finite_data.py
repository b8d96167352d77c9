"""posttrain.dpo.theory.finite_data: one pair, trained on to the end."""

import math

import pytest
import torch

from posttrain.dpo.theory.finite_data import first_change, slope_of_loss, train_on_pair

REF = torch.tensor([0.45, 0.45, 0.10], dtype=torch.float64).log()
TABLE = torch.eye(3, dtype=torch.float64)
SHARED = torch.tensor([[1.0], [0.0], [3.0]], dtype=torch.float64)


@pytest.mark.parametrize("beta", [0.1, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("log_ratio", [-8.0, -1.0, 0.0, 0.7, 5.0])
def test_slopes_are_those_of_the_losses(beta: float, log_ratio: float) -> None:
    h = torch.tensor(log_ratio, dtype=torch.float64, requires_grad=True)
    losses = {
        "dpo": -torch.nn.functional.logsigmoid(beta * h),
        "ipo": (h - 1 / (2 * beta)) ** 2,
    }
    for name, loss in losses.items():
        (wanted,) = torch.autograd.grad(loss, h)
        assert slope_of_loss(name, log_ratio, beta) == pytest.approx(wanted.item())  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(20))
def test_steps_are_those_of_gradient_descent(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(4, 2, generator=generator, dtype=torch.float64)
    ref = torch.randn(4, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    theta = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(10):
        ratios = (ref + features @ theta).log_softmax(dim=-1) - ref
        loss = -torch.nn.functional.logsigmoid(0.5 * (ratios[0] - ratios[1]))
        (slope,) = torch.autograd.grad(loss, theta)
        theta = (theta - 0.1 * slope).detach().requires_grad_()
    wanted = (ref + features @ theta).log_softmax(dim=-1)
    run = train_on_pair("dpo", ref, features, beta=0.5, steps=10)
    assert run.steps[-1] == 10
    assert (run.logps[-1] - wanted).abs().max() < 1e-12
    gap = (run.logps[-1] - ref)[0] - (run.logps[-1] - ref)[1]
    assert run.log_ratio[-1] == pytest.approx(gap.item())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_never_stops_and_ipo_does(beta: float) -> None:
    dpo = train_on_pair("dpo", REF, TABLE, beta=beta)
    before = dpo.log_ratio[dpo.steps.index(10_000)]
    assert beta * (dpo.log_ratio[-1] - before) == pytest.approx(math.log(10), abs=0.5)
    ipo = train_on_pair("ipo", REF, TABLE, beta=beta)
    assert ipo.log_ratio[-1] == pytest.approx(1 / (2 * beta))


def test_a_table_raises_the_chosen_answer_and_shared_features_may_not() -> None:
    table = train_on_pair("dpo", REF, TABLE, beta=1.0)
    assert (table.logps[1:, 0] > table.logps[:-1, 0]).all()
    shared = train_on_pair("dpo", REF, SHARED, beta=1.0)
    assert (shared.logps[-1, :2] < REF[:2] - 1).all() and shared.logps[-1, 2] > -0.01
    assert all(b > a for a, b in zip(shared.log_ratio, shared.log_ratio[1:], strict=False))


@pytest.mark.parametrize("seed", range(20))
def test_the_first_change_is_that_of_a_small_step(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    ref = torch.randn(5, generator=generator, dtype=torch.float64).log_softmax(dim=-1)
    change = first_change(ref, features)
    run = train_on_pair("dpo", ref, features, beta=1.0, learning_rate=1e-6, steps=1)
    assert torch.allclose((run.logps[0] - ref) / 0.5e-6, change, atol=1e-4)
    length = (features[0] - features[1]).square().sum()
    assert change[0] - change[1] == pytest.approx(length.item())


def test_what_cannot_be_trained_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown loss 'hinge': use 'dpo' or 'ipo'"):
        train_on_pair("hinge", REF, TABLE, beta=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="have the same features, so no step can tell them"):
        train_on_pair("dpo", REF, torch.ones(3, 2, dtype=torch.float64), beta=1.0)
