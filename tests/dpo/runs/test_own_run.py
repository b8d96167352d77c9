"""From a file of pairs to an adapter: posttrain.dpo.runs.own_run, posttrain.dpo.command."""

from __future__ import annotations

import errno
import importlib.util
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from posttrain.core.errors import AssetError
from posttrain.core.training import loop
from posttrain.core.training.run_log import read_metrics
from posttrain.dpo import command
from posttrain.dpo.command import dpo_command
from posttrain.dpo.presets import T4, DPOPreset
from posttrain.dpo.runs import own_run
from posttrain.dpo.runs.own_run import PairsRequest, execute_pairs, prepare_pairs
from posttrain.sft.command import RunStopped, facts_of
from posttrain.sft.runs.chat import open_session
from posttrain.sft.runs.push import files_to_push
from posttrain.sft.training.model_shapes import PUBLISHED_SHAPES
from tests.dpo.runs.conftest import pair_rows, small, tiny_model, write_rows

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture
def request_(preset: DPOPreset, file: Path, llama: Path) -> PairsRequest:
    return PairsRequest(preset, str(file), adapter=llama / "sft", steps=6, print_every=3)


def run(request: PairsRequest, out: Path | None, **options: Any) -> list[str]:
    said: list[str] = []
    dpo_command(request, out, say=said.append, **options)
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
    engine: str, request_: PairsRequest, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    request = replace(request_, settings=(f"engine={engine}",))
    out = tmp_path / "out"
    said = run(request, out)
    assert {file.name for file in out.iterdir()} == {
        "adapter_config.json", WEIGHTS, "README.md", "evaluation.json", "metrics.jsonl",
        "run.json", "answers.jsonl",
    }  # fmt: skip
    told = "\n".join(said)
    for part in (
        "prompt / chosen / rejected", "18 to train on, 2 of the same file held out",
        "sft; frozen, it is the reference", "held-out pairs: 2", "reward accuracy: ",
        f"posttrain chat --adapter {out}", f"posttrain merge --adapter {out}",
        f"posttrain push {out}",
    ):  # fmt: skip
        assert part in told, part
    shown = capfd.readouterr().out
    for part in ("step    6/6  loss", "accuracy ", "margin ", " chosen, ", "val_loss",
                 "val_margin", "val_chosen_logps", "> Add one to"):  # fmt: skip
        assert part in shown, part

    rows = read_metrics(out / "metrics.jsonl")
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    names = {"loss", "accuracy", "margin", "chosen_logps", "rejected_logps", "seconds",
             "learning_rate", "grad_norm", "tokens", "event", "step"}  # fmt: skip
    assert all(row.keys() == names for row in steps)
    assert steps[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)  # KL is 0 at step 0
    assert steps[0]["margin"] == pytest.approx(0, abs=1e-4)
    assert steps[-1]["loss"] < 0.5 and steps[-1]["margin"] > 0.3
    first = next(row for row in rows if row["event"] == "evaluation")
    assert first["step"] == 0 and first["val_loss"] == pytest.approx(math.log(2), abs=1e-4)
    samples = [row["step"] for row in rows if row["event"] == "samples"]
    assert samples == [0, 3, 6]

    facts = facts_of(out)
    assert facts["pairs"] == 2 and facts["margin"]["value"] > 0.1
    best = min(row["val_loss"] for row in rows if row["event"] == "evaluation")
    losses = [
        math.log1p(math.exp(-0.3 * (a - b - c + d)))
        for a, b, c, d in zip(
            facts["pairs_after"]["chosen"], facts["pairs_after"]["rejected"],
            facts["pairs_before"]["chosen"], facts["pairs_before"]["rejected"], strict=True,
        )
    ]  # fmt: skip
    assert sum(losses) / 2 == pytest.approx(best, abs=1e-3)  # the kept adapter is the best one
    answers = [json.loads(line) for line in (out / "answers.jsonl").read_text().splitlines()]
    assert len(answers) == 2 and answers[0].keys() == {"prompt", "before", "after"}
    assert answers[0]["prompt"].startswith("Add one to")

    record = json.loads((out / "run.json").read_text())
    assert record["status"] == "finished" and record["data"]["train_rows"] == 18
    card = (out / "README.md").read_text()
    for part in ("library_name: peft", record["data"]["sha256"], "beta = 0.3", "r = 2",
                 "lora, dpo, posttrain", "frozen", "18 to train on", "6 of 4 pairs",
                 "reward accuracy", "versions"):  # fmt: skip
        assert part in card, part

    session = open_session(out, temperature=0.0, max_new_tokens=3)
    assert session.chat_format == "smollm2"
    assert isinstance("".join(session.answer("Add one to 3.")), str)
    assert WEIGHTS in {name for name, _ in files_to_push(out)}


