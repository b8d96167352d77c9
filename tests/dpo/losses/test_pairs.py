"""posttrain.dpo.losses.pairs: what is refused before a loss is computed."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from posttrain.dpo.losses.pairs import PairLogps

FIELDS = ("chosen", "rejected", "ref_chosen", "ref_rejected")


def logps(n: int = 4) -> Tensor:
    return -torch.arange(1.0, n + 1)


def pairs(**changed: Any) -> PairLogps:
    fields: dict[str, Any] = {name: logps() for name in FIELDS}
    fields |= {
        "chosen_lengths": torch.tensor([1, 2, 3, 4]),
        "rejected_lengths": torch.ones(4).long(),
    }
    return PairLogps(**(fields | changed))


def test_what_is_given_comes_back() -> None:
    made = pairs()
    assert made.reference[0] is made.ref_chosen and made.reference[1] is made.ref_rejected
    assert made.lengths[0] is made.chosen_lengths and made.lengths[1] is made.rejected_lengths
    alone = PairLogps(logps(), logps())
    with pytest.raises(ValueError, match="compares with a reference and the pairs have none"):
        _ = alone.reference
    with pytest.raises(
        ValueError, match="divides by the answers' lengths and the pairs have n"
    ):
        _ = alone.lengths


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("row", range(4))
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_none_is_named_by_its_row(name: str, row: int, value: float) -> None:
    values = logps()
    values[row] = value
    with pytest.raises(ValueError, match=f"^{name} of row {row} is -?(nan|inf): look at"):
        pairs(**{name: values})


@pytest.mark.parametrize("name", FIELDS)
def test_a_loss_in_place_of_a_log_probability_is_named(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^{name} of row 0 is 1 and a log-probability is at m"
    ):
        pairs(**{name: -logps()})
    pairs(**{name: torch.tensor([0.0, 1e-5, -1.0, -900.0])})  # rounding


@pytest.mark.parametrize("name", FIELDS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_sums_in_16_bits_are_refused(name: str, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {dtype}: give float32"):
        pairs(**{name: logps().to(dtype)})


@pytest.mark.parametrize("name", [*FIELDS[1:], "chosen_lengths", "rejected_lengths"])
@pytest.mark.parametrize("shape", [(3,), (4, 1), (), (0,)])
def test_shapes_agree(name: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=f"^{name} has shape .* and chosen "):
        pairs(**{name: torch.full(shape, -1.0)})


def test_a_batch_has_a_pair() -> None:
    empty = torch.empty(0)
    with pytest.raises(ValueError, match="for at least one pair"):
        PairLogps(empty, empty)


@pytest.mark.parametrize("name", ["ref_chosen", "chosen_lengths", "ref_rejected"])
def test_both_sides_are_given(name: str) -> None:
    with pytest.raises(ValueError, match=r"^of \w+ and \w+ only \w+ is given: give both"):
        pairs(**{name: None})


def test_lengths_are_whole_numbers_from_1() -> None:
    with pytest.raises(
        ValueError, match=r"^chosen_lengths of row 2 is 0: an answer has at least"
    ):
        pairs(chosen_lengths=torch.tensor([3, 1, 0, 2]))
    for wrong in (torch.ones(4), torch.ones(4, dtype=torch.bool)):
        with pytest.raises(
            ValueError, match=r"^rejected_lengths is torch.*whole numbers of tok"
        ):
            pairs(rejected_lengths=wrong)


@pytest.mark.parametrize("name", ["ref_chosen", "ref_rejected"])
def test_a_reference_with_a_gradient_is_refused(name: str) -> None:
    values = logps().requires_grad_()
    with pytest.raises(ValueError, match=f"^{name} requires a gradient: compute the reference"):
        pairs(**{name: values})
    pairs(**{name: values.detach()})


def test_half_a_policy_gradient_is_refused() -> None:
    """A side computed outside of what is differentiated trains nothing, without a word."""
    live = logps().requires_grad_()
    with pytest.raises(ValueError, match=r"^rejected requires no gradient and the other side"):
        pairs(chosen=live)
    with pytest.raises(
        ValueError, match=r"^chosen requires no gradient and the other side does"
    ):
        pairs(rejected=live)
    pairs(chosen=live, rejected=live)
    pairs()  # plain numbers, as in an evaluation
    with torch.no_grad():
        pairs(chosen=live)
