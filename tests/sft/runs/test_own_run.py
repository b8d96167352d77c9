"""From a file of examples to an adapter: posttrain.sft.runs.own_run, posttrain.sft.command."""

from __future__ import annotations

import errno
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from posttrain.core.errors import AssetError
from posttrain.core.training import loop
from posttrain.core.training.optimization import TrainingConfig
from posttrain.core.training.run_log import read_metrics
from posttrain.sft import command
from posttrain.sft.command import RunStopped, facts_of, sft_command
from posttrain.sft.presets import T4, SFTPreset
from posttrain.sft.runs import own_run
from posttrain.sft.runs.chat import open_session
from posttrain.sft.runs.own_run import RunRequest, execute_run, prepare_run
from posttrain.sft.training.model_shapes import PUBLISHED_SHAPES

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def preset(tiny_preset: SFTPreset) -> SFTPreset:
    training = TrainingConfig(max_steps=99, learning_rate=0.02, bf16=False)
    return replace(
        tiny_preset, chat_format="smollm2", max_length=80, engine="by_hand", training=training,
        batch_size=4,
    )  # fmt: skip


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [{"prompt": f"Add one to {n}.", "completion": f"{n + 1}"} for n in range(20)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def request_(preset: SFTPreset, file: Path) -> RunRequest:
    return RunRequest(preset, data=str(file), steps=6)


def run(request: RunRequest, out: Path, **options: Any) -> list[str]:
    said: list[str] = []
    sft_command(request, out, say=said.append, **options)
    return said


# --- a whole run ---


needs_unsloth = pytest.mark.skipif(
    importlib.util.find_spec("unsloth") is None, reason="unsloth is not installed"
)


@pytest.mark.parametrize(
    "engine",
    ["by_hand", "trl", pytest.param("unsloth", marks=[needs_unsloth, pytest.mark.slow])],
)
def test_a_file_becomes_an_adapter(
    engine: str, request_: RunRequest, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = replace(request_, settings=(f"engine={engine}",))
    said = run(request, tmp_path / "out")
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {
        "adapter_config.json", WEIGHTS, "README.md", "evaluation.json", "metrics.jsonl",
        "run.json",
    }  # fmt: skip
    told = "\n".join(said)
    for part in ("prompt / completion", "18 to train on, 2 of the same file held out",
                 "held-out rows: 2", "posttrain chat --adapter"):  # fmt: skip
        assert part in told, part
    shown = capsys.readouterr().out
    assert "step    6/6  loss" in shown and "val_loss" in shown and "> Add one to" in shown

    rows = read_metrics(out / "metrics.jsonl")
    assert [row["step"] for row in rows if row["event"] == "step"] == [1, 2, 3, 4, 5, 6]
    facts = facts_of(out)
    assert facts["rows"] == 2 and facts["loss"]["change"]["n"] == 2
    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "finished" and record["data"]["train_rows"] == 18
    card = (out / "README.md").read_text()
    for part in ("library_name: peft", record["data"]["sha256"], "loss per token", "r = 2"):
        assert part in card, part

    session = open_session(out, temperature=0.0, max_new_tokens=3)
    assert session.chat_format == "smollm2"
    assert isinstance("".join(session.answer("Add one to 3.")), str)


def test_both_engines_see_the_same_rows(request_: RunRequest) -> None:
    by_hand = prepare_run(request_)
    trl = prepare_run(replace(request_, settings=("engine=trl",)))
    key = [sorted(map(tuple, (x.input_ids for x in r.examples))) for r in (by_hand, trl)]
    assert key[0] == key[1] and by_hand.held_out == trl.held_out
    assert by_hand.preset.training == trl.preset.training


def test_the_plan_alone_writes_nothing(request_: RunRequest, tmp_path: Path) -> None:
    said = run(request_, tmp_path / "out", dry_run=True)
    assert said[-1] == "nothing was trained (--dry-run)"
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_here_is_planned_by_its_shape(
    request_: RunRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*parts: Any, **rest: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    elsewhere = replace(request_, preset=replace(T4, max_length=200))
    found = prepare_run(elsewhere, plan_only=True)
    assert found.stands_in and found.plan is not None
    assert found.plan.config == PUBLISHED_SHAPES["Llama-3.2-1B"]
    assert any("which is not here: its published shape" in line for line in found.lines())
    with pytest.raises(AssetError, match="could not be read from the hub"):
        prepare_run(elsewhere)
    unknown = replace(request_, model="some/model")
    with pytest.raises(AssetError, match="could not be read from the hub"):
        prepare_run(unknown, plan_only=True)


def test_settings_win_over_the_rule(request_: RunRequest) -> None:
    changed = replace(request_, settings=("batch_size=2", "warmup_steps=3", "max_length=60"))
    found = prepare_run(changed).preset
    assert (found.batch_size, found.training.warmup_steps, found.max_length) == (2, 3, 60)
    assert found.training.max_steps == 6
    plain = prepare_run(replace(request_, steps=None)).preset
    assert plain.training.max_steps == 36 and plain.training.warmup_steps == 2


def test_validation_rows_of_another_file(request_: RunRequest, tmp_path: Path) -> None:
    other = tmp_path / "val.jsonl"
    rows = [
        {"prompt": "Add one to 3.", "completion": "4"},
        {"prompt": "Hi", "completion": "Ho"},
    ]
    other.write_text("\n".join(map(json.dumps, rows)))
    found = prepare_run(replace(request_, validation=str(other)))
    assert len(found.examples) == 20 and len(found.held_out) == 2
    assert any("1 held-out rows ask what a training row asks" in line for line in found.lines())


def test_prompts_of_ones_own_are_answered(request_: RunRequest, tmp_path: Path) -> None:
    run(replace(request_, prompts=("Who are you?",), steps=3), tmp_path / "out")
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    samples = [row["samples"] for row in rows if row["event"] == "samples"]
    assert {s["prompt"] for part in samples for s in part} == {"Who are you?"}
    assert len(samples) == 4


def test_the_log_has_one_place_whichever_folder_a_process_runs_in(
    request_: RunRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    watching = own_run._watching(prepare_run(request_), Path("out"))
    assert watching.folder == str(tmp_path / "out")


# --- interrupted, moved, resumed ---


class Kill(BaseException):
    """Stands for a kill: nothing catches it."""


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]) -> None:
    """Let training end after a step's checkpoint."""
    real, done = loop.save_checkpoint, []

    def save(*parts: Any, **rest: Any) -> None:
        real(*parts, **rest)
        done.append(len(parts[-2].loss) if hasattr(parts[-2], "loss") else 0)
        if len(done) == step:
            raise error

    monkeypatch.setattr(loop, "save_checkpoint", save)


def test_a_killed_run_goes_on_in_another_place(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 2, Kill)
        with pytest.raises(Kill):
            run(request_, tmp_path / "killed")
    with pytest.raises(AssetError, match="add --resume to go on"):
        run(request_, tmp_path / "killed")

    # another machine: the folder, the file and the model lie elsewhere
    shutil.move(tmp_path / "killed", tmp_path / "mounted")
    shutil.copytree(request_.preset.model, tmp_path / "model")
    assert request_.data is not None
    shutil.copy(request_.data, tmp_path / "same.jsonl")
    elsewhere = replace(
        request_,
        data=str(tmp_path / "same.jsonl"),
        preset=replace(request_.preset, model=str(tmp_path / "model")),
    )
    run(elsewhere, tmp_path / "mounted", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "mounted"))
    assert one.read_bytes() == other.read_bytes()
    steps = [
        [(r["step"], r["loss"]) for r in read_metrics(tmp_path / name / "metrics.jsonl")
         if r["event"] == "step"] for name in ("whole", "mounted")
    ]  # fmt: skip
    assert steps[0] == steps[1]


def test_a_kill_in_the_middle_of_a_checkpoint(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(request_, tmp_path / "whole")
    real, calls = torch.save, []

    def half(state: Any, path: Any) -> None:
        if isinstance(path, str | Path):  # others are trials in memory
            calls.append(path)
        if len(calls) == 3:
            Path(path).write_bytes(b"half a checkpoint")
            raise Kill
        real(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", half)
        with pytest.raises(Kill):
            run(request_, tmp_path / "killed")
    run(request_, tmp_path / "killed", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


def test_trl_goes_on_in_another_place(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = replace(request_, settings=("engine=trl",))
    run(request, tmp_path / "whole")
    from posttrain.sft.training import trl_watching

    real = trl_watching.WatchCallback.on_step_end

    def kill(self: Any, args: Any, state: Any, control: Any, **parts: Any) -> None:
        real(self, args, state, control, **parts)
        if state.global_step == 4:
            raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(trl_watching.WatchCallback, "on_step_end", kill)
        with pytest.raises(Kill):
            run(request, tmp_path / "killed")
    shutil.move(tmp_path / "killed", tmp_path / "mounted")
    half = next((tmp_path / "mounted").glob("checkpoint/trainer/*")) / "checkpoint-99"
    half.mkdir()  # as a kill in the middle of writing leaves it
    (half / "adapter_model.safetensors").write_bytes(b"half")
    run(request, tmp_path / "mounted", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "mounted"))
    assert one.read_bytes() == other.read_bytes()


def test_another_run_is_not_resumed(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, Kill)
        with pytest.raises(Kill):
            run(request_, tmp_path / "out")
    changed = replace(request_, settings=("lora.lora_alpha=9",))
    with pytest.raises(AssetError, match=r"preset.lora.lora_alpha is 9.0 now and was 4 there"):
        run(changed, tmp_path / "out", resume=True)
    with pytest.raises(AssetError, match=r"another run: .*seed"):
        run(replace(request_, seed=5), tmp_path / "out", resume=True)
    file.write_text(file.read_text().replace("Add one to 7", "Add 1 to 7"))
    with pytest.raises(AssetError, match=r"holds another run: (train|validation) is"):
        run(request_, tmp_path / "out", resume=True)


def test_ctrl_c_says_how_it_goes_on(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["sft", "--data", "my rows.jsonl", "--out", str(out)]
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt)
        with pytest.raises(
            RunStopped, match=r"stopped after step 3; go on .* --resume"
        ) as told:
            run(request_, out, arguments=arguments)
    assert "'my rows.jsonl'" in str(told.value)
    with monkeypatch.context() as patch:
        patch.setattr(own_run, "load_tokenizer", lambda name: _interrupt())
        with pytest.raises(RunStopped, match="stopped; nothing was written"):
            run(request_, tmp_path / "other", arguments=arguments)
    assert not (tmp_path / "other").exists()
    run(request_, out, resume=True)
    assert (out / WEIGHTS).is_file()


def _interrupt() -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_one_sentence(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any, **rest: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")

    with monkeypatch.context() as patch:
        patch.setattr(loop, "save_checkpoint", full)
        with pytest.raises(RunStopped, match=r"the disk is full \(checkpoint.pt\): make room"):
            run(request_, tmp_path / "out")
    run(request_, tmp_path / "out", resume=True)


# --- without a folder, and with bad input ---


def test_without_a_folder_the_store_holds_the_run(
    request_: RunRequest, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store / "assets").mkdir(parents=True)
    with monkeypatch.context() as patch:
        stop_after(patch, 1, KeyboardInterrupt)
        with pytest.raises(RunStopped, match="the same command goes on"):
            run(request_, None)  # type: ignore[arg-type]
    run(request_, None)  # type: ignore[arg-type]
    said = run(request_, None)  # type: ignore[arg-type]
    assert said[-1].startswith("this run is finished already: ")
    assert len(list((store / "runs").iterdir())) == 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"data": "missing.jsonl"}, "missing.jsonl"),
        ({"validation": "x.jsonl", "data": None}, "--val without --data"),
        ({"model": "gpt5"}, "unknown model 'gpt5'"),
        ({"settings": ("chat_format=llama-3",)}, "has no special token"),
        (
            {"settings": ("max_length=9",)},
            r"conversation 1: it has \d+ tokens and max_length is 9",
        ),
        ({"settings": ("max_length=9",), "on_bad_row": "drop"}, "no row is left to train on"),
        ({"report_to": ("mlflow",)}, "report-to is 'mlflow'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    changes: dict[str, Any], sentence: str, request_: RunRequest, tmp_path: Path
) -> None:
    with pytest.raises((AssetError, ValueError), match=sentence) as told:
        run(replace(request_, **changes), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_one_row_can_be_trained_on(request_: RunRequest, tmp_path: Path) -> None:
    one = tmp_path / "one.jsonl"
    one.write_text('{"prompt": "Hi", "completion": "Ho"}\n')
    said = run(replace(request_, data=str(one), steps=2), tmp_path / "out")
    assert any("1 to train on, 0 held out" in line for line in said)
    assert "nothing was held out" in (tmp_path / "out" / "README.md").read_text().lower()


def test_an_output_that_cannot_be_made_is_refused_before_the_work(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(command, "prepare_run", None)  # calling it would fail
    with pytest.raises(AssetError, match="is a file: give a folder"):
        run(request_, tmp_path / "file")
    with pytest.raises(ValueError, match="--resume without --out"):
        sft_command(request_, None, resume=True)


def test_a_run_that_cannot_begin_leaves_no_folder(
    request_: RunRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_run(request_)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    prepared = replace(prepared, preset=replace(prepared.preset, device="cuda"))
    with pytest.raises(ValueError, match="needs a GPU"):
        execute_run(prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": "lora.r=4"}, "settings is 'lora.r=4': give a sequence of texts"),
        ({"prompts": "Hi"}, "prompts is 'Hi': give a sequence of texts"),
        ({"report_to": "wandb"}, "report_to is 'wandb': give a sequence of texts"),
        ({"on_bad_row": "skip"}, "on_bad_row is 'skip': give 'error' or 'drop'"),
    ],
)
def test_a_request_that_would_be_misread_is_refused(
    request_: RunRequest, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(request_, **changes)