@pytest.mark.parametrize("engine", ["by_hand", "trl"])
def test_qwen_runs_too(engine: str, qwen: Path, file: Path, tmp_path: Path) -> None:
    request = PairsRequest(
        small(qwen), str(file), adapter=qwen / "sft", steps=2, settings=(f"engine={engine}",)
    )
    run(request, tmp_path / "out")
    start, end = (load_file(f / WEIGHTS) for f in (qwen / "sft", tmp_path / "out"))
    assert start.keys() == end.keys()
    assert any((start[name] != end[name]).any() for name in start)


@pytest.mark.parametrize("engine", ["by_hand", "trl"])
def test_without_an_adapter_the_model_is_the_reference(
    engine: str, request_: PairsRequest, tmp_path: Path
) -> None:
    request = replace(request_, adapter=None, settings=(f"engine={engine}", "lora.r=3"))
    said = run(request, tmp_path / "out")
    assert "start:      a new adapter; the reference is the model itself" in said
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    first = next(row for row in rows if row["event"] == "step")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-4)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == 3


def test_by_hand_and_trl_measure_the_same(request_: PairsRequest, tmp_path: Path) -> None:
    """The start is the same model in both, and so is what is said of it."""
    found = []
    for engine in ("by_hand", "trl"):
        run(replace(request_, settings=(f"engine={engine}",), steps=1), tmp_path / engine)
        rows = read_metrics(tmp_path / engine / "metrics.jsonl")
        found.append(next(row for row in rows if row["event"] == "evaluation"))
    for name in ("val_chosen_logps", "val_rejected_logps", "val_loss"):
        assert found[0][name] == pytest.approx(found[1][name], abs=1e-2), name


@pytest.mark.filterwarnings("error:.*autograd kernel was not registered")
@pytest.mark.parametrize("engine", ["by_hand", "trl"])
def test_beside_four_bits_the_policy_begins_at_its_reference(
    engine: str, request_: PairsRequest, tmp_path: Path, tokenizer: Any
) -> None:
    """TRL rounds the adapter to bfloat16 there, and its copy not.

    And on processors with bfloat16 units, bitsandbytes packs the weights at the first
    evaluation into a form through which no gradient passes.
    """
    pytest.importorskip("bitsandbytes")
    wide = tiny_model(tmp_path / "wide", tokenizer, qwen=False, width=64)
    request = replace(
        request_, preset=small(wide), adapter=wide / "sft", steps=2,
        settings=(f"engine={engine}", "quantization=nf4", "warmup_steps=0"),
    )  # fmt: skip
    run(request, tmp_path / "out")
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    first = next(row for row in rows if row["event"] == "evaluation")
    assert first["val_loss"] == pytest.approx(math.log(2), abs=2e-5)
    assert first["val_margin"] == pytest.approx(0, abs=2e-5)
    start, end = (load_file(f / WEIGHTS) for f in (wide / "sft", tmp_path / "out"))
    assert all((start[name] != end[name]).any() for name in start)


