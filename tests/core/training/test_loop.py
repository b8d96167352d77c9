"""posttrain.core.training.loop: the loop, its guard, and resumption to the same bits."""

import math
import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from posttrain.core.errors import ArtifactError, TrainingDiverged
from posttrain.core.training.checkpoints import CHECKPOINT_NAME, History, random_state
from posttrain.core.training.loop import check_step, train
from posttrain.core.training.optimization import TrainingConfig

Pair = tuple[Tensor, Tensor]
STEPS = 7
CONFIG = TrainingConfig(max_steps=STEPS, learning_rate=0.05, warmup_steps=2, bf16=False)


class Rows:
    """Endless rows of a linear problem; ``sizes`` says how many per batch, in turn."""

    def __init__(self, *sizes: int) -> None:
        self.sizes, self.position = sizes, 0
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(64, 3, generator=generator)
        self.y = self.x @ torch.tensor([[1.0], [-2.0], [0.5]])
        self.at = 0

    def __next__(self) -> Pair:
        size = self.sizes[self.position % len(self.sizes)]
        rows = torch.arange(self.at, self.at + size) % 64
        self.position, self.at = self.position + 1, self.at + size
        return self.x[rows], self.y[rows]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position, "at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position, self.at = state["position"], state["at"]


def linear(width: int = 3) -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(width, 8), nn.Tanh(), nn.Linear(8, 1))


def squares(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
    x, y = batch
    return (model(x) - y).square().sum(), len(x)


def noisy_squares(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
    """Dropout, and noise from NumPy and Python: everything random that a loss may use."""
    x, y = batch
    x = nn.functional.dropout(x, 0.5) + float(np.random.normal()) + random.random()
    return (model(x) - y).square().sum(), len(x)


def weights(model: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in model.parameters()]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, weights(a), weights(b)))


