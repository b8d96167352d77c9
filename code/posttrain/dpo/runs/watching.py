"""How a run on pairs is watched: Stage 1's log, with rewards and log-probabilities beside it.

A loss that falls may mean that the chosen answers became likelier, or that both became less
likely and the rejected ones fell faster. So both log-probabilities stand in every line.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from posttrain.core.training.run_log import RunLog
from posttrain.dpo.training.dpo_run import PairMetrics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from posttrain.dpo.presets import DPOPreset
    from posttrain.sft.training.watching import Watching


class PairLog(RunLog):
    """Says how a run on pairs goes; see :class:`posttrain.core.training.run_log.RunLog`.

    Chapter: dpo/alignment.
    """

    _found: PairMetrics | None = None
    _unsaid: tuple[PairMetrics, ...] = ()

    def pair_step(
        self, step: int, found: PairMetrics, learning_rate: float, tokens: int, grad_norm: float
    ) -> None:
        """Take a step.

        Args:
            step: Steps done, this one included.
            found: What the policy said of its pairs before the step.
            learning_rate: Its rate.
            tokens: Tokens that it read, without padding.
            grad_norm: Gradient norm before clipping.
        """
        self._found = found
        self._unsaid = (*self._unsaid, found)
        self.step(step, found.loss, learning_rate, tokens, grad_norm)
        self._found = None

    def pair_evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take what was measured on held-out pairs.

        Args:
            step: Steps done.
            numbers: By the names of :class:`posttrain.dpo.training.dpo_run.PairMetrics`.
        """
        self.evaluation(step, {f"val_{name}": value for name, value in numbers.items()})

    def _write(self, event: str, step: int, numbers: Mapping[str, float]) -> None:
        if self._found is not None:
            more = measured(self._found)
            numbers = {**more, **numbers}
        super()._write(event, step, numbers)

    def _say(self, line: str) -> None:
        if self._found is not None:  # a step's line: means since the last one
            accuracy, margin, chosen, rejected = (
                sum(getattr(found, name) for found in self._unsaid) / len(self._unsaid)
                for name in ("accuracy", "margin", "chosen_logps", "rejected_logps")
            )
            self._unsaid = ()
            line += (
                f"\n{' ' * len(line.split('  loss')[0])}  accuracy {accuracy:.2f}  margin "
                f"{margin:+.3f}  log-probability {chosen:.1f} chosen, {rejected:.1f} rejected"
            )
        super()._say(line)


def measured(found: PairMetrics) -> dict[str, float]:
    """List what was measured, by name; what was not measured is left out.

    Args:
        found: The metrics.

    Returns:
        Numbers only.

    Chapter: dpo/alignment.
    """
    return {name: value for name, value in vars(found).items() if value is not None}


def open_log(watching: Watching, preset: DPOPreset, start: int = 0) -> PairLog:
    """Open the log of a run on pairs.

    Args:
        watching: How the run is shown.
        preset: The run.
        start: Steps that an earlier sitting has done.

    Returns:
        The log.

    Chapter: dpo/alignment.
    """
    return PairLog(
        Path(watching.folder),
        preset.training.max_steps,
        start=start,
        report_to=watching.report_to,
        config=asdict(preset),
        show=watching.show,
    )
