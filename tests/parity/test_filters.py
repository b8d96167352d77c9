"""posttrain.pretraining.sampling.filters against transformers' logits processors."""

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from posttrain.pretraining.sampling.filters import (
    SamplingParams,
    filter_logits,
    keep_min_p,
    keep_top_k,
    keep_top_p,
)

pytestmark = pytest.mark.parity

NO_IDS = torch.zeros(4, 1, dtype=torch.long)


def random_logits(V: int, scale: float = 2.0, seed: int = 0) -> Tensor:
    return torch.randn(4, V, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize("top_k", [1, 2, 49, 50, 200])
def test_top_k(top_k: int) -> None:
    logits = random_logits(50)
    assert torch.equal(keep_top_k(logits, top_k), TopKLogitsWarper(top_k)(NO_IDS, logits))


def test_top_k_with_ties() -> None:
    logits = random_logits(50).round()  # many tokens share a value: all of them stay
    assert torch.equal(keep_top_k(logits, 5), TopKLogitsWarper(5)(NO_IDS, logits))
    assert (keep_top_k(logits, 5).isfinite().sum(dim=-1) > 5).any()


@pytest.mark.parametrize("top_p", [1e-6, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("scale", [0.1, 2.0, 30.0])
def test_top_p(top_p: float, scale: float) -> None:
    logits = random_logits(50, scale)
    assert torch.equal(keep_top_p(logits, top_p), TopPLogitsWarper(top_p)(NO_IDS, logits))


@pytest.mark.parametrize(("scale", "more_than"), [(0.0001, 4000), (0.5, 1024), (4.0, 0)])
def test_top_p_beyond_the_1024_likeliest(scale: float, more_than: int) -> None:
    logits = random_logits(5000, scale)
    # float64: adding thousands of float32 probabilities up in two orders moves the line
    ours = keep_top_p(logits.double(), 0.9)
    assert torch.equal(ours, TopPLogitsWarper(0.9)(NO_IDS, logits.double()))
    kept = ours.isfinite().sum(dim=-1)
    assert (kept > more_than).all()
    assert torch.equal(keep_top_p(logits.double()[:1], 0.9), ours[:1])  # row by row, the same


def test_top_p_keeps_all_of_a_tie_where_transformers_cuts_through_it() -> None:
    logits = torch.tensor([[2.0, 1.0, 1.0, 1.0, -3.0]]).log_softmax(dim=-1)
    top_p = (
        logits[0, :2].exp().sum().item() - 0.01
    )  # the first of three equals crosses the line
    ours, theirs = keep_top_p(logits, top_p), TopPLogitsWarper(top_p)(NO_IDS[:1], logits)
    assert ours.isfinite().tolist() == [[True, True, True, True, False]]
    assert theirs.isfinite().sum() == 2


@pytest.mark.parametrize("min_p", [0.001, 0.1, 0.5, 1.0])
def test_min_p(min_p: float) -> None:
    logits = random_logits(50)
    assert torch.equal(keep_min_p(logits, min_p), MinPLogitsWarper(min_p)(NO_IDS, logits))


@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(temperature=0.7),
        SamplingParams(temperature=1.5, top_k=20, top_p=0.8),
        SamplingParams(temperature=0.5, top_k=30, top_p=0.9, min_p=0.05),
        SamplingParams(temperature=2.0, top_p=0.6, min_p=0.2),
    ],
)
def test_all_together_in_the_order_of_transformers(params: SamplingParams) -> None:
    processors = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        processors.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        processors.append(TopPLogitsWarper(params.top_p))
    if params.min_p:
        processors.append(MinPLogitsWarper(params.min_p))
    for seed in range(20):
        logits = random_logits(50, seed=seed)
        assert_close(filter_logits(logits, params), processors(NO_IDS, logits))