def watch(record: dict[str, Any], loss_fn: Callable[..., Any] = squares) -> Callable[..., Any]:
    """Count the calls, and note whether the model was in training mode."""

    def watched(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        record["calls"] = record.get("calls", 0) + 1
        record["modes"] = [*record.get("modes", []), model.training]
        return loss_fn(model, batch)

    return watched


def gradients(
    config: TrainingConfig, *sizes: int, monkeypatch: pytest.MonkeyPatch
) -> list[Tensor]:
    """The gradients that the first optimizer step used."""
    kept: list[list[Tensor]] = []
    step = torch.optim.AdamW.step

    def spy(self: torch.optim.AdamW, *args: Any, **kwargs: Any) -> Any:
        kept.append([p.grad.clone() for g in self.param_groups for p in g["params"]])
        return step(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", spy)
        train(linear(), squares, Rows(*sizes), config)
    return kept[0]


# --- one step ---


@pytest.mark.parametrize("sizes", [(4, 4, 4), (2, 9, 1)], ids=["equal", "unequal"])
def test_accumulated_micro_batches_equal_one_large_batch(sizes, monkeypatch):
    """Also where they differ in size: the mean of their means would weigh terms unequally."""
    once = replace(CONFIG, max_grad_norm=0.0)
    thrice = replace(once, gradient_accumulation_steps=3)
    many, one = linear(), linear()
    accumulated = train(many, squares, Rows(*sizes), thrice)
    large = train(one, squares, Rows(12), once)
    assert accumulated.loss == pytest.approx(large.loss, rel=1e-5)
    assert accumulated.grad_norm == pytest.approx(large.grad_norm, rel=1e-5)
    for a, b in zip(weights(many), weights(one), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for a, b in zip(
        gradients(thrice, *sizes, monkeypatch=monkeypatch),
        gradients(once, 12, monkeypatch=monkeypatch),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7)


def test_the_mean_of_means_would_be_another_gradient(monkeypatch):
    """What the test above rules out does differ on its data."""

    def mean(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        loss, terms = squares(model, batch)
        return loss / terms, 1

    config = replace(CONFIG, max_grad_norm=0.0, max_steps=1, warmup_steps=0)
    right = train(linear(), squares, Rows(12), config)
    wrong = train(linear(), mean, Rows(2, 9, 1), replace(config, gradient_accumulation_steps=3))
    assert abs(wrong.loss[0] / right.loss[0] - 1) > 0.01


def test_the_gradient_is_that_of_the_mean_loss(monkeypatch):
    model = linear()
    loss, terms = squares(model, next(Rows(6)))
    (loss / terms).backward()
    used = gradients(replace(CONFIG, max_grad_norm=0.0), 6, monkeypatch=monkeypatch)
    expected = {tuple(p.shape): p.grad for p in model.parameters()}  # all shapes differ
    for gradient in used:
        torch.testing.assert_close(gradient, expected[tuple(gradient.shape)])


@pytest.mark.parametrize("bound", [0.01, 1e6])
def test_clipping_equals_torchs(bound: float, monkeypatch):
    model = linear()
    loss, terms = squares(model, next(Rows(6)))
    (loss / terms).backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), bound)
    config = replace(CONFIG, max_grad_norm=bound)
    used = gradients(config, 6, monkeypatch=monkeypatch)
    expected = {tuple(p.shape): p.grad for p in model.parameters()}
    for gradient in used:
        torch.testing.assert_close(gradient, expected[tuple(gradient.shape)])
    history = train(linear(), squares, Rows(6), config)
    assert history.grad_norm[0] == pytest.approx(norm.item(), rel=1e-6)  # before clipping


def test_frozen_parameters_stay_and_do_not_count():
    model, other = linear(), linear()
    model[0].requires_grad_(False)
    model[0].weight.grad = torch.full_like(model[0].weight, 1e6)  # left by an earlier use
    other[0].requires_grad_(False)
    before = model[0].weight.clone()
    assert asdict(train(model, squares, Rows(4), CONFIG))["grad_norm"] == pytest.approx(
        train(other, squares, Rows(4), CONFIG).grad_norm
    )
    assert torch.equal(model[0].weight, before) and same(model, other)


def test_gradients_from_before_do_not_leak_into_the_first_step():
    model, other = linear(), linear()
    squares(model, next(Rows(4)))[0].backward()
    train(model, squares, Rows(4), CONFIG)
    train(other, squares, Rows(4), CONFIG)
    assert same(model, other)


def test_bf16_runs_the_forward_pass_in_bf16():
    seen = []

    def loss_fn(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        output = model(batch[0])
        seen.append(output.dtype)
        return (output.float() - batch[1]).square().sum(), len(batch[0])

    for bf16 in (True, False):
        train(
            linear(), loss_fn, Rows(4), replace(CONFIG, max_steps=1, warmup_steps=0, bf16=bf16)
        )
    assert seen == [torch.bfloat16, torch.float32]


# --- the run ---


def test_the_history_says_what_happened():
    record: dict[str, Any] = {}
    config = replace(CONFIG, eval_steps=3, gradient_accumulation_steps=2)
    model = linear()

    def evaluate(current: nn.Module, step: int) -> dict[str, Any]:
        assert current is model and not current.training and not torch.is_grad_enabled()
        return {"square": step**2, "half": np.float64(0.5), "third": torch.tensor(3.0)}

    model.eval()
    history = train(model, watch(record), Rows(4), config, evaluate=evaluate)
    assert record["calls"] == 2 * STEPS and all(record["modes"])
    assert not model.training
    assert len(history.loss) == len(history.grad_norm) == len(history.learning_rate) == STEPS
    assert history.learning_rate[:3] == pytest.approx([0.025, 0.05, 0.05])
    assert [row["step"] for row in history.evaluations] == [0, 3, 6, 7]
    assert history.evaluations[1] == {"step": 3, "square": 9, "half": 0.5, "third": 3.0}
    assert {type(value) for value in history.evaluations[1].values()} == {int, float}
    assert history.seconds > 0 and history.resumed_at == 0


def test_the_last_step_is_evaluated_once():
    for steps, expected in ((0, [0, 7]), (7, [0, 7]), (5, [0, 5, 7])):
        config = replace(CONFIG, eval_steps=steps)
        history = train(linear(), squares, Rows(4), config, evaluate=lambda m, s: {})
        assert [row["step"] for row in history.evaluations] == expected


def test_the_same_seed_gives_the_same_run_whatever_ran_before():
    models = [linear() for _ in range(3)]
    histories = []
    for model, seed in zip(models, (5, 5, 6), strict=True):
        torch.rand(3), random.random(), np.random.rand()
        config = replace(CONFIG, seed=seed)
        histories.append(train(model, noisy_squares, Rows(4), config).loss)
    assert histories[0] == histories[1] != histories[2]
    assert same(models[0], models[1]) and not same(models[0], models[2])


def random_evaluation(model: nn.Module, step: int) -> dict[str, Any]:
    return {"noise": [torch.rand(3).sum().item(), random.random(), float(np.random.rand())]}


def test_evaluation_does_not_change_training():
    models, histories = [linear(), linear()], []
    for model, every in zip(models, (0, 1), strict=True):
        config = replace(CONFIG, eval_steps=every)
        evaluate = random_evaluation if every else None
        histories.append(train(model, noisy_squares, Rows(4), config, evaluate=evaluate))
    assert histories[0].loss == histories[1].loss
    assert same(*models)


def test_a_history_given_is_emptied_and_filled():
    history = History(loss=[9.0] * 3, evaluations=[{"step": 0}])
    assert train(linear(), squares, Rows(4), CONFIG, history=history) is history
    assert len(history.loss) == STEPS and history.loss[0] != 9.0 and not history.evaluations


# --- the guard ---


def broken(at: int, spoil: Callable[[Tensor], Tensor]) -> Callable[..., tuple[Tensor, int]]:
    calls = iter(range(1000))

    def loss_fn(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        loss, terms = squares(model, batch)
        return (spoil(loss) if next(calls) == at else loss), terms

    return loss_fn


def nan_gradient(loss: Tensor) -> Tensor:
    return loss + (loss.detach() - loss).abs().sqrt()  # finite, but its slope at 0 is not


@pytest.mark.parametrize(
    ("at", "spoil", "words"),
    [
        (
            0,
            lambda x: x * math.nan,
            ["the loss is nan", "before any update", "batch", "labels"],
        ),
        (0, lambda x: x / 0, ["the loss is inf", "division by zero"]),
        (3, lambda x: x * math.nan, ["the loss is nan", "learning_rate", "warm-up", "batch"]),
        (0, nan_gradient, ["the gradient norm is nan", "square root", "low precision"]),
        (3, nan_gradient, ["the gradient norm is nan", "or learning_rate is too high"]),
    ],
)
def test_the_guard_names_step_and_cause(at: int, spoil, words: list[str]):
    model, other, history = linear(), linear(), History()
    with pytest.raises(TrainingDiverged, match=f"diverged at step {at}: ") as caught:
        train(model, broken(at, spoil), Rows(4), CONFIG, history=history)
    assert caught.value.step == at
    assert all(word in caught.value.cause for word in words), caught.value.cause
    assert len(history.loss) == at  # what the caller has left
    if at:  # no weight was touched by the bad step
        short = replace(CONFIG, max_steps=STEPS)
        with pytest.raises(TrainingDiverged):
            train(other, broken(at, lambda x: x * math.inf), Rows(4), short)
    assert same(model, other)
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_a_learning_rate_is_not_blamed_for_a_first_step():
    with pytest.raises(TrainingDiverged) as caught:
        train(linear(), broken(0, nan_gradient), Rows(4), CONFIG)
    assert "learning_rate" not in caught.value.cause


@pytest.mark.parametrize("at", [0, 4])
def test_a_batch_without_a_trained_token_is_named_at_any_step(at: int):
    calls = iter(range(100))

    def loss_fn(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        loss, terms = squares(model, batch)
        return (loss * 0, 0) if next(calls) == at else (loss, terms)

    with pytest.raises(TrainingDiverged, match=f"step {at}: .* no trained token.*labels"):
        train(linear(), loss_fn, Rows(4), CONFIG)


def test_one_micro_batch_without_a_trained_token_does_no_harm():
    def masked(model: nn.Module, batch: Pair) -> tuple[Tensor, int]:
        x, y = batch
        return (
            ((model(x) - y).square().sum(), len(x)) if len(x) > 1 else (model(x).sum() * 0, 0)
        )

    config = replace(CONFIG, max_steps=1, warmup_steps=0)
    two = replace(config, gradient_accumulation_steps=2)
    assert train(linear(), masked, Rows(4, 1), two).loss == pytest.approx(
        train(linear(), masked, Rows(4), config).loss
    )


def feed(losses: list[float], ratio: float = 1.5) -> None:
    history = History()
    for step, loss in enumerate(losses):
        check_step(step, loss, 1.0, history, ratio)
        history.loss.append(loss)


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([2.0] * 20 + [3.2] * 10, 28),  # (9 x 3.2 + 2) / 10 = 3.08, above 1.5 x 2
        ([2.0] * 20 + [100.0], 20),  # (9 x 2 + 100) / 10 = 11.8
        ([4.0] + [100.0] * 19 + [99.0], 20),  # exploded before there were ten steps
        ([4.0, 50.0] + [30.0] * 30, 20),
        ([-1.0] * 20 + [3.0] * 8, 26),  # a loss below 0: (7 x 3 - 3) / 10 = 1.8
    ],
)
def test_an_explosion_is_caught(losses: list[float], step: int):
    with pytest.raises(
        TrainingDiverged, match=r"averages .* at the start; learning_rate"
    ) as got:
        feed(losses)
    assert got.value.step == step


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 20 + [2.9] * 30,  # 1.45 times the start
        [2.0] * 10 + [1.0] * 20 + [100.0 / 9] + [1.0] * 8 + [0.1] * 9,  # one bad batch
        [1.2, *[2.0] * 40],  # a first batch that was easy by chance
        [4.0, 9.0, 6.0, *[5.0] * 30],  # a start that recovers
    ],
)
def test_noise_is_not_an_explosion(losses: list[float]):
    feed(losses)


def test_a_ratio_of_0_switches_the_explosion_guard_off_and_only_that():
    feed([1.0] * 20 + [1e9] * 20, ratio=0)
    with pytest.raises(TrainingDiverged):
        feed([1.0, math.nan], ratio=0)


def test_an_exploding_run_is_stopped():
    config = replace(CONFIG, max_steps=60, learning_rate=30.0, warmup_steps=0, max_grad_norm=0)
    with pytest.raises(TrainingDiverged, match="learning_rate is too high") as caught:
        train(linear(), squares, Rows(4), config)
    assert 20 <= caught.value.step < 60


# --- resumption ---


class Stop(BaseException):
    pass


class Interrupted(Rows):
    """Raises before it delivers a batch, as Ctrl-C would."""

    def __init__(self, *sizes: int, at: int, error: type[BaseException] = Stop) -> None:
        super().__init__(*sizes)
        self.stop, self.error = at, error

    def __next__(self) -> Pair:
        if self.position == self.stop:
            raise self.error
        return super().__next__()


RESUMABLE = replace(CONFIG, save_steps=1, eval_steps=2, gradient_accumulation_steps=2)


def undisturbed() -> tuple[nn.Module, History, dict[str, Any]]:
    model = linear()
    history = train(model, noisy_squares, Rows(3, 1), RESUMABLE, evaluate=random_evaluation)
    return model, history, random_state()


def without_clock(history: History) -> dict[str, Any]:
    return {k: v for k, v in asdict(history).items() if k not in ("seconds", "resumed_at")}


@pytest.mark.parametrize("save_steps", [1, 2, 3])
@pytest.mark.parametrize("batches", [1, 2, 3, 6, 7, 10, 13])
def test_resumption_is_exact_wherever_the_run_stopped(tmp_path, save_steps, batches):
    """Weights, history and the state of every generator; evaluation draws numbers too."""
    config = replace(RESUMABLE, save_steps=save_steps)
    with pytest.raises(Stop):
        train(linear(), noisy_squares, Interrupted(3, 1, at=batches), config,
              evaluate=random_evaluation, checkpoint_folder=tmp_path)  # fmt: skip
    torch.rand(1), random.random(), np.random.rand()  # something else happens in between
    model = linear()
    history = train(model, noisy_squares, Rows(3, 1), config,
                    evaluate=random_evaluation, checkpoint_folder=tmp_path)  # fmt: skip
    other, expected, state = undisturbed()
    assert history.resumed_at == batches // 2 // save_steps * save_steps
    assert same(model, other)
    assert without_clock(history) == without_clock(expected)
    now = random_state()
    assert torch.equal(now["torch"], state["torch"]) and now["python"] == state["python"]
    assert now["numpy"]["state"]["pos"] == state["numpy"]["state"]["pos"]
    assert torch.equal(now["numpy"]["state"]["key"], state["numpy"]["state"]["key"])


def test_resumption_goes_on_with_time_and_schedule(tmp_path: Path):
    with pytest.raises(Stop):
        train(linear(), squares, Interrupted(4, at=5), replace(CONFIG, save_steps=5),
              checkpoint_folder=tmp_path)  # fmt: skip
    stored = torch.load(tmp_path / CHECKPOINT_NAME, weights_only=True)["history"]
    history = train(linear(), squares, Rows(4), replace(CONFIG, save_steps=5),
                    checkpoint_folder=tmp_path)  # fmt: skip
    assert history.resumed_at == 5 and history.seconds > stored["seconds"] > 0
    whole = train(linear(), squares, Rows(4), CONFIG)
    assert history.learning_rate == whole.learning_rate


def test_ctrl_c_then_again_with_the_same_objects(tmp_path: Path):
    """The interrupted step left gradients behind; they must not enter the next one."""
    model, batches = linear(), Interrupted(3, 1, at=9, error=KeyboardInterrupt)
    history, config = History(), replace(RESUMABLE, save_steps=3)
    arguments: dict[str, Any] = {
        "evaluate": random_evaluation, "checkpoint_folder": tmp_path, "history": history,
    }  # fmt: skip
    with pytest.raises(KeyboardInterrupt):
        train(model, noisy_squares, batches, config, **arguments)
    assert any(p.grad is not None for p in model.parameters())
    assert len(history.loss) == 4
    batches.stop = -1
    train(model, noisy_squares, batches, config, **arguments)
    other, expected, _ = undisturbed()
    assert same(model, other) and without_clock(history) == without_clock(expected)
    assert history.resumed_at == 3


def test_a_finished_run_is_not_trained_again(tmp_path: Path):
    first, second = linear(), linear()
    expected = train(first, squares, Rows(4), replace(CONFIG, save_steps=STEPS),
                     checkpoint_folder=tmp_path)  # fmt: skip
    history = train(second, squares, Interrupted(4, at=0), replace(CONFIG, save_steps=STEPS),
                    checkpoint_folder=tmp_path)  # fmt: skip
    assert same(first, second) and without_clock(history) == without_clock(expected)
    assert history.resumed_at == STEPS


def test_without_save_steps_nothing_is_written(tmp_path: Path):
    train(linear(), squares, Rows(4), CONFIG, checkpoint_folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_other_settings_stops_the_run_before_it_starts(tmp_path: Path):
    config = replace(CONFIG, save_steps=1)
    train(linear(), squares, Rows(4), config, checkpoint_folder=tmp_path)
    model = linear()
    before = weights(model)
    with pytest.raises(ArtifactError, match=r"\(adam_beta2, learning_rate differ\)"):
        train(model, squares, Rows(4), replace(config, learning_rate=0.1, adam_beta2=0.9),
              checkpoint_folder=tmp_path)  # fmt: skip
    assert all(map(torch.equal, before, weights(model)))


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "finished"])
@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"identity": {"batch_size": 8, "lora": {"r": 4, "lora_alpha": 8}}}, "lora.lora_alpha"),
        ({"identity": {"batch_size": 4, "lora": {"r": 4, "lora_alpha": 16}}}, "batch_size"),
        ({"identity": None}, "batch_size, lora.lora_alpha, lora.r"),
        ({"model": "frozen weights"}, "frozen weights"),
        ({"model": "trained parts"}, "frozen weights, trained parameters"),
        ({"model": "type"}, "frozen weights, trained parameters"),
        ({"model": "class"}, "model class"),
    ],
)
def test_a_checkpoint_of_another_run_is_not_gone_on_with(
    tmp_path: Path, change: dict[str, Any], names: str, stopped: bool
):
    """Nor does a finished one count as this run's, without a step."""
    config = replace(CONFIG, save_steps=1)
    identity = {"batch_size": 8, "lora": {"r": 4, "lora_alpha": 16}}

    def model() -> nn.Module:
        made = linear()
        made[0].requires_grad_(False)
        return made

    other = model()
    if change.get("model") == "frozen weights":
        with torch.no_grad():
            other[0].weight.add_(0.1)
    elif change.get("model") == "trained parts":
        other[0].bias.requires_grad_(True)
    elif change.get("model") == "type":
        other.double()
    elif change.get("model") == "class":
        other = type("Leaky", (nn.Sequential,), {})(*other)
    before = weights(other)
    batches = Interrupted(4, at=3) if stopped else Rows(4)
    with suppress(Stop):
        train(model(), squares, batches, config, checkpoint_folder=tmp_path, identity=identity)
    with pytest.raises(ArtifactError, match=rf"another configuration \({names} differ\)"):
        train(other, squares, Interrupted(4, at=0), config, checkpoint_folder=tmp_path,
              identity=change.get("identity", identity))  # fmt: skip
    assert all(map(torch.equal, before, weights(other)))
    history = train(
        model(), squares, Rows(4), config, checkpoint_folder=tmp_path, identity=identity
    )
    assert history.resumed_at == (3 if stopped else STEPS) and len(history.loss) == STEPS


