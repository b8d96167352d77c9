"""What trains again after an edit, and what does not."""

import importlib
import sys
from pathlib import Path

import pytest

from posttrain.core import artifacts
from posttrain.core.artifacts import artifact_key
from posttrain.core.storage.code_hash import module_hashes

SOURCES = {
    "__init__": '"""A package."""\n__version__ = "1"\n',
    "train": (
        '"""Train."""\nimport json\nfrom . import loss\n\n\n'
        "def train():\n    from pack.inner.data import load\n    return loss.nll(load())\n"
    ),
    "loss": 'def nll(x):\n    """Return it."""\n    # doubled\n    return x * 2\n',
    "inner/__init__": "",
    "inner/data": "from ..table import ROWS as rows\n\n\ndef load():\n    return rows\n",
    "table": "ROWS = 3\n",
    "unused": "x = 1\n",
}


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "pack"
    for name, source in SOURCES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    return folder


def test_imports_are_followed_into_functions_and_up_the_package(pack: Path):
    hashes = module_hashes(["pack.train"])
    assert list(hashes) == [
        "pack.inner",
        "pack.inner.data",
        "pack.loss",
        "pack.table",
        "pack.train",
    ]
    assert "pack" not in sys.modules  # nothing was run


@pytest.mark.parametrize(
    ("module", "old", "new", "changes"),
    [
        ("table", "ROWS = 3", "ROWS = 4", True),  # two imports away, inside a function
        ("loss", "x * 2", "x * 3", True),
        ("loss", "# doubled", "# twice, as in the paper", False),
        ("loss", '"""Return it."""', '"""Return twice it."""', False),
        ("loss", "x * 2", "(x  *\n            2)", False),
        ("train", '"""Train."""', "", False),
        ("table", "ROWS = 3\n", 'ROWS = 3\n"""How many."""\n', False),
        ("unused", "x = 1", "x = 2", False),
        ("__init__", '"1"', '"2"', False),
    ],
)
def test_the_key_changes_with_code_and_not_with_words(
    pack: Path, module: str, old: str, new: str, changes: bool
):
    before = artifact_key({}, "", ["pack.train"])
    file = pack / f"{module}.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))
    assert (artifact_key({}, "", ["pack.train"]) != before) == changes


def test_our_own_modules_are_followed():
    hashes = module_hashes([artifacts])
    assert {
        "posttrain.core.artifacts",
        "posttrain.core.storage.store",
        "posttrain.core.storage.paths",
    } <= set(hashes)
    assert "posttrain" not in hashes  # a new version alone trains nothing again


def test_modules_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"'posttrain\.core\.nothing': give dotted names"):
        module_hashes(["posttrain.core.storage.paths", "posttrain.core.nothing"])
    with pytest.raises(ValueError, match="no source for the module 'no_such_package'"):
        module_hashes(["no_such_package"])
    with pytest.raises(TypeError, match=r"a list of module names, not a string: \['json'\]"):
        module_hashes("json")
