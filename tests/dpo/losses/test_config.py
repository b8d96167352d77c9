"""posttrain.dpo.losses.config: what is accepted, and one sentence for what is not."""

import math
from typing import Any

import pytest

from posttrain.dpo.losses.config import LOSSES, PreferenceLossConfig, loss_table

SETTINGS: dict[str, dict[str, Any]] = {
    "ipo": {"ipo_aggregation": "sum"},
    "simpo": {"simpo_gamma": 0.5},
}
TYPES = [needs.loss_type for needs in LOSSES]


def config(loss_type: str = "sigmoid", **settings: Any) -> PreferenceLossConfig:
    return PreferenceLossConfig(loss_type, **(SETTINGS.get(loss_type, {}) | settings))


@pytest.mark.parametrize("loss_type", TYPES)
def test_each_loss_can_be_made(loss_type: str) -> None:
    made = config(loss_type, beta=0.3)
    assert made.needs.loss_type == loss_type and made.beta == 0.3
    assert config(loss_type, reference=made.needs.reference).needs == made.needs


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("beta", [0, 0.0, -0.1, math.inf, math.nan, True, "0.1", None])
def test_beta_is_finite_and_above_0(loss_type: str, beta: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^beta is .*; give a finite number above 0$"
    ) as caught:
        config(loss_type, beta=beta)
    told = "at 0 the loss is log 2 for every policy" in str(caught.value)
    assert told is (beta in (0, 0.0) and beta is not True)


@pytest.mark.parametrize("loss_type", ["dpo", "hinge", "", None, ["sigmoid"]])
def test_an_unknown_loss_is_no_sigmoid(loss_type: Any) -> None:
    """Some trainers fall back to DPO where they do not know a name."""
    with pytest.raises(
        ValueError, match=r"^loss_type is .*: choose one of sigmoid, robust, ipo"
    ):
        PreferenceLossConfig(loss_type)


@pytest.mark.parametrize("loss_type", ["sigmoid", "robust"])
@pytest.mark.parametrize("share", [0.5, 0.7, 1, -0.1, math.nan, True, "0.1"])
def test_label_smoothing_is_below_a_half(loss_type: str, share: Any) -> None:
    with pytest.raises(ValueError, match=r"^label_smoothing is .*from 0 to below 0.5"):
        config(loss_type, label_smoothing=share)


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize(
    ("name", "value", "takers"),
    [
        ("label_smoothing", 0.1, ("sigmoid", "robust")),
        ("ipo_aggregation", "mean", ("ipo",)),
        ("simpo_gamma", 0.5, ("simpo",)),
        ("simpo_gamma", 0, ("simpo",)),
        ("desirable_weight", 1.5, ("kto",)),
        ("undesirable_weight", 0.5, ("kto",)),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(
    loss_type: str, name: str, value: Any, takers: tuple[str, ...]
) -> None:
    if loss_type in takers:
        assert getattr(config(loss_type, **{name: value}), name) == value
        return
    sentence = f"^{name} is .* and the loss '{loss_type}' has no such term: leave it out, or "
    with pytest.raises(ValueError, match=sentence + f"choose {' or '.join(takers)}$"):
        config(loss_type, **{name: value})


@pytest.mark.parametrize("loss_type", TYPES)
def test_the_reference_is_the_losss_own(loss_type: str) -> None:
    wrong = loss_type in ("orpo", "simpo")
    sentence = (
        "compares with no reference model" if wrong else "compares with a reference model"
    )
    with pytest.raises(ValueError, match=f"^reference is {wrong} and .*{sentence}"):
        config(loss_type, reference=wrong)
    with pytest.raises(ValueError, match=r"^reference is 'base': give True, False or None"):
        config(loss_type, reference="base")


@pytest.mark.parametrize("aggregation", [None, "", "average", True])
def test_ipo_says_sum_or_mean(aggregation: Any) -> None:
    with pytest.raises(ValueError, match=r"^ipo_aggregation is .*: say 'sum' .* or 'mean'"):
        PreferenceLossConfig("ipo", ipo_aggregation=aggregation)
    assert not config("ipo", ipo_aggregation="sum").needs_lengths
    assert config("ipo", ipo_aggregation="mean").needs_lengths


def test_simpo_says_its_margin() -> None:
    with pytest.raises(ValueError, match=r"^simpo_gamma is None: give SimPO its target margin"):
        PreferenceLossConfig("simpo")
    for gamma in (-0.5, math.inf, math.nan, True, "1"):
        with pytest.raises(
            ValueError, match=r"^simpo_gamma is .*give a finite number from 0 up"
        ):
            PreferenceLossConfig("simpo", simpo_gamma=gamma)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["desirable_weight", "undesirable_weight"])
@pytest.mark.parametrize("weight", [0, -1, math.inf, math.nan, None])
def test_weights_are_above_0(name: str, weight: Any) -> None:
    with pytest.raises(ValueError, match=f"^{name} is .*: give a finite number above 0"):
        config("kto", **{name: weight})


def test_the_table_has_a_row_for_every_loss() -> None:
    rows = {row["loss"]: row for row in loss_table()}
    assert len(rows) == len(LOSSES) == 7
    assert rows["SimPO"]["reference"] == rows["ORPO"]["reference"] == "no"
    assert {name for name, row in rows.items() if row["data"] == "labels"} == {"KTO"}
    assert {name for name, row in rows.items() if row["lengths"] == "yes"} == {
        "length-normalized DPO", "ORPO", "SimPO",
    }  # fmt: skip
    assert rows["DPO"]["source"].startswith("Rafailov et al. (2023, Eq. 7)")
    assert rows["IPO"]["settings"] == "beta, ipo_aggregation"
    for name, row in rows.items():
        needs = config(row["loss_type"]).needs
        assert (needs.name, needs.reference) == (name, row["reference"] == "yes")
