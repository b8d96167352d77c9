"""TRL's trainer, watched as the run by hand is.

Chapter: sft/your_model.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from posttrain.core.training.checkpoints import History
from posttrain.core.training.loop import check_step
from posttrain.core.training.modes import evaluation_mode
from posttrain.core.training.run_log import RunLog
from posttrain.sft.presets import SFTPreset
from posttrain.sft.training.watching import Watching

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GuardCallback(TrainerCallback):
    """Stops a run that has gone wrong, by the rule of the loop by hand.

    In float16 the trainer scales the loss, and skips a step whose gradient overflows: there a
    gradient that is not finite is no fault.

    Args:
        preset: The run; ``explosion_ratio`` decides.

    Chapter: sft/your_model.
    """

    def __init__(self, preset: SFTPreset) -> None:
        self._preset, self._history = preset, History()

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Take up the losses of an earlier sitting."""
        self._history.loss = [row["loss"] for row in state.log_history if "loss" in row]

    def on_log(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Look at a step's loss and gradient."""
        logs: dict[str, float] = parts["logs"]
        if "loss" not in logs:
            return
        loss, norm = float(logs["loss"]), float(logs.get("grad_norm", 0.0))
        norm = 0.0 if args.fp16 and not math.isfinite(norm) else norm
        step, ratio = state.global_step - 1, self._preset.training.explosion_ratio
        check_step(step, loss, norm, self._history, ratio)
        self._history.loss.append(loss)


class WatchCallback(TrainerCallback):
    """Hands what the trainer logs to a :class:`RunLog`, and lets the model answer.

    Args:
        watching: How the run is shown.
        preset: The run.
        tokenizer: The model's tokenizer.

    Chapter: sft/your_model.
    """

    def __init__(
        self, watching: Watching, preset: SFTPreset, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        self._watching, self._preset, self._tokenizer = watching, preset, tokenizer
        self._log: RunLog | None = None
        self._tokens = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Open the log, and show the answers of the model as it is."""
        self._log = self._watching.log(self._preset, state.global_step)
        if state.global_step == 0 and self._watching.due(0, self._preset.training.max_steps):
            self._log.samples(0, self._answers(parts["model"]))

    def on_log(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Show a step or an evaluation."""
        logs: dict[str, float] = parts["logs"]
        assert self._log is not None
        if "loss" in logs:
            total = int(logs.get("num_tokens", 0))
            new = total - self._tokens if total >= self._tokens else total
            self._tokens = total
            self._log.step(
                state.global_step,
                logs["loss"],
                logs.get("learning_rate", float("nan")),
                new,
                logs.get("grad_norm", float("nan")),
            )
        if "eval_loss" in logs:
            self._log.evaluation(state.global_step, {"val_loss": logs["eval_loss"]})

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Let the model answer where that is due."""
        assert self._log is not None
        if self._watching.due(state.global_step, self._preset.training.max_steps):
            self._log.samples(state.global_step, self._answers(parts["model"]))

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Close the log."""
        if self._log is not None:
            self._log.close()

    @torch.no_grad()
    def _answers(self, model: Any) -> list[tuple[str, str]]:
        answers = []
        with evaluation_mode(model):
            for ids in self._watching.prompt_ids:
                given = torch.tensor([ids], device=model.device)
                found = model.generate(
                    input_ids=given,
                    attention_mask=torch.ones_like(given),
                    max_new_tokens=self._watching.max_new_tokens,
                    do_sample=False,
                    use_cache=True,
                    eos_token_id=self._watching.stop_token_id,
                    pad_token_id=self._watching.stop_token_id,
                )
                answers.append(found[0, len(ids) :].tolist())
        texts = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return list(zip(self._watching.prompts, texts, strict=True))
