"""TRL's DPOTrainer, watched as the run by hand is.

Chapter: dpo/alignment.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from posttrain.dpo.presets import DPOPreset
from posttrain.dpo.runs.settings import trainer_preset
from posttrain.dpo.runs.watching import PairLog, open_log
from posttrain.dpo.training.dpo_run import PairMetrics
from posttrain.sft.training.trl_watching import WatchCallback
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NAMES = {
    "loss": "loss",
    "accuracy": "rewards/accuracies",
    "margin": "rewards/margins",
    "chosen_logps": "logps/chosen",
    "rejected_logps": "logps/rejected",
}


class PairWatchCallback(WatchCallback):
    """Hands what the trainer logs to a :class:`posttrain.dpo.runs.watching.PairLog`.

    TRL counts a tie as wrong. Before the first step every pair is one, up to rounding, so the
    accuracy of that evaluation says nothing and is left out.

    Args:
        watching: How the run is shown.
        preset: The run.
        tokenizer: The model's tokenizer.

    Chapter: dpo/alignment.
    """

    _log: PairLog | None

    def __init__(
        self, watching: Watching, preset: DPOPreset, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        super().__init__(watching, trainer_preset(preset), tokenizer)
        self._run = preset

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Open the log, and show the answers of the model as it is."""
        self._log = open_log(self._watching, self._run, state.global_step)
        if state.global_step == 0 and self._watching.due(0, self._run.training.max_steps):
            self._log.samples(0, self._answers(parts["model"]))

    def on_log(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Show a step or an evaluation."""
        logs: dict[str, float] = parts["logs"]
        assert self._log is not None
        if "loss" in logs:
            total = int(logs.get("num_tokens", 0))
            new = total - self._tokens if total >= self._tokens else total
            self._tokens = total
            self._log.pair_step(
                state.global_step,
                PairMetrics(**{ours: float(logs[name]) for ours, name in _NAMES.items()}),
                logs.get("learning_rate", float("nan")),
                new,
                logs.get("grad_norm", float("nan")),
            )
        if "eval_loss" in logs:
            found = {ours: float(logs[f"eval_{name}"]) for ours, name in _NAMES.items()}
            if state.global_step == 0:
                del found["accuracy"]
            self._log.pair_evaluation(state.global_step, found)
