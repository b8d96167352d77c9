import errno
import hashlib
import json
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from posttrain.core.errors import AssetError, PosttrainError, TrainingDiverged
from posttrain.core.storage import files


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_the_target_appears_only_when_the_block_ends(tmp_path: Path):
    target = tmp_path / "new" / "weights.bin"
    with files.atomic_path(target) as temporary:
        temporary.write_bytes(b"abc")
        assert temporary.parent == target.parent and temporary.suffix == ".bin"
        assert not target.exists()
    assert target.read_bytes() == b"abc"
    assert names(target.parent) == ["weights.bin"]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "full")])
def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException):
    target = tmp_path / "row.json"
    files.write_text_atomic(target, "old")
    with pytest.raises(type(error)), files.atomic_path(target) as temporary:
        temporary.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert names(tmp_path) == ["row.json"]


def test_a_block_that_writes_nothing_is_told_so(tmp_path: Path):
    with (
        pytest.raises(FileNotFoundError, match="write to the path that atomic_path yields"),
        files.atomic_path(tmp_path / "x"),
    ):
        pass
    assert names(tmp_path) == []


def test_text_is_utf8_with_newlines_as_given(tmp_path: Path):
    files.write_text_atomic(tmp_path / "t", "a\nβ\n")
    assert (tmp_path / "t").read_bytes() == "a\nβ\n".encode()


@dataclass
class Point:
    x: float
    where: Path


def test_json_takes_dataclasses_paths_sets_and_scalars(tmp_path: Path):
    value = {"p": Point(np.float32(0.5), Path("a/b")), "s": {2, 1}, "n": np.int64(3), "β": None}
    files.write_json_atomic(tmp_path / "o.json", value)
    text = (tmp_path / "o.json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "p": {"x": 0.5, "where": "a/b"},
        "s": [1, 2],
        "n": 3,
        "β": None,
    }
    assert text.endswith("}\n") and "β" in text


def test_json_names_what_it_cannot_write(tmp_path: Path):
    with pytest.raises(TypeError, match=r"of type function cannot be written as JSON: use"):
        files.write_json_atomic(tmp_path / "o.json", {"f": pytest.raises})
    assert names(tmp_path) == []


def test_sha256_of_a_file(tmp_path: Path):
    (tmp_path / "f").write_bytes(b"x" * 100_000)
    assert files.sha256_file(tmp_path / "f") == hashlib.sha256(b"x" * 100_000).hexdigest()


def test_a_wrong_checksum_says_what_to_do():
    with pytest.raises(AssetError, match=r"the file has SHA-256 aaaa.* Run: this"):
        files.check_sha256("a" * 64, "b" * 64, "the file", "Run: this")
    files.check_sha256("a" * 64, "a" * 64, "the file", "Run: this")


def test_a_full_disk_is_recognized_in_all_its_forms():
    assert files.is_disk_full(OSError(errno.ENOSPC, "x"))
    assert files.is_disk_full(OSError(errno.EDQUOT, "x"))
    for text in (  # as safetensors, NumPy and torch.save put it
        "Error while serializing: I/O error: No space left on device (os error 28)",
        "Not enough free space to write 16777216 bytes after offset 128",
        "[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534",
    ):
        assert files.is_disk_full(RuntimeError(text))
    wrapped = ValueError("could not save")
    wrapped.__cause__ = OSError(errno.ENOSPC, "x")
    assert files.is_disk_full(wrapped)
    assert not files.is_disk_full(OSError(errno.EACCES, "x"))
    assert not files.is_disk_full(None)


def test_errors_are_of_the_right_kind_and_survive_pickling():
    assert issubclass(AssetError, PosttrainError)
    error = pickle.loads(pickle.dumps(TrainingDiverged(7, "learning rate too high")))
    assert (error.step, error.cause) == (7, "learning rate too high")
    assert str(error) == "training diverged at step 7: learning rate too high"
