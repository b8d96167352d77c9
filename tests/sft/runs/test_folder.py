"""posttrain.sft.runs.folder: one folder, one run."""

import json
import os
from pathlib import Path

import pytest

from posttrain.core.errors import AssetError
from posttrain.sft.runs.folder import RunFolder, model_digest

IDENTITY = {"preset": {"lora": {"r": 8}, "seed": 0}, "train": "abc"}


def begun(path: Path) -> RunFolder:
    folder = RunFolder(path)
    folder.check(resume=False)
    folder.begin(IDENTITY, {"data": {"rows": 3}})
    return folder


def test_a_run_begins_goes_on_and_ends(tmp_path: Path) -> None:
    folder = begun(tmp_path / "a" / "run")
    record = folder.record
    assert (
        record is not None and record["status"] == "running" and record["data"] == {"rows": 3}
    )
    assert record["identity"] == IDENTITY and "versions" in record["machine"]
    (folder.path / "metrics.jsonl").write_text('{"event": "step", "step": 7}\n')
    with pytest.raises(AssetError, match=r"was stopped after step 7: add --resume to go on"):
        folder.check(resume=False)
    folder.check(resume=True)
    folder.begin(IDENTITY, {})
    folder.note(before={"losses": [1.0]})
    folder.work.mkdir()
    folder.finish()
    assert not folder.work.exists()
    record = folder.record
    assert record is not None and record["status"] == "finished"
    assert record["before"] == {"losses": [1.0]}
    for resume in (True, False):
        with pytest.raises(AssetError, match="holds a finished run: its adapter is there"):
            folder.check(resume=resume)


def test_another_run_is_not_taken_for_it(tmp_path: Path) -> None:
    folder = begun(tmp_path / "run")
    other = {**IDENTITY, "preset": {"lora": {"r": 16}, "seed": 0}}
    with pytest.raises(
        AssetError, match=r"another run: preset.lora.r is 16 now and was 8 there; give the same"
    ):
        folder.begin(other, {})
    more = {**other, "train": "xyz", "new": 1}
    with pytest.raises(AssetError, match=r"\(2 more differ\)"):
        folder.begin(more, {})
    assert folder.record is not None and folder.record["identity"] == IDENTITY


def test_folders_that_cannot_hold_a_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("")
    (tmp_path / "empty").mkdir()
    (tmp_path / "damaged").mkdir()
    for text, sentence in [("{", "run.json cannot be read"), ("{}", "it is no run's record")]:
        (tmp_path / "damaged" / "run.json").write_text(text)
        with pytest.raises(AssetError, match=sentence):
            RunFolder(tmp_path / "damaged").check(resume=True)
    for name, resume, sentence in [
        ("file", False, "is a file: give a folder for the run"),
        ("file/below", False, "cannot be written"),
        ("full", False, r"holds other files \(thesis.tex first\): give a new or empty folder"),
        ("empty", True, "holds no run that could go on: leave --resume out"),
        ("new", True, "holds no run that could go on: leave --resume out"),
    ]:
        with pytest.raises(AssetError, match=sentence):
            RunFolder(tmp_path / name).check(resume=resume)
    for name in ("empty", "new", "new/below/that"):
        RunFolder(tmp_path / name).check(resume=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_write_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(AssetError, match="allows no new files"):
        RunFolder(tmp_path / "run").check(resume=False)
    tmp_path.chmod(0o700)


def test_digests_tell_models_apart(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 8}))
    (tmp_path / "model.safetensors").write_bytes(bytes(3_000_000))
    first = model_digest(tmp_path)
    assert first == model_digest(tmp_path) and len(first) == 16
    (tmp_path / "model.safetensors").write_bytes(bytes(2_999_999) + b"1")
    second = model_digest(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"hidden_size": 9}))
    assert len({first, second, model_digest(tmp_path)}) == 3