def test_both_engines_see_the_same_pairs(request_: PairsRequest) -> None:
    by_hand = prepare_pairs(request_)
    trl = prepare_pairs(replace(request_, settings=("engine=trl",)))
    assert set(by_hand.pairs) == set(trl.pairs) and by_hand.held_out == trl.held_out
    assert by_hand.preset.training == trl.preset.training


# --- plans and settings ---


def test_the_plan_alone_writes_nothing(request_: PairsRequest, tmp_path: Path) -> None:
    said = run(request_, tmp_path / "out", dry_run=True)
    assert said[-1] == "nothing was trained (--dry-run)"
    told = "\n".join(said)
    for part in ("predicted (not measured)", "largest micro-batch, pairs", "T4 16 GB",
                 "L4 24 GB", "A100 40 GB", "minutes", "read once, not twice"):  # fmt: skip
        assert part in told, part
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_here_is_planned_by_its_shape(
    request_: PairsRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*parts: Any, **rest: Any) -> None:
        raise ConnectionError

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    elsewhere = replace(request_, preset=T4, adapter=None)
    found = prepare_pairs(elsewhere, plan_only=True)
    assert found.stands_in and found.plan is not None
    assert found.plan.config == PUBLISHED_SHAPES["Llama-3.2-1B"]
    assert any("which is not here: its published shape" in line for line in found.lines())
    assert any("each prompt read twice" in line for line in found.lines())
    with pytest.raises(AssetError, match="could not be read from the hub"):
        prepare_pairs(elsewhere)


def test_settings_win_over_the_rule(request_: PairsRequest) -> None:
    settings = ("batch_size=2", "warmup_steps=3", "max_length=60", "beta=0.7")
    found = prepare_pairs(replace(request_, settings=settings)).preset
    assert (found.batch_size, found.training.warmup_steps, found.max_length) == (2, 3, 60)
    assert found.training.max_steps == 6 and found.loss.beta == 0.7


def test_the_adapter_brings_its_model_its_shape_and_its_format(
    request_: PairsRequest, llama: Path, tmp_path: Path
) -> None:
    preset = replace(T4, gradient_checkpointing=False)
    start = replace(preset.start, engine="by_hand", device="cpu", dtype="float32")
    found = prepare_pairs(replace(request_, preset=replace(preset, start=start))).preset.start
    assert found.model == str(llama / "base") and found.lora.r == 2
    assert found.chat_format == "smollm2"
    # a run's own record says in how many bits the weights were held
    shutil.copytree(llama / "sft", tmp_path / "sft")
    record = {"status": "finished", "identity": {"preset": {"quantization": None}}}
    (tmp_path / "sft" / "run.json").write_text(json.dumps(record))
    request = replace(request_, preset=replace(preset, start=start), adapter=tmp_path / "sft")
    assert start.quantization == "nf4" == found.quantization
    assert prepare_pairs(request).preset.start.quantization is None
    told = replace(request, settings=("quantization=nf4",))
    assert prepare_pairs(told).preset.start.quantization == "nf4"


def test_held_out_pairs_of_another_file(request_: PairsRequest, tmp_path: Path) -> None:
    rows = [*pair_rows(2, start=3), *pair_rows(3, start=50)]
    other = write_rows(tmp_path / "val.jsonl", rows)
    request = replace(request_, validation=str(other))
    with pytest.raises(
        ValueError, match=r"val.jsonl, line 1, has the prompt of line 4 .* 2 of"
    ):
        prepare_pairs(request)
    found = prepare_pairs(replace(request, on_bad_row="drop"))
    assert len(found.pairs) == 20 and len(found.held_out) == 3
    assert any("2 prompt among the training pairs" in line for line in found.lines())
    write_rows(other, rows[:2])
    with pytest.raises(ValueError, match=r"every prompt of .*val.jsonl stands in"):
        prepare_pairs(replace(request, on_bad_row="drop"))


