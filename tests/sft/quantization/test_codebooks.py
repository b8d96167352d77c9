"""posttrain.sft.quantization.codebooks: levels by their definition, properties, bad input."""

import statistics

import pytest
import torch
from torch.testing import assert_close

from posttrain.sft.quantization.codebooks import (
    NF4_TOP,
    dynamic_codebook,
    nearest_codes,
    normal_float_codebook,
    uniform_codebook,
)


def test_nf4_levels_are_normal_quantiles_at_even_probabilities() -> None:
    quantile = statistics.NormalDist().inv_cdf  # another implementation than torch's
    tail = 1 - NF4_TOP
    above = [quantile(0.5 + i * (0.5 - tail) / 8) for i in range(9)]
    below = [quantile(tail + i * (0.5 - tail) / 7) for i in range(7)]
    expected = torch.tensor(below + above) / quantile(NF4_TOP)
    assert_close(normal_float_codebook(), expected, atol=1e-6, rtol=0)


def test_nf4_has_an_exact_zero_and_spans_the_range() -> None:
    levels = normal_float_codebook()
    assert levels.shape == (16,) and levels.dtype == torch.float32
    assert levels[0] == -1 and levels[7] == 0 and levels[15] == 1
    assert not levels[7].signbit()
    assert (levels.diff() > 0).all()
    assert (levels < 0).sum() == 7 and (levels > 0).sum() == 8
    assert levels[8] != -levels[6]  # each side has its own spacing


def test_nf4s_top_leaves_the_mean_of_two_half_shares() -> None:
    assert pytest.approx(1 - (1 / 32 + 1 / 30) / 2, abs=5e-8) == NF4_TOP


def test_uniform_levels() -> None:
    assert_close(uniform_codebook(2), torch.tensor([-1, 0, 0.5, 1]))
    levels = uniform_codebook()
    assert len(levels) == 16 and levels[7] == 0
    assert_close(levels[:8].diff(), torch.full((7,), 1 / 7))
    assert_close(levels[7:].diff(), torch.full((8,), 1 / 8))
    assert len(uniform_codebook(8)) == 256


@pytest.mark.parametrize("bits", [0, 1, 9, 2.5])
def test_bits_that_make_no_grid_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=r"bits is \S+: give a whole number from 2 to 8"):
        uniform_codebook(bits)


def test_dynamic_levels_halve_in_number_for_each_digit() -> None:
    levels = dynamic_codebook()
    assert levels.shape == (256,) and (levels.diff() > 0).all()
    assert levels[127] == 0 and levels[-1] == 1
    positive = levels[128:-1]  # the last is one itself
    for digits in range(7):
        top = 10.0 ** (digits - 6)
        decade = positive[(positive > top / 10) & (positive < top)]
        assert len(decade) == 2**digits
        assert_close(decade.mean().item(), 0.55 * top, rtol=1e-5, atol=0)  # its middle
    assert_close(levels[:127], -positive.flip(0))


@pytest.mark.parametrize("levels", [normal_float_codebook(), dynamic_codebook()])
def test_codes_are_the_nearest_levels(levels: torch.Tensor) -> None:
    values = torch.rand(3, 500, generator=torch.Generator().manual_seed(0)) * 2.2 - 1.1
    codes = nearest_codes(values, levels)
    assert codes.dtype == torch.uint8 and codes.shape == (3, 500)
    distance = (values[..., None] - levels).abs()
    chosen = distance.gather(-1, codes.long()[..., None])[..., 0]
    assert torch.equal(chosen, distance.amin(dim=-1))
    assert codes.unique().numel() > 10


@pytest.mark.parametrize("count", [5, 257])  # counted, and searched
def test_halfway_goes_to_the_lower_level(count: int) -> None:
    levels = torch.arange(count).float()
    middle = levels[:-1] + 0.5
    codes = torch.arange(count - 1).to(torch.uint8)
    assert torch.equal(nearest_codes(middle, levels), codes)
    above = torch.nextafter(middle, torch.tensor(float(count)))
    assert torch.equal(nearest_codes(above, levels), codes + 1)


def test_levels_do_not_depend_on_torchs_defaults() -> None:
    normal_float_codebook.cache_clear()
    dynamic_codebook.cache_clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            for levels in (normal_float_codebook(), dynamic_codebook(), uniform_codebook()):
                assert levels.dtype == torch.float32 and levels.device.type == "cpu"
    finally:
        torch.set_default_dtype(torch.float32)
