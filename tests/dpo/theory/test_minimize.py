"""posttrain.dpo.theory.minimize: the minimum, to many digits."""

import pytest
import torch

from posttrain.dpo.theory.minimize import minimize


@pytest.mark.parametrize("seed", range(20))
def test_a_quadratic_ends_at_its_minimum(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn(6, 6, generator=generator, dtype=torch.float64)
    curvature = root @ root.T + torch.eye(6, dtype=torch.float64)
    wanted = torch.randn(6, generator=generator, dtype=torch.float64)
    start = torch.zeros(6, dtype=torch.float64)
    found = minimize(lambda x: (x - wanted) @ curvature @ (x - wanted), start)
    assert (found - wanted).abs().max() < 1e-6
    assert not start.any() and not found.requires_grad


def test_float32_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the start is torch\.float32: give float64"):
        minimize(lambda x: x.square().sum(), torch.ones(3))
