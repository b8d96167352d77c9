"""What a training run says while it runs: lines on the screen, rows in a file, other tools.

Each engine reports through the same object, so that a run by hand, with TRL and with Unsloth
prints the same line and leaves the same file.

Chapter: sft/your_model.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from tqdm.auto import tqdm

from posttrain.core import arguments
from posttrain.core.machine import process_memory_gb
from posttrain.core.storage.files import write_text_atomic

METRICS_NAME = "metrics.jsonl"
REPORTERS = ("tensorboard", "trackio", "wandb")
_LINES = 20  # how many lines a run prints of its steps, about


class Reporter(Protocol):
    """Where numbers go besides the file."""

    def log(self, numbers: dict[str, float], step: int) -> None:
        """Take the numbers of a step."""

    def close(self) -> None:
        """Write what is left."""


class _TensorBoard:
    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder / "tensorboard"))

    def log(self, numbers: dict[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _Client:
    """W&B and trackio, whose calls have the same names."""

    def __init__(self, module: str, folder: Path, config: Mapping[str, Any]) -> None:
        self._module = importlib.import_module(module)
        self._module.init(project="posttrain", name=folder.name, config=dict(config))

    def log(self, numbers: dict[str, float], step: int) -> None:
        self._module.log(numbers, step=step)

    def close(self) -> None:
        self._module.finish()


def check_reporters(names: Sequence[str]) -> None:
    """Refuse names that mean nothing and packages that are missing, before any work.

    Args:
        names: What ``--report-to`` was given.

    Raises:
        ValueError: If one is unknown or not installed.

    Chapter: sft/your_model.
    """
    for name in arguments.names(names, "report-to"):
        if name not in REPORTERS:
            raise ValueError(f"report-to is {name!r}: choose from {', '.join(REPORTERS)}")
        if importlib.util.find_spec(name) is None:
            raise ValueError(f"{name} is not installed: pip install {name}, or leave it out")


class RunLog:
    """Says how a run goes.

    Args:
        folder: Gets ``metrics.jsonl``, one row a step, an evaluation or a set of samples.
        total_steps: Steps of the whole run.
        start: Steps that an earlier sitting has done; rows after them are dropped from the
            file, since the run repeats them.
        report_to: Names out of :data:`REPORTERS`.
        config: What the other tools show as the run's settings.
        show: Whether to print lines; the file is written in any case.

    Chapter: sft/your_model.
    """

    def __init__(
        self,
        folder: Path,
        total_steps: int,
        *,
        start: int = 0,
        report_to: Sequence[str] = (),
        config: Mapping[str, Any] | None = None,
        show: bool = True,
    ) -> None:
        check_reporters(report_to)
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_NAME
        self._total, self._show = total_steps, show
        self._every = max(1, math.ceil(total_steps / _LINES))
        self._tokens, self._losses = 0, [0.0][:0]
        self._started = self._last = time.perf_counter()
        self._first = start
        kept = [row for row in read_metrics(self.path) if row["step"] <= start] if start else []
        write_text_atomic(self.path, "".join(json.dumps(row) + "\n" for row in kept))
        self._reporters: list[Reporter] = [
            _TensorBoard(folder)
            if name == "tensorboard"
            else _Client(name, folder, config or {})
            for name in report_to
        ]
        self._bar = tqdm(
            total=total_steps,
            initial=start,
            desc="steps",
            disable=not (show and _is_terminal()),
        )

    def step(
        self, step: int, loss: float, learning_rate: float, tokens: int, grad_norm: float
    ) -> None:
        """Take a step.

        Args:
            step: Steps done, this one included.
            loss: Its loss, in nats per trained token.
            learning_rate: Its rate.
            tokens: Tokens that it read, without padding.
            grad_norm: Gradient norm before clipping.
        """
        self._tokens += tokens
        self._losses.append(loss)
        self._bar.update()
        now = time.perf_counter()
        row = {
            "loss": loss,
            "learning_rate": learning_rate,
            "grad_norm": grad_norm,
            "tokens": tokens,
            "seconds": now - self._last,
        }
        self._last = now
        self._write("step", step, row)
        if step % self._every == 0 or step in (1, self._total):
            speed = self._tokens / max(now - self._started, 1e-9)
            left = (now - self._started) / (step - self._first) * (self._total - step)
            mean = sum(self._losses) / len(self._losses)
            self._losses.clear()
            self._say(
                f"step {step:>4}/{self._total}  loss {mean:.3f}  lr {learning_rate:.1e}  "
                f"{speed:,.0f} tokens/s  {process_memory_gb():.1f} GB  "
                f"{_duration(left)} left"
            )

    def evaluation(self, step: int, numbers: Mapping[str, float]) -> None:
        """Take what was measured on held-out rows.

        Args:
            step: Steps done.
            numbers: By name, such as ``val_loss``.
        """
        self._write("evaluation", step, numbers)
        said = "  ".join(f"{name} {value:.3f}" for name, value in numbers.items())
        self._say(f"step {step:>4}/{self._total}  {said}")
        self._last = time.perf_counter()  # an evaluation is no part of the next step

    def samples(self, step: int, texts: Sequence[tuple[str, str]]) -> None:
        """Take the model's answers to the fixed prompts.

        Args:
            step: Steps done.
            texts: Prompt and answer.
        """
        rows = [{"prompt": prompt, "answer": answer} for prompt, answer in texts]
        self._append({"event": "samples", "step": step, "samples": rows})
        for prompt, answer in texts:
            self._say(f"  > {_one_line(prompt)}\n    {_one_line(answer)}")
        self._last = time.perf_counter()

    def close(self) -> None:
        """End the bar and the other tools' runs."""
        self._bar.close()
        for reporter in self._reporters:
            reporter.close()

    def _write(self, event: str, step: int, numbers: Mapping[str, float]) -> None:
        plain = {name: float(value) for name, value in numbers.items()}
        self._append({"event": event, "step": step, **plain})
        prefix = "train" if event == "step" else "eval"
        for reporter in self._reporters:
            named = {f"{prefix}/{name.removeprefix('val_')}": v for name, v in plain.items()}
            reporter.log(named, step)

    def _append(self, row: dict[str, Any]) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def _say(self, line: str) -> None:
        if self._show:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a ``metrics.jsonl``; a last line that a kill cut short is left out.

    Args:
        path: The file.

    Returns:
        The rows, in order; none where there is no file.

    Chapter: sft/your_model.
    """
    rows: list[dict[str, Any]] = []
    if not path.is_file():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n"):
        with contextlib.suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and isinstance(row.get("step"), int):
                rows.append(row)
    return rows


def _is_terminal() -> bool:
    return sys.stderr.isatty()


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _one_line(text: str, length: int = 160) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 2] + " …"
