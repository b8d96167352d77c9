"""Which loss is trained, with which settings, and what it needs.

A setting that a loss ignores looks like an experiment and is none: a run with label smoothing
under a loss that has none gives the curves of a run without. So each combination that makes no
sense is an error before the first step.

Chapter: dpo/losses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

AGGREGATIONS = ("sum", "mean")


@dataclass(frozen=True)
class LossNeeds:
    """What a loss is computed from: one row of the table of losses.

    Attributes:
        loss_type: Its name in :class:`PreferenceLossConfig`, which is TRL's.
        name: Its name in the literature.
        data: ``"pairs"`` of a chosen and a rejected answer, or ``"labels"`` of single answers.
        reference: Whether it compares with a reference model.
        lengths: Whether it divides by the answers' lengths: ``"yes"``, ``"no"``, or
            ``"if mean"`` where the aggregation decides.
        settings: What it takes beside ``beta``.
        source: The paper, with the equation's number where the paper gives one.

    Chapter: dpo/losses.
    """

    loss_type: str
    name: str
    data: str
    reference: bool
    lengths: str
    settings: tuple[str, ...]
    source: str


_DPO, _IPO = "Rafailov et al. (2023, Eq. 7)", "Azar et al. (2024, Eq. 17)"
_SMOOTHED = f"{_DPO}; with label smoothing Mitchell (2023, Eq. 3)"
_NORMALIZED = "Lambert et al. (2024, Eq. 6)"
_ORPO, _SIMPO = "Hong et al. (2024, Eq. 6 and 7)", "Meng et al. (2024, Eq. 6)"
_KTO = "Ethayarajh et al. (2024)"
_ROBUST = "Chowdhury et al. (2024)"
_WEIGHTS = ("desirable_weight", "undesirable_weight")

LOSSES = (
    LossNeeds("sigmoid", "DPO", "pairs", True, "no", ("label_smoothing",), _SMOOTHED),
    LossNeeds("robust", "robust DPO", "pairs", True, "no", ("label_smoothing",), _ROBUST),
    LossNeeds("ipo", "IPO", "pairs", True, "if mean", ("ipo_aggregation",), _IPO),
    LossNeeds("sigmoid_norm", "length-normalized DPO", "pairs", True, "yes", (), _NORMALIZED),
    LossNeeds("kto", "KTO", "labels", True, "no", _WEIGHTS, _KTO),
    LossNeeds("orpo", "ORPO", "pairs", False, "yes", (), _ORPO),
    LossNeeds("simpo", "SimPO", "pairs", False, "yes", ("simpo_gamma",), _SIMPO),
)
_BY_TYPE = {needs.loss_type: needs for needs in LOSSES}


@dataclass(frozen=True)
class PreferenceLossConfig:
    """Which preference loss is trained, in the names of TRL's configurations.

    Conservative DPO is ``sigmoid`` with ``label_smoothing`` above 0. TRL 1.14.2 takes that
    combination too, and computes plain DPO.

    Attributes:
        loss_type: One of the names in ``LOSSES``.
        beta: How strongly the policy is held to the reference. IPO's paper calls it tau,
            ORPO's lambda; in SimPO it scales the reward.
        label_smoothing: Assumed share of flipped pairs, from 0 to below 0.5. For ``sigmoid``
            and ``robust``.
        ipo_aggregation: ``"sum"`` or ``"mean"``: whether IPO compares the log-probability of
            an answer, as its equation has it, or that of its average token, as its authors
            train it and TRL computes it. The two need different ``beta``, so IPO has no
            default.
        simpo_gamma: Target margin of SimPO, from 0 up; SimPO has no default.
        desirable_weight: Weight of desirable answers in KTO, above 0.
        undesirable_weight: Weight of undesirable answers in KTO, above 0.
        reference: Whether a reference model takes part; ``None`` leaves it to the loss.

    Chapter: dpo/losses.
    """

    loss_type: str = "sigmoid"
    beta: float = 0.1
    label_smoothing: float = 0.0
    ipo_aggregation: str | None = None
    simpo_gamma: float | None = None
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    reference: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no loss can mean, and settings that this loss would ignore."""
        if not isinstance(self.loss_type, str) or self.loss_type not in _BY_TYPE:
            raise ValueError(
                f"loss_type is {self.loss_type!r}: choose one of {', '.join(_BY_TYPE)}"
            )
        self._check_beta()
        self._check_numbers()
        self._check_ignored()
        self._check_reference()
        if self.loss_type == "ipo" and self.ipo_aggregation not in AGGREGATIONS:
            raise ValueError(
                f"ipo_aggregation is {self.ipo_aggregation!r}: say 'sum' for the equation's "
                "log-probability of a whole answer, or 'mean' for that of its average token"
            )
        if self.loss_type == "simpo" and self.simpo_gamma is None:
            raise ValueError(
                "simpo_gamma is None: give SimPO its target margin, a number from 0 up; TRL's "
                "default is 0.5"
            )

    def _check_beta(self) -> None:
        if not _is_number(self.beta) or not 0 < self.beta < math.inf:
            hint = ": at 0 the loss is log 2 for every policy" if _is_zero(self.beta) else ""
            raise ValueError(f"beta is {self.beta!r}{hint}; give a finite number above 0")

    def _check_numbers(self) -> None:
        if not _is_number(self.label_smoothing) or not 0 <= self.label_smoothing < 0.5:
            raise ValueError(
                f"label_smoothing is {self.label_smoothing!r}: give the assumed share of "
                "flipped pairs, from 0 to below 0.5, where a label would say nothing"
            )
        for name in _WEIGHTS:
            if not _is_number(weight := getattr(self, name)) or not 0 < weight < math.inf:
                raise ValueError(f"{name} is {weight!r}: give a finite number above 0")
        gamma = self.simpo_gamma
        if gamma is not None and not (_is_number(gamma) and 0 <= gamma < math.inf):
            raise ValueError(f"simpo_gamma is {gamma!r}: give a finite number from 0 up")

    def _check_ignored(self) -> None:
        usual = {name: field.default for name, field in self.__dataclass_fields__.items()}
        for name in ("label_smoothing", "ipo_aggregation", "simpo_gamma", *_WEIGHTS):
            given = getattr(self, name)
            if given != usual[name] and name not in self.needs.settings:
                takers = [needs.loss_type for needs in LOSSES if name in needs.settings]
                raise ValueError(
                    f"{name} is {given!r} and the loss {self.loss_type!r} has no such term: "
                    f"leave it out, or choose {' or '.join(takers)}"
                )

    def _check_reference(self) -> None:
        if self.reference is None or self.reference is self.needs.reference:
            return
        if not isinstance(self.reference, bool):
            raise ValueError(f"reference is {self.reference!r}: give True, False or None")
        if self.reference:
            raise ValueError(
                f"reference is True and {self.needs.name} compares with no reference model: "
                "leave it out, or choose another loss"
            )
        raise ValueError(
            f"reference is False and {self.needs.name} compares with a reference model: leave "
            "it out, or choose orpo or simpo"
        )

    @property
    def needs(self) -> LossNeeds:
        """What this loss is computed from."""
        return _BY_TYPE[self.loss_type]

    @property
    def needs_lengths(self) -> bool:
        """Whether log-probabilities are divided by the answers' lengths."""
        return self.needs.lengths == "yes" or self.ipo_aggregation == "mean"


def loss_table() -> list[dict[str, Any]]:
    """List the losses with what each needs, as rows of a table.

    Returns:
        One row a loss, by column: its name, its ``loss_type``, the kind of data, whether it
        needs a reference and lengths, its further settings, and its source.

    Chapter: dpo/losses.
    """
    return [
        {
            "loss": needs.name,
            "loss_type": needs.loss_type,
            "data": needs.data,
            "reference": "yes" if needs.reference else "no",
            "lengths": needs.lengths,
            "settings": ", ".join(("beta", *needs.settings)),
            "source": needs.source,
        }
        for needs in LOSSES
    ]


def _is_number(value: object) -> bool:
    """True is a number to Python, and no weight to anybody."""
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_zero(value: object) -> bool:
    return _is_number(value) and value == 0
