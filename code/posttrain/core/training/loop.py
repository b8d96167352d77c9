"""The training loop that every stage uses.

One optimizer step is: sum the loss over the micro-batches, divide the gradient by the number
of terms, clip it, step AdamW at the scheduled rate. Around that stand a guard that stops a run
that has gone wrong, and checkpoints from which a run goes on to bit-identical weights.

Chapter: pretraining/training_dynamics.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from posttrain.core.errors import TrainingDiverged
from posttrain.core.training.checkpoints import (
    BatchSource,
    History,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from posttrain.core.training.contention import BusyWatch
from posttrain.core.training.identity import run_identity
from posttrain.core.training.modes import evaluation_mode
from posttrain.core.training.optimization import (
    TrainingConfig,
    build_optimizer,
    learning_rate_at,
)

BatchT = TypeVar("BatchT")


def check_step(
    step: int, loss: float, grad_norm: float, history: History, ratio: float
) -> None:
    """Stop a run that has gone wrong, and say what the likely cause is.

    Args:
        step: Index of the step, from 0.
        loss: This step's loss, in nats.
        grad_norm: This step's gradient norm before clipping.
        history: The steps before.
        ratio: See ``explosion_ratio`` of :class:`TrainingConfig`.

    Raises:
        TrainingDiverged: If loss or gradient is not finite, or the loss has exploded.

    Chapter: pretraining/training_dynamics.
    """
    too_large = (
        "the weights have grown too large: lower learning_rate or lengthen the warm-up, unless "
        "this step's batch or its labels are damaged"
    )
    if not math.isfinite(loss):
        unchanged = (
            "it was not finite before any update: look at the batch and its labels, for a "
            "division by zero in the loss, and for damaged weights"
        )
        raise TrainingDiverged(step, f"the loss is {loss}; {too_large if step else unchanged}")
    if not math.isfinite(grad_norm):
        cause = (
            "the loss is finite and its gradient is not: look for an overflow in low "
            "precision, or a square root or logarithm at 0"
        )
        cause += "; or learning_rate is too high" if step else ""
        raise TrainingDiverged(step, f"the gradient norm is {grad_norm}; {cause}")
    if ratio and step >= 20:
        start = sum(history.loss[:10]) / 10
        if history.loss[0] > 0:
            start = min(start, 2 * history.loss[0])
        recent = (sum(history.loss[-9:]) + loss) / 10
        if recent > ratio * abs(start):
            raise TrainingDiverged(
                step,
                f"the loss averages {recent:.3g} over 10 steps and was {history.loss[0]:.3g} "
                "at the start; learning_rate is too high, or the warm-up is too short",
            )


def train(
    model: nn.Module,
    loss_fn: Callable[[nn.Module, BatchT], tuple[Tensor, int]],
    batches: BatchSource[BatchT],
    config: TrainingConfig,
    *,
    evaluate: Callable[[nn.Module, int], dict[str, Any]] | None = None,
    checkpoint_folder: Path | None = None,
    description: str = "training",
    history: History | None = None,
    on_step: Callable[[int, History], None] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> History:
    """Train a model in place.

    Where ``checkpoint_folder`` holds a checkpoint of the same run, this one goes on from there.
    An interruption costs at most ``save_steps`` steps. The same run has the same configuration,
    the same frozen weights, batches that say so of themselves, and the same ``identity``.

    Args:
        model: The model; its trainable parameters change.
        loss_fn: Gives a batch's summed loss, in nats, and how many terms the sum has. Sums,
            and not means, make accumulated micro-batches equal to one large batch.
        batches: Where micro-batches come from.
        config: Everything that decides a step.
        evaluate: Called as ``evaluate(model, step)`` in evaluation mode, without gradients,
            after every ``eval_steps`` steps, at step 0 and at the end.
        checkpoint_folder: Where the checkpoint is kept.
        description: Name on the progress bar.
        history: Emptied, then filled as the run goes, so that a caller has it where the guard
            stops the run.
        on_step: Called as ``on_step(step, history)`` after each step, before a checkpoint is
            written and before an evaluation; it shows the run, in place of the progress bar.
        identity: What else decides the result, by name, such as the adapter's configuration or
            a hash of the data: plain values, or dataclasses of them.

    Returns:
        What happened: ``history`` where it was given.

    Raises:
        TrainingDiverged: If the guard stops the run.
        ArtifactError: If the checkpoint is damaged or of another run.
        TypeError: If a checkpoint cannot hold what ``evaluate`` or the batches return, or the
            identity.

    Chapter: pretraining/training_dynamics.
    """  # noqa: DOC502
    identity = run_identity(model, config, identity) if checkpoint_folder else None
    on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
    watch = BusyWatch(torch.get_num_threads() if on_cpu else 1)
    torch.manual_seed(config.seed)
    random.seed(config.seed)
    np.random.seed(config.seed)
    optimizer = build_optimizer(model, config)
    model.zero_grad(set_to_none=True)  # of an interrupted step, or of the caller's own
    stored = None
    if checkpoint_folder is not None:
        stored = load_checkpoint(checkpoint_folder, model, optimizer, batches, config, identity)
    history = History() if history is None else history
    vars(history).update(vars(stored or History()))
    history.resumed_at = first = len(history.loss)
    if first == 0:
        _evaluate(model, 0, evaluate, history)
    model.train()
    with tqdm(
        initial=first, total=config.max_steps, desc=description, disable=on_step is not None
    ) as bar:
        for step in range(first, config.max_steps):
            started = time.perf_counter()
            rate = learning_rate_at(step, config)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, grad_norm = _backward(step, model, loss_fn, batches, config)
            check_step(step, loss, grad_norm, history, config.explosion_ratio)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            history.seconds += time.perf_counter() - started
            history.loss.append(loss)
            history.grad_norm.append(grad_norm)
            history.learning_rate.append(rate)
            done = step + 1
            if on_step is not None:
                on_step(done, history)
            if done == config.max_steps or (
                config.eval_steps and done % config.eval_steps == 0
            ):
                _evaluate(model, done, evaluate, history)
            if checkpoint_folder and config.save_steps and done % config.save_steps == 0:
                save_checkpoint(
                    checkpoint_folder, model, optimizer, batches, config, history, identity
                )
            if step % 10 == 0:
                bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
            watch.warn()
    model.eval()
    return history


def _backward(
    step: int,
    model: nn.Module,
    loss_fn: Callable[[nn.Module, BatchT], tuple[Tensor, int]],
    batches: BatchSource[BatchT],
    config: TrainingConfig,
) -> tuple[float, float]:
    """Leave the mean gradient, clipped, in ``.grad``; return mean loss and gradient norm."""
    total, count = 0.0, 0
    device = next(model.parameters()).device.type
    for _ in range(config.gradient_accumulation_steps):
        with torch.autocast(device, torch.bfloat16, enabled=config.use_bf16):
            loss, terms = loss_fn(model, next(batches))
        loss.backward()
        total, count = total + loss.item(), count + terms
    if count < 1:
        raise TrainingDiverged(step, "its batch has no trained token: look at the labels")
    parameters = [p for p in model.parameters() if p.grad is not None]
    gradients = [p.grad for p in parameters if p.grad is not None]
    for gradient in gradients:
        gradient /= count
    norm = nn.utils.get_total_norm(gradients)
    if config.max_grad_norm:
        nn.utils.clip_grads_with_norm_(parameters, config.max_grad_norm, norm)
    return total / count, norm.item()


def _evaluate(
    model: nn.Module,
    step: int,
    evaluate: Callable[[nn.Module, int], dict[str, Any]] | None,
    history: History,
) -> None:
    """Add a row; the run goes on as though nothing had been evaluated."""
    if evaluate is None:
        return
    before = random_state()
    with torch.no_grad(), evaluation_mode(model):
        row = evaluate(model, step)
    set_random_state(before)
    plain = {k: v.item() if getattr(v, "ndim", None) == 0 else v for k, v in row.items()}
    history.evaluations.append({"step": step, **plain})
