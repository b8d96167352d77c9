"""Training that goes wrong on purpose, and the check that a killed run resumes exactly.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from posttrain.core.training.modes import in_evaluation_mode
from posttrain.pretraining.data import Batch, RandomWindows
from posttrain.pretraining.model.gpt import GPT


class LeakyGPT(GPT):
    """A GPT whose mask is off by one: each position sees the token that it must predict.

    Args:
        config: The model's shape.

    Chapter: pretraining/training_dynamics.
    """

    def visible(self, T: int, S: int) -> Tensor:
        """Allow one position too many.

        Args:
            T: Number of query positions.
            S: Number of key positions.

        Returns:
            Boolean mask of shape (T, S).
        """
        return torch.ones(T, S, dtype=torch.bool).tril(diagonal=S - T + 1)


@in_evaluation_mode
def future_leak(model: GPT, context: int = 16, seed: int = 0) -> float:
    """Change the last token of a text and see whether earlier predictions move.

    Args:
        model: The model to check.
        context: Length of the random text.
        seed: Seed of the text.

    Returns:
        Largest change of any logit before the last position; 0 for a causal model.

    Raises:
        ValueError: If the text would have no earlier position, or no other last token.

    Chapter: pretraining/training_dynamics.
    """
    if context < 2 or model.config.vocab_size < 2:
        raise ValueError(
            f"context is {context} and the vocabulary has {model.config.vocab_size} tokens: "
            "the check needs at least 2 of both"
        )
    generator = torch.Generator().manual_seed(seed)
    text = torch.randint(model.config.vocab_size, (1, context), generator=generator)
    text = text.to(model.device)
    other = text.clone()
    other[0, -1] = (other[0, -1] + 1) % model.config.vocab_size
    with torch.no_grad():
        change = (model(text) - model(other)).abs()[0, :-1]
    return float(change.max())


@dataclass(frozen=True)
class ResumeCheck:
    """What a killed and resumed run left, beside an undisturbed one.

    Attributes:
        killed_at: Step in which the process was killed.
        resumed_at: Step of the checkpoint from which the second process went on.
        steps: Steps of the whole run.
        weights: SHA-256 over all weights of the resumed run.
        undisturbed_weights: The same of a run that nothing interrupted.
    """

    killed_at: int
    resumed_at: int
    steps: int
    weights: str
    undisturbed_weights: str

    @property
    def identical(self) -> bool:
        """Whether every bit of every weight agrees."""
        return self.weights == self.undisturbed_weights


class KillSwitch(RandomWindows):
    """Batches that end their own process with SIGKILL, as a power cut would.

    Attributes:
        kill_at: Step whose batch is never delivered; negative for never.

    Chapter: pretraining/training_dynamics.
    """

    kill_at = -1
    _delivered = 0

    def __next__(self) -> Batch:
        """Draw a batch, or die.

        Returns:
            A batch.
        """
        if self._delivered == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._delivered += 1
        return super().__next__()


def resumable_run(folder: Path, steps: int, kill_at: int = -1) -> tuple[str, int]:
    """Train the nano model with a checkpoint every ten steps.

    Args:
        folder: Where the checkpoint is kept; a run goes on from what it finds there.
        steps: Steps of the whole run.
        kill_at: Step in which the process kills itself; negative for never.

    Returns:
        SHA-256 over the final weights, and the step at which this sitting took over.

    Chapter: pretraining/training_dynamics.
    """
    from posttrain.core.training.loop import train
    from posttrain.pretraining.presets import NANO
    from posttrain.pretraining.training.metrics import summed_loss
    from posttrain.pretraining.training.run import corpus_of

    corpus = corpus_of(NANO.dataset)
    torch.manual_seed(0)
    model = GPT(replace(NANO.model, vocab_size=corpus.tokenizer.vocab_size))
    warmup = min(NANO.training.warmup_steps, steps)
    training = replace(NANO.training, max_steps=steps, warmup_steps=warmup, save_steps=10)
    batches = KillSwitch(corpus.train, NANO.batch_size, NANO.model.max_position_embeddings)
    batches.kill_at = kill_at
    history = train(model, summed_loss, batches, training, checkpoint_folder=folder)
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest(), history.resumed_at


def kill_and_resume(steps: int = 60, kill_at: int | None = None) -> ResumeCheck:
    """Kill a run with SIGKILL, resume it, and compare with one that nothing interrupted.

    Three processes train one after another: an undisturbed one, one that is killed, and one
    that finds the dead one's checkpoint.

    Args:
        steps: Steps of the whole run.
        kill_at: Step in which the process dies; random where it is left out.

    Returns:
        Both results.

    Raises:
        RuntimeError: If a process that should have finished did not, or the other way round.
        ValueError: If the process would not die within the run.

    Chapter: pretraining/training_dynamics.
    """  # noqa: DOC502, DOC503
    if kill_at is None and steps > 12:  # after the first checkpoint
        kill_at = 11 + secrets.randbelow(steps - 12)
    if kill_at is None or not 0 <= kill_at < steps:
        raise ValueError(
            f"a run of {steps} steps cannot be killed at step {kill_at}: give one of its "
            "steps, or more than 12 steps and no kill_at"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        undisturbed = _in_new_process(folder / "undisturbed", steps, -1)
        _in_new_process(folder / "killed", steps, kill_at)
        resumed = _in_new_process(folder / "killed", steps, -1)
    return ResumeCheck(kill_at, int(resumed[1]), steps, resumed[0], undisturbed[0])


def _in_new_process(folder: Path, steps: int, kill_at: int) -> list[str]:
    folder.mkdir(exist_ok=True)
    code = (
        "import sys, pathlib\n"
        "from posttrain.pretraining.training.failures import resumable_run\n"
        "print(*resumable_run(pathlib.Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))"
    )
    command = [sys.executable, "-c", code, str(folder), str(steps), str(kill_at)]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # the nano model is too small to share
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    expected = -signal.SIGKILL if kill_at >= 0 else 0
    if done.returncode != expected:
        raise RuntimeError(
            f"the training process ended with {done.returncode} and {expected} was expected: "
            f"{done.stderr.strip()[-500:]}"
        )
    return done.stdout.split()