def test_prompts_of_ones_own_are_answered(request_: PairsRequest, tmp_path: Path) -> None:
    request = replace(request_, prompts=("Who are you?",), steps=3, print_every=1)
    run(request, tmp_path / "out")
    rows = read_metrics(tmp_path / "out" / "metrics.jsonl")
    samples = [row["samples"] for row in rows if row["event"] == "samples"]
    assert {s["prompt"] for part in samples for s in part} == {"Who are you?"}
    assert len(samples) == 4


def test_the_log_has_one_place_whichever_folder_a_process_runs_in(
    request_: PairsRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    watching = own_run._watching(prepare_pairs(request_), Path("out"))
    assert watching.folder == str(tmp_path / "out")


# --- interrupted, moved, resumed ---


def told_steps(folder: Path) -> list[tuple[int, float, float]]:
    """What the log says of each step."""
    rows = read_metrics(folder / "metrics.jsonl")
    return [(r["step"], r["loss"], r["margin"]) for r in rows if r["event"] == "step"]


class Kill(BaseException):
    """Stands for a kill: nothing catches it."""


def stop_after(monkeypatch: pytest.MonkeyPatch, step: int, error: type[BaseException]) -> None:
    """Let training end after a step's checkpoint."""
    real, done = loop.save_checkpoint, []

    def save(*parts: Any, **rest: Any) -> None:
        real(*parts, **rest)
        done.append(1)
        if len(done) == step:
            raise error

    monkeypatch.setattr(loop, "save_checkpoint", save)


def test_a_killed_run_goes_on_in_another_place(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    run(request_, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_after(patch, 3, Kill)
        with pytest.raises(Kill):
            run(request_, tmp_path / "killed")
    with pytest.raises(AssetError, match="add --resume to go on"):
        run(request_, tmp_path / "killed")

    # another machine: the folder, the file, the adapter and the model lie elsewhere
    shutil.move(tmp_path / "killed", tmp_path / "mounted")
    shutil.copytree(llama, tmp_path / "llama")
    shutil.copy(request_.data, tmp_path / "same.jsonl")
    elsewhere = replace(
        request_, data=str(tmp_path / "same.jsonl"), model=str(tmp_path / "llama" / "base"),
        adapter=tmp_path / "llama" / "sft",
    )  # fmt: skip
    run(elsewhere, tmp_path / "mounted", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "mounted"))
    assert one.read_bytes() == other.read_bytes()
    steps = [told_steps(tmp_path / name) for name in ("whole", "mounted")]
    assert steps[0] == steps[1] and len(steps[0]) == 6


def test_a_kill_while_the_reference_is_written(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import safetensors.torch

    run(request_, tmp_path / "whole")
    real = safetensors.torch.save_file

    def half(tensors: Any, path: Any, **rest: Any) -> None:
        if "reference-validation" in str(path):
            Path(path).write_bytes(b"half of it")
            raise Kill
        real(tensors, path, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(safetensors.torch, "save_file", half)
        with pytest.raises(Kill):
            run(request_, tmp_path / "killed")
    run(request_, tmp_path / "killed", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()


def test_trl_goes_on_in_another_place(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its checkpoints hold the reference too: the policy must not go on from that."""
    from posttrain.sft.training import trl_watching

    request = replace(request_, settings=("engine=trl",))
    run(request, tmp_path / "whole")
    real = trl_watching.WatchCallback.on_step_end

    def kill(self: Any, args: Any, state: Any, control: Any, **parts: Any) -> None:
        real(self, args, state, control, **parts)
        if state.global_step == 5:
            raise Kill

    with monkeypatch.context() as patch:
        patch.setattr(trl_watching.WatchCallback, "on_step_end", kill)
        with pytest.raises(Kill):
            run(request, tmp_path / "killed")
    shutil.move(tmp_path / "killed", tmp_path / "mounted")
    half = next((tmp_path / "mounted").glob("checkpoint/trainer/*")) / "checkpoint-99"
    half.mkdir()  # as a kill in the middle of writing leaves it
    (half / WEIGHTS).write_bytes(b"half")
    run(request, tmp_path / "mounted", resume=True)
    one, other = (tmp_path / name / WEIGHTS for name in ("whole", "mounted"))
    assert one.read_bytes() == other.read_bytes()
    assert told_steps(tmp_path / "whole") == told_steps(tmp_path / "mounted")


def test_another_run_is_not_resumed(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 1, Kill)
        with pytest.raises(Kill):
            run(request_, tmp_path / "out")
    shutil.copytree(llama / "sft", tmp_path / "other")
    tensors = load_file(tmp_path / "other" / WEIGHTS)
    first = next(iter(tensors))
    tensors[first] = tensors[first] * 1.5
    from safetensors.torch import save_file

    save_file(tensors, tmp_path / "other" / WEIGHTS)
    for changed, differs in (
        ({"settings": ("beta=0.4",)}, "preset.loss.beta is 0.4 now and was 0.3 there"),
        ({"adapter": tmp_path / "other"}, "adapter is"),
        ({"seed": 5}, "seed"),
    ):
        with pytest.raises(AssetError, match=f"another run: .*{differs}"):
            run(replace(request_, **changed), tmp_path / "out", resume=True)  # type: ignore[arg-type]
    write_rows(Path(request_.data), pair_rows(21))
    with pytest.raises(AssetError, match="holds another run"):
        run(request_, tmp_path / "out", resume=True)


def test_ctrl_c_says_how_it_goes_on(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    arguments = ["dpo", "--data", "my pairs.jsonl", "--out", str(out)]
    with monkeypatch.context() as patch:
        stop_after(patch, 3, KeyboardInterrupt)
        with pytest.raises(
            RunStopped, match=r"stopped after step 3; go on .* --resume"
        ) as told:
            run(request_, out, arguments=arguments)
    assert "'my pairs.jsonl'" in str(told.value)
    run(request_, out, resume=True)
    assert (out / WEIGHTS).is_file()


def test_a_full_disk_is_one_sentence(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*parts: Any, **rest: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "checkpoint.pt")

    monkeypatch.setattr(loop, "save_checkpoint", full)
    with pytest.raises(RunStopped, match=r"the disk is full \(checkpoint.pt\): make room"):
        run(request_, tmp_path / "out")


# --- without a folder, and with bad input ---


def test_without_a_folder_the_store_holds_the_run(request_: PairsRequest, store: Path) -> None:
    (store / "assets").mkdir(parents=True)
    request = replace(request_, steps=2)
    run(request, None)
    said = run(request, None)
    assert said[-1].startswith("this run is finished already: ")
    assert [f.name[:9] for f in (store / "runs").iterdir()] == ["dpo-tiny-"]


LONG = {"prompt": "Why?", "chosen": "so " * 90, "rejected": "no"}
SAME = {"prompt": "Add one to 1.", "chosen": "2", "rejected": "2"}


@pytest.mark.parametrize(
    ("rows", "changes", "sentence"),
    [
        ([], {}, "pairs.jsonl"),
        (pair_rows(1), {}, r"gives one pair, and one at least must be held out"),
        ([*pair_rows(2), SAME], {}, r"pairs.jsonl, line 3: .*the same"),
        ([SAME, SAME], {"on_bad_row": "drop"}, r"pairs.jsonl gives no pair \(line 1"),
        ([{**r, "prompt": "Hi"} for r in pair_rows(4)], {}, "ask the same question"),
        ([{"prompt": "a", "completion": "b"}], {}, r"line 1: .*accepted are"),
        (None, {"settings": ("max_length=9",)}, r"pairs.jsonl: none of 18 pairs is left"),
        ([*pair_rows(3), LONG], {}, r"pairs.jsonl.*, line 4: \d+ tokens; at most 80 are taken"),
        (None, {"settings": ("max_length=9",), "on_bad_row": "drop"}, "none of 18 pairs is"),
        (None, {"data": "missing.jsonl"}, "missing.jsonl"),
        (None, {"data": "."}, r"\."),
        (None, {"adapter": Path("missing")}, "missing holds no readable adapter_config.json"),
        (None, {"adapter": None, "model": "gpt5"}, "unknown model 'gpt5'"),
        (None, {"settings": ("chat_format=llama-3",)}, "has no special token"),
        (None, {"settings": ("lora.r=4",)}, r"--set lora.r with --adapter: the shape of"),
        (None, {"settings": ("gradient_checkpointing=true",)}, "keeps its activations"),
        (None, {"settings": ("engine=trl", "loss_type=orpo")}, "does not train ORPO"),
        (None, {"settings": ("loss_type=kto",)}, "takes single answers"),
        (None, {"settings": ("beta=0",)}, "beta is 0.0"),
        (None, {"report_to": ("mlflow",)}, "report-to is 'mlflow'"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    rows: list[dict[str, str]] | None, changes: dict[str, Any], sentence: str,
    request_: PairsRequest, tmp_path: Path,
) -> None:  # fmt: skip
    if rows is not None:
        write_rows(Path(request_.data), rows)
    with pytest.raises((AssetError, ValueError), match=sentence) as told:
        run(replace(request_, **changes), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not (tmp_path / "out").exists()


def test_rows_that_are_dropped_are_counted(request_: PairsRequest) -> None:
    write_rows(Path(request_.data), [*pair_rows(), SAME, LONG])
    found = prepare_pairs(replace(request_, on_bad_row="drop"))
    assert len(found.pairs) + len(found.held_out) == 20
    told = "\n".join(found.lines())
    assert "1 chosen = rejected" in told and "1 too long" in told


def test_an_adapter_of_another_base_is_refused(
    request_: PairsRequest, tmp_path: Path, tokenizer: Any, qwen: Path, llama: Path
) -> None:
    with pytest.raises(ValueError, match=r"sft/adapter_model.safetensors does not fit smollm2"):
        run(replace(request_, model="smollm2-135m-instruct"), tmp_path / "out")
    # of the same shape, but the run's record knows its model
    shutil.copytree(llama / "sft", tmp_path / "sft")
    record = {"status": "finished", "identity": {"preset": {"model": "0123456789abcdef"}}}
    (tmp_path / "sft" / "run.json").write_text(json.dumps(record))
    with pytest.raises(AssetError, match="was trained beside another model than"):
        run(replace(request_, adapter=tmp_path / "sft"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_made_is_refused_before_the_work(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llama: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(command, "prepare_pairs", None)  # calling it would fail
    with pytest.raises(AssetError, match="is a file: give a folder"):
        run(request_, tmp_path / "file")
    with pytest.raises(AssetError, match="holds other files"):
        run(request_, llama / "sft")
    with pytest.raises(ValueError, match="--resume without --out"):
        run(request_, None, resume=True)


def test_a_run_that_cannot_begin_leaves_no_folder(
    request_: PairsRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = prepare_pairs(request_)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    start = replace(prepared.preset.start, device="cuda")
    prepared = replace(prepared, preset=replace(prepared.preset, start=start))
    with pytest.raises(ValueError, match="needs a GPU"):
        execute_pairs(prepared, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"settings": "beta=0.3"}, "settings is 'beta=0.3': give a sequence of texts"),
        ({"prompts": "Hi"}, "prompts is 'Hi': give a sequence of texts"),
        ({"on_bad_row": "skip"}, "on_bad_row is 'skip': give 'error' or 'drop'"),
        ({"print_every": 0}, "print_every is 0"),
    ],
)
def test_a_request_that_would_be_misread_is_refused(
    request_: PairsRequest, changes: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(request_, **changes)


def test_the_longest_answer_bounds_what_is_measured(request_: PairsRequest) -> None:
    prepared = prepare_pairs(request_)
    longest = max(len(p.rejected_ids) for p in (*prepared.pairs, *prepared.held_out))
    assert own_run._longest_answer(prepared) == 2 * longest
