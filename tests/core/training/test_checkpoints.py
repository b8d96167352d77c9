"""core.training.checkpoints: what a checkpoint holds, and what becomes of damaged ones."""

import random
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from posttrain.core.errors import ArtifactError
from posttrain.core.storage.files import atomic_path
from posttrain.core.training.checkpoints import (
    CHECKPOINT_NAME,
    History,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from posttrain.core.training.optimization import TrainingConfig, build_optimizer

CONFIG = TrainingConfig(max_steps=5, learning_rate=0.1, warmup_steps=2, bf16=False)


class Counter:
    """Batches that are the numbers 1, 2, 3, …"""

    def __init__(self) -> None:
        self.position: Any = 0

    def __next__(self) -> int:
        self.position += 1
        return self.position

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Parts:
    """A model, its optimizer after two steps, and batches."""

    def __init__(self, width: int = 3) -> None:
        torch.manual_seed(width)
        self.model = nn.Sequential(nn.Linear(4, width), nn.BatchNorm1d(width))
        self.optimizer, self.batches = build_optimizer(self.model, CONFIG), Counter()
        for _ in range(2):
            self.model(torch.randn(6, 4)).square().sum().backward()
            self.optimizer.step()
            next(self.batches)

    def save(
        self,
        folder: Path,
        history: History | None = None,
        identity: dict[str, Any] | None = None,
    ) -> Path:
        history = history or History(loss=[2.0, 1.0], evaluations=[{"step": 0, "x": [1, "a"]}])
        parts = self.model, self.optimizer, self.batches
        save_checkpoint(folder, *parts, CONFIG, history, identity)
        return folder / CHECKPOINT_NAME

    def load(
        self,
        folder: Path,
        config: TrainingConfig = CONFIG,
        identity: dict[str, Any] | None = None,
    ) -> History | None:
        parts = self.model, self.optimizer, self.batches
        return load_checkpoint(folder, *parts, config, identity)


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else bool(a == b)


def draws() -> list[float]:
    return [torch.rand(()).item(), random.random(), float(np.random.normal())]


def test_everything_comes_back(tmp_path: Path):
    saved, other = Parts(), Parts()
    np.random.normal()  # leaves half of a pair of normal numbers in the state
    saved.save(tmp_path)
    expected = draws()
    with torch.no_grad():
        other.model[0].weight.zero_()
    other.optimizer.state.clear()
    other.batches.position = 99
    draws()
    history = other.load(tmp_path)
    assert history == History(loss=[2.0, 1.0], evaluations=[{"step": 0, "x": [1, "a"]}])
    assert equal(other.model.state_dict(), saved.model.state_dict())
    assert equal(other.optimizer.state_dict(), saved.optimizer.state_dict())
    assert next(other.batches) == 3
    assert draws() == expected


def test_the_state_of_randomness_comes_back():
    before = random_state()
    expected = draws()
    for _ in range(2):  # setting a state must not change it
        set_random_state(before)
        assert draws() == expected


def test_without_a_checkpoint_nothing_is_loaded(tmp_path: Path):
    parts = Parts()
    state = {k: v.clone() for k, v in parts.model.state_dict().items()}
    assert parts.load(tmp_path) is None
    assert parts.load(tmp_path / "missing") is None
    assert equal(parts.model.state_dict(), state)


def test_the_file_needs_no_pickled_code(tmp_path: Path):
    path = Parts().save(tmp_path / "made" / "on" / "the" / "way")
    state = torch.load(path, weights_only=True)
    assert sorted(state) == [
        "batches", "config", "history", "identity", "model", "optimizer", "rng"
    ]  # fmt: skip
    assert state["config"] == asdict(CONFIG)


@pytest.mark.parametrize("what", ["history", "batches", "identity"])
def test_what_could_not_be_read_back_is_refused_before_it_is_written(tmp_path: Path, what: str):
    parts, history, identity = Parts(), History(), {}
    old = parts.save(tmp_path).read_bytes()
    if what == "history":
        history.evaluations.append({"step": 0, "text": Path("x")})
    elif what == "identity":
        identity["folder"] = Path("x")
    else:
        parts.batches.position = np.arange(3)
    with pytest.raises(TypeError, match="cannot be kept in a checkpoint: use tensors, numbers"):
        parts.save(tmp_path, history, identity)
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == old


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
):
    parts = Parts()
    old = parts.save(tmp_path).read_bytes()
    write = torch.save

    def interrupted(state: Any, target: Any) -> None:
        write(state, target)
        if isinstance(target, Path):
            target.write_bytes(target.read_bytes()[:100])
            raise error

    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError)):
        parts.save(tmp_path, History(loss=[1.0]))
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_NAME]
    assert (tmp_path / CHECKPOINT_NAME).read_bytes() == old