def test_the_number_format_that_the_machine_chooses_is_part_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = replace(CONFIG, save_steps=1, max_steps=2, bf16=None)
    monkeypatch.setenv("POSTTRAIN_DTYPE", "float32")
    train(linear(), squares, Rows(4), config, checkpoint_folder=tmp_path)
    monkeypatch.setenv("POSTTRAIN_DTYPE", "bfloat16")
    with pytest.raises(ArtifactError, match=r"\(bf16 differ\).*\(bf16=False\)"):
        train(linear(), squares, Rows(4), config, checkpoint_folder=tmp_path)


def test_an_identity_that_cannot_be_compared_is_refused_before_the_run(tmp_path: Path):
    with pytest.raises(TypeError, match=r"rows is .*cannot be part of an identity"):
        train(linear(), squares, Interrupted(4, at=0), CONFIG, checkpoint_folder=tmp_path,
              identity={"rows": Rows(4)})  # fmt: skip


def test_an_evaluation_that_fails_leaves_every_part_in_its_mode():
    model = linear()
    model[1].eval()

    def fails(current: nn.Module, step: int) -> dict[str, Any]:
        assert not any(module.training for module in current.modules())
        raise Stop

    with pytest.raises(Stop):
        train(model, squares, Rows(4), CONFIG, evaluate=fails)
    assert [module.training for module in model.modules()] == [True, True, False, True]


def test_an_unwritable_evaluation_is_named_at_the_first_checkpoint(tmp_path: Path):
    with pytest.raises(TypeError, match="what evaluate returned cannot be kept"):
        train(linear(), squares, Rows(4), replace(CONFIG, save_steps=1),
              evaluate=lambda m, s: {"at": tmp_path}, checkpoint_folder=tmp_path)  # fmt: skip