def test_what_a_killed_write_left_is_removed(tmp_path: Path):
    with pytest.raises(SystemExit), atomic_path(tmp_path / CHECKPOINT_NAME) as temporary:
        Parts().save(tmp_path)
        left = tmp_path / temporary.name
        left.write_bytes(b"half")
        left.rename(left.with_name(left.name.replace("checkpoint", "keep", 1)))
        left.write_bytes(b"half")
        assert Parts().load(tmp_path) is not None
        assert not left.exists()
        raise SystemExit
    assert len(list(tmp_path.iterdir())) == 2  # the checkpoint and another program's file


# --- damaged and foreign checkpoints ---


def flip(content: bytes, position: int) -> bytes:
    return content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]


@pytest.mark.parametrize("kept", [0, 1, 100, 0.5, -1], ids=str)
def test_a_cut_off_checkpoint_is_one_clear_sentence(tmp_path: Path, kept: float):
    path = Parts().save(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: kept if isinstance(kept, int) else int(kept * len(content))])
    with pytest.raises(
        ArtifactError, match="cannot be read: remove it to start anew"
    ) as caught:
        Parts().load(tmp_path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_flipped_bit_goes_unnoticed(tmp_path: Path):
    """``torch.load`` alone returns other weights for most of them, without a word."""
    parts = Parts()
    path = parts.save(tmp_path)
    content, expected = path.read_bytes(), torch.load(path, weights_only=True)
    noticed = 0
    for position in random.Random(0).sample(range(len(content)), 150):
        path.write_bytes(flip(content, position))
        target = Parts()
        try:
            target.load(tmp_path)
        except ArtifactError as error:
            noticed += "cannot be read: remove it" in str(error)
        else:  # between the zip's members, where nothing is stored
            assert equal(target.model.state_dict(), expected["model"])
            assert equal(target.optimizer.state_dict(), expected["optimizer"])
    assert noticed > 75


@pytest.mark.parametrize("content", ["text", "weights", "pickle"])
def test_another_file_by_that_name_is_one_clear_sentence(tmp_path: Path, content: str):
    path = tmp_path / CHECKPOINT_NAME
    if content == "text":
        path.write_text("{}")
    else:
        torch.save({"w": torch.ones(2)} if content == "weights" else {"w": Path("x")}, path)
    with pytest.raises(ArtifactError, match="cannot be read: remove it to start anew"):
        Parts().load(tmp_path)


def test_a_checkpoint_never_runs_code(tmp_path: Path):
    class Payload:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": Payload()}, tmp_path / CHECKPOINT_NAME)
    with pytest.raises(ArtifactError, match="cannot be read"):
        Parts().load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_another_configuration_is_named_by_its_fields(tmp_path: Path):
    Parts().save(tmp_path)
    other = replace(CONFIG, learning_rate=0.2, seed=1)
    sentence = (
        r"another configuration \(learning_rate, seed differ\): remove it to start anew, or go "
        r"on with the old one \(learning_rate=0.1, seed=0\)$"
    )
    with pytest.raises(ArtifactError, match=sentence):
        Parts().load(tmp_path, other)


IDENTITY = {"batch_size": 8, "lora": {"r": 4, "lora_alpha": 8}, "layers": None, "seed": 0}


@pytest.mark.parametrize(
    ("identity", "sentence"),
    [
        (
            {**IDENTITY, "batch_size": 4},
            r"\(batch_size differ\).*the old one \(batch_size=8\)$",
        ),
        ({**IDENTITY, "lora": {"r": 4, "lora_alpha": 16}}, r"\(lora.lora_alpha differ\)"),
        ({**IDENTITY, "layers": 0}, r"\(layers differ\).*\(layers=None\)$"),
        ({**IDENTITY, "rows": "x"}, r"\(rows differ\)"),
        (
            {"batch_size": 8},
            r"\(layers, lora.lora_alpha, lora.r differ\)",
        ),  # seed: the config's
        (None, r"\(batch_size, layers, lora.lora_alpha, lora.r differ\)"),
    ],
)
def test_another_run_is_named_by_what_differs(
    tmp_path: Path, identity: dict[str, Any] | None, sentence: str
):
    Parts().save(tmp_path, identity=IDENTITY)
    parts = Parts()
    assert parts.load(tmp_path, identity=dict(IDENTITY)) is not None
    with torch.no_grad():
        parts.model[0].weight.fill_(7)
    with pytest.raises(ArtifactError, match=sentence) as caught:
        parts.load(tmp_path, identity=identity)
    assert "\n" not in str(caught.value) and (parts.model[0].weight == 7).all()


def test_a_checkpoint_that_does_not_say_whose_it_is_belongs_to_nobody(tmp_path: Path):
    Parts().save(tmp_path)
    with pytest.raises(ArtifactError, match=r"\(batch_size differ\).*\(batch_size=None\)$"):
        Parts().load(tmp_path, identity={"batch_size": 8})
    path = tmp_path / CHECKPOINT_NAME
    state = torch.load(path, weights_only=True)
    del state["identity"]  # as earlier versions wrote them
    torch.save(state, path)
    with pytest.raises(ArtifactError, match="it is no checkpoint of this version of the"):
        Parts().load(tmp_path)


def test_a_compiled_model_takes_up_what_a_plain_one_left(tmp_path: Path):
    saved, other = Parts(), Parts()
    path = saved.save(tmp_path)
    with torch.no_grad():
        other.model[0].weight.zero_()
    plain, other.model = other.model, torch.compile(other.model, backend="eager")
    assert other.load(tmp_path) is not None
    assert equal(plain.state_dict(), saved.model.state_dict())
    other.save(tmp_path)
    names = torch.load(path, weights_only=True)["model"]
    assert list(names) == list(plain.state_dict())  # without _orig_mod


def test_fields_of_another_version_are_named_too(tmp_path: Path):
    path = Parts().save(tmp_path)
    state = torch.load(path, weights_only=True)
    state["config"]["dropout"] = 0.1
    del state["config"]["seed"]
    torch.save(state, path)
    with pytest.raises(ArtifactError, match=r"another configuration \(dropout, seed differ\)"):
        Parts().load(tmp_path)


def test_another_model_is_one_clear_sentence(tmp_path: Path):
    Parts(width=3).save(tmp_path)
    with pytest.raises(
        ArtifactError, match=r"does not fit this model and these batches"
    ) as got:
        Parts(width=5).load(tmp_path)
    assert "\n" not in str(got.value)


def test_other_batches_are_one_clear_sentence(tmp_path: Path):
    Parts().save(tmp_path)
    parts = Parts()
    parts.batches.load_state_dict = lambda state: state["generator"]  # type: ignore[method-assign]
    with torch.no_grad():
        parts.model[0].weight.fill_(7)
    with pytest.raises(ArtifactError, match=r"these batches .*generator.*: remove it"):
        parts.load(tmp_path)
    assert (parts.model[0].weight == 7).all()  # nothing was loaded
